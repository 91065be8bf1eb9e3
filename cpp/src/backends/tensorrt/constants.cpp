#include "backends/tensorrt/constants.h"

#include <bit>
#include <cmath>

#include "resrt/error.h"
#include "text.h"

namespace resrt::tensorrt {
namespace {

constexpr float kLargestFp16 = 65504.0F;

// Removes the lowest `bits` bits of a magnitude, rounding to nearest, ties to even.
uint32_t round_off(uint32_t magnitude, int bits) {
  const uint32_t half = (1U << (bits - 1)) - 1;
  return (magnitude + half + ((magnitude >> bits) & 1U)) >> bits;
}

}  // namespace

uint16_t to_fp16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000U;
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  // Below 2^-14, fp16 values are multiples of 2^-24. Adding 0.5, whose last bit is 2^-24, rounds to
  // one of them.
  if (magnitude < 0x38800000U) {
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000U));
  }
  // The exponent's bias is 15 instead of 127. A mantissa that rounds up to 2 carries into it.
  return static_cast<uint16_t>(sign | round_off(magnitude - (112U << 23), 13));
}

uint16_t to_bf16(float value) {
  return static_cast<uint16_t>(round_off(std::bit_cast<uint32_t>(value), 16));
}

nvinfer1::Weights Constants::add(const std::string& name, const Array& array,
                                 nvinfer1::DataType type) {
  const auto count = static_cast<int64_t>(array.size());
  if (type == nvinfer1::DataType::kFLOAT) {
    arrays_.push_back(array);
    return {type, array.data.get(), count};
  }
  auto& converted = converted_.emplace_back(std::make_unique<uint16_t[]>(array.size()));
  for (size_t i = 0; i < array.size(); ++i) {
    const float value = array.data.get()[i];
    if (type == nvinfer1::DataType::kBF16) {
      converted[i] = to_bf16(value);
    } else if (std::abs(value) <= kLargestFp16) {
      converted[i] = to_fp16(value);
    } else {
      throw PrecisionError(concat("the parameter ", name, " is too large for fp16 after folding: ",
                                  value, ", while the largest fp16 value is ", kLargestFp16,
                                  "; build with precision bf16 or fp32"));
    }
  }
  return {type, converted.get(), count};
}

}  // namespace resrt::tensorrt
