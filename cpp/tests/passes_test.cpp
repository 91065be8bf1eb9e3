#include "passes/passes.h"

#include <gtest/gtest.h>

#include "graph/trailing_padding.h"
#include "passes/split_attention.h"
#include "resrt/error.h"
#include "support.h"

namespace resrt::test {
namespace {

using Floats = std::vector<float>;

Floats values(const Array& array) {
  return {array.data.get(), array.data.get() + array.size()};
}

Array array(std::vector<int64_t> shape, const Floats& values) {
  auto [made, out] = make_array(std::move(shape));
  std::copy(values.begin(), values.end(), out);
  return made;
}

Graph one_attention(const SplitAttention& block) {
  Graph graph("one");
  Tensor x =
      graph.add("input", Input{.channels = block.radix * block.channels, .height = 3, .width = 3});
  x = graph.add("attention", block, {x});
  x = graph.add("pool", GlobalAvgPool2d{}, {x});
  graph.add("fc", Linear{.out_features = 2}, {x});
  return graph;
}

constexpr SplitAttention kUnfolded = {.channels = 4, .radix = 2, .cardinality = 1, .hidden = 8};

TEST(FoldBatchNorm, UsesTheEpsilonOfSplitAttention) {
  SplitAttention block = kUnfolded;
  const Graph graph = one_attention(block);
  const Weights weights = random_weights(graph, 1);
  block.epsilon = 0.25F;
  const Graph other_graph = one_attention(block);
  EXPECT_EQ(to_string(block), "SplitAttention(4, radix=2, hidden=8, epsilon=0.25)");

  // The same sum of variance and epsilon.
  Weights other_weights = weights;
  Floats variance = values(weights.at("attention.bn1.running_var"));
  for (float& value : variance) value += 1e-5F - 0.25F;
  other_weights["attention.bn1.running_var"] = array({8}, variance);
  const Network folded = fold_batch_norm({graph, weights});
  const Network other = fold_batch_norm({other_graph, other_weights});
  for (const char* name : {"attention.fc1.weight", "attention.fc1.bias"}) {
    const Floats expected = values(folded.weights.at(name));
    const Floats found = values(other.weights.at(name));
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-5) << name;
  }
  EXPECT_NE(values(fold_batch_norm({other_graph, weights}).weights.at("attention.fc1.weight")),
            values(folded.weights.at("attention.fc1.weight")));
}

TEST(SplitAttention, IsNotLoweredBeforeItsBatchNormIsFolded) {
  const Weights weights = random_weights(one_attention(kUnfolded));
  EXPECT_THROW(grouped_products(kUnfolded, "attention", weights), ModelError);
  EXPECT_THROW(dense_products(kUnfolded, "attention", weights), ModelError);
  try {
    require_folded(kUnfolded, "layer1.0.conv2");
    FAIL() << "a batch normalisation that nothing folded was ignored";
  } catch (const ModelError& error) {
    EXPECT_NE(std::string(error.what()).find("'layer1.0.conv2'"), std::string::npos);
  }
}

// fc2's rows are numbered 1, 2, 3, ... as the definition has them: by the cardinality first.
AttentionProducts numbered(int radix, bool is_dense) {
  const SplitAttention block = {.channels = 4,
                                .radix = radix,
                                .cardinality = 2,
                                .hidden = 2,
                                .fc1_bias = false,
                                .batch_norm = false};
  Floats rows;
  for (int row = 1; row <= radix * block.channels; ++row) rows.push_back(static_cast<float>(row));
  const auto count = static_cast<int64_t>(rows.size());
  const Weights weights = {{"x.fc1.weight", array({2, 2, 1, 1}, {1, 2, 3, 4})},
                           {"x.fc2.weight", array({count, 1, 1, 1}, rows)},
                           {"x.fc2.bias", array({count}, rows)}};
  return is_dense ? dense_products(block, "x", weights) : grouped_products(block, "x", weights);
}

TEST(SplitAttention, HasTheLogitsOfEachSplitTogether) {
  EXPECT_EQ(values(numbered(1, false).fc2), (Floats{1, 2, 3, 4}));
  EXPECT_EQ(values(numbered(2, false).fc2), (Floats{1 - 3, 2 - 4, 5 - 7, 6 - 8}));
  EXPECT_EQ(values(numbered(3, false).fc2), (Floats{1, 2, 7, 8, 3, 4, 9, 10, 5, 6, 11, 12}));
  for (const int radix : {1, 2, 3}) {
    const AttentionProducts products = numbered(radix, false);
    EXPECT_EQ(values(products.fc2_bias), values(products.fc2));
    EXPECT_EQ(values(products.fc1), (Floats{1, 2, 3, 4}));
    EXPECT_EQ(values(products.fc1_bias), (Floats{0, 0}));
    EXPECT_EQ(products.fc2.shape.front(), radix == 3 ? 12 : 4);
  }
}

TEST(SplitAttention, HasZerosBetweenTheGroupsOfDenseMatrices) {
  const AttentionProducts two = numbered(2, true);
  EXPECT_EQ(two.fc1.shape, (std::vector<int64_t>{2, 8, 1, 1}));
  EXPECT_EQ(values(two.fc1), (Floats{1, 2, 0, 0, 1, 2, 0, 0, 0, 0, 3, 4, 0, 0, 3, 4}));
  EXPECT_EQ(two.fc2.shape, (std::vector<int64_t>{4, 2, 1, 1}));
  EXPECT_EQ(values(two.fc2), (Floats{-2, 0, -2, 0, 0, -2, 0, -2}));
  const AttentionProducts three = numbered(3, true);
  EXPECT_EQ(three.fc1.shape, (std::vector<int64_t>{2, 12, 1, 1}));
  EXPECT_EQ(values(three.fc2),
            (Floats{1, 0, 2, 0, 0, 7, 0, 8, 3, 0, 4, 0, 0, 9, 0, 10, 5, 0, 6, 0, 0, 11, 0, 12}));
  EXPECT_EQ(values(three.fc2_bias), values(numbered(3, false).fc2_bias));
}

// As many values as the windows of a pooling reach.
TEST(TrailingPadding, EndsWhereTheLastWindowDoes) {
  for (const bool ceil_mode : {false, true}) {
    for (const int kernel : {1, 2, 3, 5}) {
      for (const int stride : {1, 2, 3}) {
        for (int padding = 0; padding < kernel; ++padding) {
          const AvgPool2d pool = {.kernel = kernel,
                                  .stride = stride,
                                  .padding = padding,
                                  .ceil_mode = ceil_mode,
                                  .count_include_pad = false};
          for (int size = kernel; size < 12; ++size) {
            Graph graph("pool");
            const Tensor x =
                graph.add("input", Input{.channels = 1, .height = size, .width = size});
            const int positions = graph.shape(graph.add("pool", pool, {x})).height;
            const int end = trailing_padding(pool, size, positions);
            EXPECT_GE(end, padding);
            // What floor, as every library rounds, makes of the padded axis.
            EXPECT_EQ((size + padding + end - kernel) / stride + 1, positions);
            EXPECT_TRUE(ceil_mode || end == padding);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace resrt::test
