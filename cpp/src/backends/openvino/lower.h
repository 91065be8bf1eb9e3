#pragma once

#include <memory>

#include <openvino/core/model.hpp>

#include "passes/passes.h"

namespace resrt::openvino {

// Returns the network as an OpenVINO model from float32 images (N, C, H, W) to float32 logits
// (N, classes), for any N. The model uses the memory of the network's weights and keeps it alive.
// Throws ModelError if the batch normalisation inside a split attention is not folded.
std::shared_ptr<ov::Model> lower(const Network& network);

}  // namespace resrt::openvino
