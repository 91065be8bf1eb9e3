#pragma once

#include "resrt/graph.h"
#include "resrt/weights.h"

namespace resrt {

// The two grouped convolutions inside a split attention as dense matrices, zeros between the
// groups. They are small, so that one product costs less than its groups' launches would.
struct AttentionMatrices {
  // From the means of all splits, (radix x channels), to the hidden channels. Pooling is linear, so
  // that adding up the splits is part of the matrix: [W ... W].
  Array fc1;       // (hidden, radix * channels, 1, 1)
  Array fc1_bias;  // (hidden)
  // From there to the logits, those of one split after those of the one before. With radix 2, the
  // difference of the splits' logits: softmax(z0, z1) = (s, 1 - s) with s = sigmoid(z0 - z1).
  Array fc2;       // (rows, hidden, 1, 1); rows: channels with radix 1 and 2, else radix * channels
  Array fc2_bias;  // (rows)
};

// `name` is the layer's. The block's batch normalisation must have been folded.
AttentionMatrices attention_matrices(const SplitAttention& block, const std::string& name,
                                     const Weights& weights);

}  // namespace resrt
