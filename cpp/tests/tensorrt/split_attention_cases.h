#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "backends/tensorrt/plugin/split_attention.h"

// Test cases for the plugin's kernels and their expected results, shared by the program that runs
// them on a GPU and the test that emulates one.
namespace resrt::plugin::test {

struct Block {
  SplitAttentionSizes sizes;
  int height;
  int width;
  Pooling pooling = Pooling::none;
};

struct Case {
  Problem problem;
  Variant variant;
  double fc2_bias;  // the magnitude of the bias, and so of the logits
};

// A GPU with clusters.
inline constexpr Gpu kHopper = {90, 132, 227 << 10, 16};

std::string describe(const Case& c);

// Every radix and cardinality from 1 to 4, and numbers of pixels that are multiples of every pack
// width. 520 pixels are summed in parts. Also every pooling, of even and odd sizes.
std::vector<Block> small_blocks();

// The distinct blocks of networks of the catalogue, with the poolings that follow them.
std::vector<Block> blocks_of(const std::vector<std::string>& models);

// Cases of every type, layout and variant that a GPU supports.
std::vector<Case> cases_of(const std::vector<Block>& blocks, const std::vector<int>& batches,
                           const Gpu& gpu);

// exp(x) overflows float32 for x > 88, so the softmax must subtract the maximum first.
std::vector<Case> cases_of_large_logits(const Gpu& gpu);

// Numbers rounded to the element type: the bytes for the kernels and the values for the reference.
struct Numbers {
  std::vector<uint8_t> bytes;
  std::vector<double> values;
};

// The inputs of a SplitAttentionCall.
struct Inputs {
  Numbers x;
  Numbers fc1_weight;
  Numbers fc1_bias;
  Numbers fc2_weight;
  Numbers fc2_bias;
};

// Runs the kernels on a case. Receives the initial bytes of y and returns the result.
using Compute =
    std::function<std::vector<uint8_t>(const Case&, const Inputs&, std::vector<uint8_t> y)>;

// Returns the largest error against double precision on new random inputs. The error is relative
// for values above 1, and infinite if a result is NaN.
double largest_error(const Case& c, std::mt19937& random, const Compute& compute);

// The largest error allowed.
double tolerance(Element element);

}  // namespace resrt::plugin::test
