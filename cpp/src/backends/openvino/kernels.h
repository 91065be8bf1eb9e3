#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"

namespace resrt::openvino {

// Returns the XML of a model whose convolutions run by the chosen kernels.
std::string with_kernels(const std::string& xml, const std::vector<KernelChoice>& kernels);

// Loads the network with these kernels, and counters.
using LoadWithKernels =
    std::function<std::unique_ptr<Executable>(const std::vector<KernelChoice>& kernels)>;

// Measures for about that many seconds which of OpenVINO's kernels run each kind of convolution of
// the graph, as it was lowered, fastest on this processor. OpenVINO itself always prefers the same
// kernels. Returns a choice for each kind, or nothing if it makes the network no faster.
std::vector<KernelChoice> choose_kernels(const Graph& graph, const EngineInfo& info, double seconds,
                                         const Progress& progress, const LoadWithKernels& load);

}  // namespace resrt::openvino
