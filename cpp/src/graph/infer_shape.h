#pragma once

#include <vector>

#include "resrt/graph.h"

namespace resrt {

// Returns the shape of a layer's output. Throws ModelError if the definition does not fit its
// inputs.
Shape infer_shape(const Definition& definition, const std::vector<Shape>& inputs);

}  // namespace resrt
