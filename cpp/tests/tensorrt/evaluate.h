#pragma once

#include <NvInfer.h>
#include <cstdint>
#include <string>
#include <vector>

namespace resrt::test {

struct Value {
  std::vector<int64_t> shape;
  std::vector<double> data;
};

// Computes the output of a TensorRT network in double precision, without a GPU. Layers are
// evaluated one after another as TensorRT's documentation defines them. Supports the layers that
// the lowering uses and throws std::logic_error for any other.
Value evaluate(const nvinfer1::INetworkDefinition& network, const Value& images);

}  // namespace resrt::test
