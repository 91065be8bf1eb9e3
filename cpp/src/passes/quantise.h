#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "passes/passes.h"
#include "resrt/calibration.h"

namespace resrt {

// The integers that a device multiplies fast, and what its library fuses.
struct QuantiseOptions {
  // Of a weight's integers: 8, or 7 where two products of 8 bits may overflow the 16-bit integer
  // that adds them up.
  int weight_bits = 8;
  // Whether the output of a convolution is rounded before an addition, not only the other summand.
  bool round_branches = true;
};

// Returns the tensors that are rounded to 8 bits, as indices of layers, in order:
//
// - the input of each convolution whose input is larger than 1x1;
// - both inputs of each addition, so that a residual block reads and writes 8 bits;
// - what the last block returns to the global pooling, which averages the rounding errors.
//
// Maxima and padding with zeros commute with rounding, so a tensor is rounded before them. All
// readers of a tensor read the rounded one. The pooling, the products and the weighted sum of an
// attention are not rounded inside: only what a convolution reads of its output is.
//
// Batch normalisations must be folded. Convolutions and additions in `keep` have no rounded inputs.
// Throws InputError if it has another name.
std::vector<int> quantised_tensors(const Graph& graph, const std::set<std::string>& keep,
                                   bool round_branches);

// Appends a Quantize to each of these tensors, and sets Conv2d::weight_bits where the input is
// rounded. Throws InputError, which names the tensor, if the calibration lacks a valid range.
Graph quantise(const Graph& graph, const Calibration& calibration, const QuantiseOptions& options);

// A weight, (out_channels, ...), as integers with a scale for each output channel.
struct QuantisedWeight {
  std::shared_ptr<const std::vector<int8_t>> integers;
  Array scales;  // (out_channels)
};
QuantisedWeight quantise_weight(const Array& weight, int bits);

}  // namespace resrt
