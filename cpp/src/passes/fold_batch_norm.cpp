#include <cmath>

#include "passes/passes.h"
#include "passes/rewrite.h"

namespace resrt {
namespace {

// Folds the batch normalisation `bn` into the weight (out, ...) and bias (out) of a convolution,
// which may have no bias yet, and removes the parameters of `bn`:
//
//   y = gamma * (w x + b - mean) / sqrt(var + epsilon) + beta
void fold(Weights& weights, const std::string& conv, const std::string& bn, float epsilon) {
  const auto take = [&](const std::string& name) {
    Array array = weights.at(name);
    weights.erase(name);
    return array;
  };
  const Array gamma = take(bn + ".weight");
  const Array beta = take(bn + ".bias");
  const Array mean = take(bn + ".running_mean");
  const Array variance = take(bn + ".running_var");
  const Array weight = weights.at(conv + ".weight");
  const auto old_bias = weights.find(conv + ".bias");

  auto [folded_weight, weight_out] = make_array(weight.shape);
  auto [folded_bias, bias_out] = make_array(gamma.shape);
  const size_t channels = gamma.size();
  const size_t per_channel = weight.size() / channels;
  for (size_t c = 0; c < channels; ++c) {
    const double scale = gamma.data.get()[c] / std::sqrt(double{variance.data.get()[c]} + epsilon);
    const double bias = old_bias == weights.end() ? 0.0 : double{old_bias->second.data.get()[c]};
    bias_out[c] = static_cast<float>(beta.data.get()[c] + scale * (bias - mean.data.get()[c]));
    for (size_t i = c * per_channel; i < (c + 1) * per_channel; ++i) {
      weight_out[i] = static_cast<float>(scale * weight.data.get()[i]);
    }
  }
  weights[conv + ".weight"] = folded_weight;
  weights[conv + ".bias"] = folded_bias;
}

}  // namespace

Network fold_batch_norm(const Network& network) {
  const std::vector<Layer>& layers = network.graph.layers();
  const auto readers = consumers(network.graph);
  Weights weights = network.weights;
  Rewrite rewrite(network.graph);

  // The folded convolution takes the place of the batch normalisation.
  const auto folds_into = [&](const Layer& layer, int before) {
    const auto index = static_cast<size_t>(before);
    const auto* conv = std::get_if<Conv2d>(&layers[index].definition);
    return std::holds_alternative<BatchNorm2d>(layer.definition) && conv != nullptr &&
           !conv->residual && !conv->relu && readers[index].size() == 1;
  };
  for (int i = 0; i < static_cast<int>(layers.size()); ++i) {
    const Layer& layer = layers[static_cast<size_t>(i)];
    const std::vector<int>& next = readers[static_cast<size_t>(i)];
    if (next.size() == 1 && next.front() != kCaller &&
        folds_into(layers[static_cast<size_t>(next.front())], i)) {
      continue;
    }

    if (!layer.inputs.empty() && folds_into(layer, layer.inputs.front().layer)) {
      const Layer& before = network.graph.layer(layer.inputs.front());
      fold(weights, before.name, layer.name, std::get<BatchNorm2d>(layer.definition).epsilon);
      Conv2d conv = std::get<Conv2d>(before.definition);
      conv.bias = true;
      rewrite.emit(i, before.name, conv, before.inputs);
    } else if (const auto* block = std::get_if<SplitAttention>(&layer.definition);
               block != nullptr && block->batch_norm) {
      fold(weights, layer.name + ".fc1", layer.name + ".bn1", block->epsilon);
      SplitAttention folded = *block;
      folded.fc1_bias = true;
      folded.batch_norm = false;
      rewrite.emit(i, layer.name, folded, layer.inputs);
    } else {
      rewrite.copy(i);
    }
  }
  return {std::move(rewrite).finish(), std::move(weights)};
}

}  // namespace resrt
