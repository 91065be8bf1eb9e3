#pragma once

#include "backends/backend.h"
#include "backends/tensorrt/library.h"
#include "backends/tensorrt/logger.h"

namespace resrt::tensorrt {

// Builds an engine on the current device, or for RTX's targets. The options were checked. Throws
// BackendError where TensorRT fails, with its reasons.
Plan build(const Library& library, Logger& logger, const Graph& graph, const Weights& weights,
           const EngineInfo& info, const BuildOptions& options);

}  // namespace resrt::tensorrt
