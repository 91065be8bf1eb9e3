#pragma once

#include <string>

#include "resrt/graph.h"
#include "resrt/weights.h"

namespace resrt {

// The two products inside a split attention, ready for any lowering:
//
//   hidden = relu(fc1 * means + fc1_bias)
//   logits = fc2 * hidden + fc2_bias
//
// The rows of fc2 are sorted by the radix, so that the logits of one split follow those of the one
// before: (radix, cardinality, channels / cardinality) instead of the definition's (cardinality,
// radix, channels / cardinality). With radix 2 they are the difference of the two splits' logits,
// because softmax(z0, z1) = (s, 1 - s) with s = sigmoid(z0 - z1), and the output is
// y = U1 + s * (U0 - U1). fc2 has `channels` rows with radix 1 and 2, else radix * channels.
struct AttentionProducts {
  Array fc1;
  Array fc1_bias;  // (hidden), zeros if the block has none
  Array fc2;
  Array fc2_bias;  // (rows of fc2)
};

// The products as convolutions with `cardinality` groups. Pooling is linear, so `means` is the sum
// of the splits' means, (channels): no pass over the splits is needed to add them up.
// fc1 is (hidden, channels / cardinality, 1, 1). fc2 is (rows, hidden / cardinality, 1, 1); each
// `channels` rows of it are one convolution. `name` is the layer's. Throws ModelError if the block
// still has its batch normalisation.
AttentionProducts grouped_products(const SplitAttention& block, const std::string& name,
                                   const Weights& weights);

// The same as dense matrices, with zeros between the groups: they are small, so one product costs
// less than launching its groups. fc1 is (hidden, radix * channels, 1, 1) and takes the means of
// all splits, one split after another: its columns repeat for each split, [W ... W].
AttentionProducts dense_products(const SplitAttention& block, const std::string& name,
                                 const Weights& weights);

// Throws ModelError if the block still has its batch normalisation, which fold_batch_norm folds
// into fc1. For a lowering that reads the parameters themselves.
void require_folded(const SplitAttention& block, const std::string& name);

}  // namespace resrt
