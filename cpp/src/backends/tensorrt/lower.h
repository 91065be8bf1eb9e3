#pragma once

#include <NvInfer.h>

#include "backends/tensorrt/constants.h"
#include "backends/tensorrt/logger.h"
#include "passes/passes.h"
#include "resrt/engine.h"

namespace resrt::tensorrt {

inline constexpr const char* kImages = "images";
inline constexpr const char* kLogits = "logits";

// The type of the tensors between layers.
nvinfer1::DataType to_type(Precision precision);

// Adds the network's layers to an empty TensorRT network: float32 "images" (N, C, H, W) to float32
// "logits" (N, classes), for any N. Types are the layers' own, in a strongly typed network:
// activations and weights are of `precision` from a cast after the images to a cast before the
// logits. Only means over height and width are taken in float32, where a sum of thousands of values
// would overflow fp16 or lose bf16's few digits. Convolutions, the last layer among them, are
// accumulated in float32 by the GPU's matrix units.
//
// `constants` gets the arrays. `split_attention` makes the plugin of that name; null: the block
// becomes ordinary layers. Throws BackendError, naming the layer, where TensorRT refuses one.
void lower(const Network& network, Precision precision, nvinfer1::INetworkDefinition& target,
           Constants& constants, const Logger& logger,
           nvinfer1::IPluginCreatorV3One* split_attention = nullptr);

}  // namespace resrt::tensorrt
