#pragma once

#include <memory>

#include <openvino/core/model.hpp>

#include "passes/passes.h"

namespace resrt::openvino {

// The network in OpenVINO's operations: float32 images (N, C, H, W) to float32 logits (N, classes),
// for any N. The network's constants are read where they lie, and kept alive.
std::shared_ptr<ov::Model> lower(const Network& network);

}  // namespace resrt::openvino
