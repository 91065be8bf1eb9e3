#include "passes/split_attention.h"

#include <algorithm>
#include <utility>

#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

// A new array of zeros.
std::pair<Array, float*> zeros(std::vector<int64_t> shape) {
  auto made = make_array(std::move(shape));
  std::fill_n(made.second, made.first.size(), 0.0F);
  return made;
}

// The rows of fc2's weight or bias by the radix first, or, with radix 2, the difference of the two
// splits' rows.
Array logits_by_radix(const Array& array, const SplitAttention& block) {
  const auto radix = static_cast<size_t>(block.radix);
  const auto groups = static_cast<size_t>(block.cardinality);
  const bool is_difference = radix == 2;
  std::vector<int64_t> shape = array.shape;
  if (is_difference) shape.front() = block.channels;
  auto [sorted, out] = zeros(std::move(shape));
  const size_t run = array.size() / (groups * radix);
  for (size_t g = 0; g < groups; ++g) {
    for (size_t r = 0; r < radix; ++r) {
      const float* from = array.data.get() + (g * radix + r) * run;
      float* to = out + (is_difference ? g : r * groups + g) * run;
      const float sign = is_difference && r == 1 ? -1.0F : 1.0F;
      for (size_t i = 0; i < run; ++i) to[i] += sign * from[i];
    }
  }
  return sorted;
}

// A grouped weight (rows, columns of one group) with all columns, zeros between the groups. Each
// `rows_per_turn` rows go once through the groups.
Array without_groups(const Array& grouped, size_t groups, size_t rows_per_turn, size_t copies) {
  const auto rows = static_cast<size_t>(grouped.shape.front());
  const size_t group_columns = grouped.size() / rows;
  const size_t columns = group_columns * groups;
  auto [dense, out] = zeros({grouped.shape.front(), static_cast<int64_t>(copies * columns), 1, 1});
  for (size_t row = 0; row < rows; ++row) {
    const size_t group = row % rows_per_turn / (rows_per_turn / groups);
    for (size_t copy = 0; copy < copies; ++copy) {
      std::copy_n(grouped.data.get() + row * group_columns, group_columns,
                  out + (row * copies + copy) * columns + group * group_columns);
    }
  }
  return dense;
}

}  // namespace

void require_folded(const SplitAttention& block, const std::string& name) {
  if (block.batch_norm) {
    throw ModelError(concat("the batch normalisation inside the split attention '", name,
                            "' is not folded; run fold_batch_norm before lowering the network"));
  }
}

AttentionProducts grouped_products(const SplitAttention& block, const std::string& name,
                                   const Weights& weights) {
  require_folded(block, name);
  return {.fc1 = weights.at(name + ".fc1.weight"),
          .fc1_bias = block.fc1_bias ? weights.at(name + ".fc1.bias") : zeros({block.hidden}).first,
          .fc2 = logits_by_radix(weights.at(name + ".fc2.weight"), block),
          .fc2_bias = logits_by_radix(weights.at(name + ".fc2.bias"), block)};
}

AttentionProducts dense_products(const SplitAttention& block, const std::string& name,
                                 const Weights& weights) {
  AttentionProducts products = grouped_products(block, name, weights);
  const auto groups = static_cast<size_t>(block.cardinality);
  products.fc1 = without_groups(products.fc1, groups, static_cast<size_t>(block.hidden),
                                static_cast<size_t>(block.radix));
  products.fc2 =
      without_groups(products.fc2, groups, static_cast<size_t>(block.channels), size_t{1});
  return products;
}

}  // namespace resrt
