#include <functional>
#include <numeric>

#include "resrt/graph.h"

namespace resrt {
namespace {

int64_t element_count(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

Cost Graph::cost(const Layer& layer) const {
  Cost cost;
  // Every element of the weight of a convolution or linear layer is multiplied once per position of
  // the output. The layers inside attention blocks have one position, or one per channel.
  int64_t positions = 1;
  if (std::holds_alternative<Conv2d>(layer.definition)) {
    positions = int64_t{layer.shape.height} * layer.shape.width;
  } else if (std::holds_alternative<EfficientChannelAttention>(layer.definition)) {
    positions = layer.shape.channels;
  }
  for (const Parameter& parameter : parameters(layer)) {
    const int64_t count = element_count(parameter.shape);
    if (parameter.trainable) cost.parameters += count;
    if (parameter.shape.size() > 1) cost.multiply_adds += count * positions;
  }
  return cost;
}

Cost Graph::cost() const {
  Cost total;
  for (const Layer& layer : layers_) {
    const Cost one = cost(layer);
    total.parameters += one.parameters;
    total.multiply_adds += one.multiply_adds;
  }
  return total;
}

}  // namespace resrt
