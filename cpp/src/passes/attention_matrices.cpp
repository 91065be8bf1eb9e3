#include "passes/attention_matrices.h"

#include <algorithm>

namespace resrt {
namespace {

// A new array of zeros.
std::pair<Array, float*> zeros(std::vector<int64_t> shape) {
  auto made = make_array(std::move(shape));
  std::fill_n(made.second, made.first.size(), 0.0F);
  return made;
}

}  // namespace

AttentionMatrices attention_matrices(const SplitAttention& block, const std::string& name,
                                     const Weights& weights) {
  const auto radix = static_cast<size_t>(block.radix);
  const auto channels = static_cast<size_t>(block.channels);
  const auto hidden = static_cast<size_t>(block.hidden);
  const auto groups = static_cast<size_t>(block.cardinality);
  const size_t group_channels = channels / groups;
  const size_t group_hidden = hidden / groups;
  const auto values = [&](const char* parameter) {
    return weights.at(name + parameter).data.get();
  };

  AttentionMatrices result;
  auto [fc1, fc1_out] = zeros({block.hidden, int64_t{block.radix} * block.channels, 1, 1});
  const float* fc1_in = values(".fc1.weight");
  for (size_t row = 0; row < hidden; ++row) {
    const size_t first = row / group_hidden * group_channels;  // channel that its group reads
    for (size_t r = 0; r < radix; ++r) {
      std::copy_n(fc1_in + row * group_channels, group_channels,
                  fc1_out + (row * radix + r) * channels + first);
    }
  }
  result.fc1 = fc1;
  result.fc1_bias = block.fc1_bias ? weights.at(name + ".fc1.bias") : zeros({block.hidden}).first;

  // With radix 2, the second split's logits are subtracted from the first's.
  const bool difference = block.radix == 2;
  const int64_t rows = difference ? block.channels : int64_t{block.radix} * block.channels;
  auto [fc2, fc2_out] = zeros({rows, block.hidden, 1, 1});
  auto [fc2_bias, fc2_bias_out] = zeros({rows});
  const float* fc2_in = values(".fc2.weight");
  const float* fc2_bias_in = values(".fc2.bias");
  for (size_t g = 0; g < groups; ++g) {
    for (size_t r = 0; r < radix; ++r) {
      const float sign = difference && r == 1 ? -1.0F : 1.0F;
      for (size_t i = 0; i < group_channels; ++i) {
        const size_t from = (g * radix + r) * group_channels + i;
        const size_t to = (difference ? 0 : r * channels) + g * group_channels + i;
        fc2_bias_out[to] += sign * fc2_bias_in[from];
        for (size_t h = 0; h < group_hidden; ++h) {
          fc2_out[to * hidden + g * group_hidden + h] += sign * fc2_in[from * group_hidden + h];
        }
      }
    }
  }
  result.fc2 = fc2;
  result.fc2_bias = fc2_bias;
  return result;
}

}  // namespace resrt
