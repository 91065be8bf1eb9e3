// Tests rounding to 16-bit types.

#include "backends/tensorrt/constants.h"

#include <bit>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>

namespace resrt::test {
namespace {

// Returns the value of a finite fp16.
double from_fp16(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(ToFp16, KeepsExactValues) {
  for (uint16_t bits = 0; bits < 0x7C00; ++bits) {
    const auto value = static_cast<float>(from_fp16(bits));
    ASSERT_EQ(tensorrt::to_fp16(value), bits);
    ASSERT_EQ(tensorrt::to_fp16(-value), bits | 0x8000);
  }
}

TEST(ToFp16, RoundsToNearestEven) {
  for (uint16_t bits = 0; bits + 1 < 0x7C00; ++bits) {
    const auto next = static_cast<uint16_t>(bits + 1);
    const auto middle = static_cast<float>((from_fp16(bits) + from_fp16(next)) / 2);
    ASSERT_EQ(tensorrt::to_fp16(std::nextafter(middle, 0.0F)), bits);
    ASSERT_EQ(tensorrt::to_fp16(middle), bits % 2 == 0 ? bits : next);
    ASSERT_EQ(tensorrt::to_fp16(std::nextafter(middle, 1e9F)), next);
  }
}

TEST(ToBf16, RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7F7F; ++bits) {
    const auto exact = std::bit_cast<float>(bits << 16);
    ASSERT_EQ(tensorrt::to_bf16(exact), bits);
    ASSERT_EQ(tensorrt::to_bf16(-exact), bits | 0x8000);
    const auto middle = std::bit_cast<float>(bits << 16 | 0x8000U);
    ASSERT_EQ(tensorrt::to_bf16(std::nextafter(middle, 0.0F)), bits);
    ASSERT_EQ(tensorrt::to_bf16(middle), bits + bits % 2);
    ASSERT_EQ(tensorrt::to_bf16(std::nextafter(middle, std::numeric_limits<float>::infinity())),
              bits + 1);
  }
}

}  // namespace
}  // namespace resrt::test
