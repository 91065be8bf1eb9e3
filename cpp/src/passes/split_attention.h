#pragma once

#include <string>

#include "resrt/graph.h"
#include "resrt/weights.h"

namespace resrt {

// The two products inside a split attention, in the form that lowerings use:
//
//   hidden = relu(fc1 * means + fc1_bias)
//   logits = fc2 * hidden + fc2_bias
//
// The rows of fc2 are sorted by split, (radix, cardinality, channels / cardinality), instead of the
// definition's (cardinality, radix, channels / cardinality). With radix 2, fc2 computes the
// difference of the two splits' logits, because softmax(z0, z1) = (s, 1 - s) with
// s = sigmoid(z0 - z1). The output is then y = U1 + s * (U0 - U1), which reads each split once. fc2
// has `channels` rows for radix 1 and 2, otherwise radix * channels.
struct AttentionProducts {
  Array fc1;
  Array fc1_bias;  // (hidden), zeros if the block has no such bias
  Array fc2;
  Array fc2_bias;  // (rows of fc2)
};

// Returns the products as convolutions with `cardinality` groups. `means` is the sum of the splits'
// means, (channels): pooling is linear, so the splits themselves need not be added up.
// fc1 is (hidden, channels / cardinality, 1, 1). fc2 is (rows, hidden / cardinality, 1, 1), where
// every `channels` rows are one convolution. `name` is the name of the layer. Throws ModelError if
// the block still has its batch normalisation.
AttentionProducts grouped_products(const SplitAttention& block, const std::string& name,
                                   const Weights& weights);

// Returns the products as dense matrices, with zeros outside the groups. They are so small that one
// dense product is faster than a launch per group. `means` are the means of all splits, one split
// after another, and fc1 is (hidden, radix * channels, 1, 1): pooling is linear, so its columns
// repeat for each split, [W ... W], and it adds up the splits too.
AttentionProducts dense_products(const SplitAttention& block, const std::string& name,
                                 const Weights& weights);

// Throws ModelError if the block still has its batch normalisation, which fold_batch_norm folds
// into fc1. A lowering that reads the parameters directly must call this.
void require_folded(const SplitAttention& block, const std::string& name);

}  // namespace resrt
