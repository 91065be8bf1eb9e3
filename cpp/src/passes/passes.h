#pragma once

#include "resrt/engine.h"
#include "resrt/graph.h"
#include "resrt/weights.h"

namespace resrt {

// Passes turn a network into an equivalent one that costs less. Each backend calls those that it
// benefits from. Passes do not depend on models or backends.
struct Network {
  Graph graph;
  Weights weights;
};

// Folds each batch normalisation that is the only reader of a convolution into the convolution's
// weight and bias, and the one inside SplitAttention into its fc1.
Network fold_batch_norm(const Network& network);

// Throws a WeightsError that names the parameters with a value that is infinite in a precision.
// Folded ones may be although the weights that were given are not.
void check_range(const Network& network, Precision precision);

// Fuses Conv2d -> Add -> Relu, Conv2d -> Add and Conv2d -> Relu into the Conv2d, unless another
// layer reads an intermediate result.
Graph fuse_add_relu(const Graph& graph);

}  // namespace resrt
