#pragma once

#include <NvInfer.h>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "resrt/weights.h"

namespace resrt::tensorrt {

// A float rounded to the nearest of the 16-bit type, to the even one of two that are as near.
uint16_t to_fp16(float value);
uint16_t to_bf16(float value);

// The arrays that a network refers to, in the types that it computes in. They must live until the
// network is built.
class Constants {
 public:
  // `name` is what an error calls it. Throws PrecisionError for a value that fp16 cannot hold.
  nvinfer1::Weights add(const std::string& name, const Array& array, nvinfer1::DataType type);

 private:
  std::vector<Array> arrays_;
  std::vector<std::unique_ptr<uint16_t[]>> converted_;
};

}  // namespace resrt::tensorrt
