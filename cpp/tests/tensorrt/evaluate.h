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

// What a TensorRT network computes, in double precision and without a GPU: its layers evaluated one
// after another, by what TensorRT's documentation says of each. Knows the layers that the lowering
// uses and throws std::logic_error for any other.
Value evaluate(const nvinfer1::INetworkDefinition& network, const Value& images);

}  // namespace resrt::test
