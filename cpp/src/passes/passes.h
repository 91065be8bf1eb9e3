#pragma once

#include "resrt/graph.h"
#include "resrt/weights.h"

namespace resrt {

// Passes turn a network into an equivalent one that costs less. A backend calls those that it gains
// from; they know no model and no backend.
struct Network {
  Graph graph;
  Weights weights;
};

// Folds each batch normalisation that alone follows a convolution into that convolution's weight
// and bias, and the one inside SplitAttention into its fc1.
Network fold_batch_norm(const Network& network);

// Fuses Conv2d -> Add -> Relu, and each shorter form of it, into the Conv2d where nothing else
// reads what lies between.
Graph fuse_add_relu(const Graph& graph);

}  // namespace resrt
