#pragma once

#include <NvInfer.h>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "resrt/weights.h"

namespace resrt::tensorrt {

// Round a float to the nearest value of the 16-bit type, ties to even.
uint16_t to_fp16(float value);
uint16_t to_bf16(float value);

// The arrays that a TensorRT network refers to, converted to the network's type. They must exist
// until the network is built.
class Constants {
 public:
  // `name` identifies the array in error messages. Throws PrecisionError if a value is too large
  // for fp16.
  nvinfer1::Weights add(const std::string& name, const Array& array, nvinfer1::DataType type);

 private:
  std::vector<Array> arrays_;
  std::vector<std::unique_ptr<uint16_t[]>> converted_;
};

}  // namespace resrt::tensorrt
