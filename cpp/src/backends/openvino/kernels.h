#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "backends/backend.h"

namespace resrt::openvino {

// Loads the network with these kernels, and counters.
using LoadWithKernels =
    std::function<std::unique_ptr<Executable>(const std::vector<KernelChoice>& kernels)>;

// Returns the time; a test has a clock of its own.
using Now = std::function<std::chrono::steady_clock::time_point()>;

// Measures which of OpenVINO's kernels run each kind of convolution of the graph, as it was
// lowered, fastest on this processor. OpenVINO itself always prefers the same kernels. Loading the
// network and all inferences together take about so many seconds. Returns a choice for each kind,
// or nothing if it makes the network no faster, or if that takes longer to find out.
std::vector<KernelChoice> choose_kernels(const Graph& graph, const EngineInfo& info, double seconds,
                                         const Progress& progress, const LoadWithKernels& load,
                                         const Now& now = std::chrono::steady_clock::now);

}  // namespace resrt::openvino
