#pragma once

#include <string>

#include "resrt/models.h"

namespace resrt {

// One per family: the graph of a configuration.
Graph build(std::string name, const ResNetConfig& config, const Input& input, int classes);
Graph build(std::string name, const ResNeStConfig& config, const Input& input, int classes);
Graph build(std::string name, const RegNetConfig& config, const Input& input, int classes);

}  // namespace resrt
