#pragma once

#include <string>
#include <vector>

#include "resrt/engine.h"

namespace resrt::openvino {

// Returns the XML of a model whose convolutions run by the chosen kernels.
std::string with_kernels(const std::string& xml, const std::vector<KernelChoice>& kernels);

}  // namespace resrt::openvino
