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
  int pixels;
};

struct Case {
  Block block;
  Element element;
  Layout layout;
  int batch;
  double fc2_bias;  // the magnitude of the bias, and so of the logits
};

std::string describe(const Case& c);

// Every radix and cardinality from 1 to 4, and numbers of pixels that are multiples of every pack
// width. 520 pixels are summed in parts.
std::vector<Block> small_blocks();

// The distinct blocks of networks of the catalogue.
std::vector<Block> blocks_of(const std::vector<std::string>& models);

// Cases of every type and layout that the blocks support.
std::vector<Case> cases_of(const std::vector<Block>& blocks, const std::vector<int>& batches);

// exp(x) overflows float32 for x > 88, so the softmax must subtract the maximum first.
std::vector<Case> cases_of_large_logits();

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
