#pragma once

#include "backends/backend.h"
#include "backends/tensorrt/library.h"
#include "backends/tensorrt/logger.h"

namespace resrt::tensorrt {

// Builds an engine on the current device, or for the targets of TensorRT for RTX. The options must
// have been checked. Throws BackendError with TensorRT's error messages if the build fails.
Plan build(const Library& library, Logger& logger, const Graph& graph, const Weights& weights,
           const EngineInfo& info, const BuildOptions& options);

}  // namespace resrt::tensorrt
