#pragma once

#include <NvInfer.h>

#include "backends/tensorrt/constants.h"
#include "backends/tensorrt/logger.h"
#include "passes/passes.h"
#include "resrt/engine.h"

namespace resrt::tensorrt {

inline constexpr const char* kImages = "images";

// The type of the tensors between layers.
nvinfer1::DataType to_type(Precision precision);

// Adds the network's layers to an empty TensorRT network, from float32 "images" (N, C, H, W) to
// float32 "logits" (N, classes), for any N. The network is strongly typed: activations and weights
// have the type of `precision`, from a cast after the images to a cast before the logits. Only
// means over height and width are computed in float32, because a sum of thousands of values would
// overflow fp16 or exceed the precision of bf16. The GPU's matrix units accumulate convolutions,
// including the last layer, in float32. If an image has a value that is NaN or infinite, all its
// logits are NaN.
//
// The arrays are added to `constants`. `split_attention` creates the plugin of that name; if it is
// null, the block is lowered to ordinary layers. Throws BackendError, which names the layer, if
// TensorRT rejects one, and ModelError if the batch normalisation inside a split attention is not
// folded.
void lower(const Network& network, Precision precision, nvinfer1::INetworkDefinition& target,
           Constants& constants, const Logger& logger,
           nvinfer1::IPluginCreatorV3One* split_attention = nullptr);

}  // namespace resrt::tensorrt
