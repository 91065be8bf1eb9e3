#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "backends/tensorrt/plugin/split_attention.h"

// What the plugin's kernels are asked to compute, and what must come of it: for the program that
// runs them on a GPU and for the test that emulates one.
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
  double fc2_bias;  // how large it is, and so the logits
};

std::string describe(const Case& c);

// Every radix and cardinality from 1 to 4; numbers of pixels that packs of every width divide, of
// which 520 are summed in parts.
std::vector<Block> small_blocks();

// Those of networks of the catalogue, each once.
std::vector<Block> blocks_of(const std::vector<std::string>& models);

// Every type and layout that there is for the blocks.
std::vector<Case> cases_of(const std::vector<Block>& blocks, const std::vector<int>& batches);

// A power of more than 88 is infinite in float32, and so the softmax must not take it.
std::vector<Case> cases_of_large_logits();

// Numbers rounded to the type, as the kernels get them and as the reference reads them.
struct Numbers {
  std::vector<uint8_t> bytes;
  std::vector<double> values;
};

// As SplitAttentionCall has them.
struct Inputs {
  Numbers x;
  Numbers fc1_weight;
  Numbers fc1_bias;
  Numbers fc2_weight;
  Numbers fc2_bias;
};

// Has the kernels compute the case: y, of the bytes that it is given for its beginning.
using Compute =
    std::function<std::vector<uint8_t>(const Case&, const Inputs&, std::vector<uint8_t> y)>;

// Against double precision, on fresh random numbers; relative where a value is beyond 1, and
// infinite where one is not a number.
double largest_error(const Case& c, std::mt19937& random, const Compute& compute);

// What it may be.
double tolerance(Element element);

}  // namespace resrt::plugin::test
