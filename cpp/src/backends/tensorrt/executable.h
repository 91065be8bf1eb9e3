#pragma once

#include <memory>

#include "backends/backend.h"
#include "backends/tensorrt/library.h"
#include "backends/tensorrt/logger.h"

namespace resrt::tensorrt {

// Loads an engine onto a GPU. Throws BackendError if there is none, or if TensorRT rejects the
// engine, with TensorRT's reasons.
std::unique_ptr<Executable> load(const Library& library, Logger& logger, const Plan& plan,
                                 const EngineInfo& info, const LoadOptions& options);

}  // namespace resrt::tensorrt
