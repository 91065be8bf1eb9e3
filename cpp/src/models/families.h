#pragma once

#include <string>

#include "resrt/models.h"

namespace resrt {

// Builds the graph of a configuration, with one overload per family.
Graph build(std::string name, const ResNetConfig& config, const Input& input, int classes);
Graph build(std::string name, const ResNeStConfig& config, const Input& input, int classes);
Graph build(std::string name, const RegNetConfig& config, const Input& input, int classes);

}  // namespace resrt
