#include "passes/quantise.h"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <optional>

#include "passes/value_counts.h"
#include "resrt/error.h"
#include "resrt/models.h"
#include "support.h"

namespace resrt::test {
namespace {

using Names = std::vector<std::string>;

// The graph as the pass gets it.
Graph folded(const std::string& network) {
  const Graph graph = build_graph(network, {.height = 64, .width = 64});
  return fold_batch_norm({graph, random_weights(graph)}).graph;
}

Names rounded(const Graph& graph, const std::set<std::string>& keep = {}, bool branches = true) {
  Names names;
  for (const int layer : quantised_tensors(graph, keep, branches)) {
    names.push_back(graph.layers()[static_cast<size_t>(layer)].name);
  }
  return names;
}

// The tensors of a block that are rounded, without its prefix.
Names rounded_in(const std::string& network, const std::string& block) {
  Names names;
  for (const std::string& name : rounded(folded(network))) {
    if (name.starts_with(block)) names.push_back(name.substr(block.size()));
  }
  return names;
}

Calibration calibration_of(const Graph& graph) {
  Calibration made;
  for (const std::string& name : rounded(graph)) made.ranges[name] = {-1.0F, 2.0F};
  return made;
}

const Layer& find(const Graph& graph, const std::string& name) {
  const auto& layers = graph.layers();
  const auto found = std::find_if(layers.begin(), layers.end(),
                                  [&](const Layer& layer) { return layer.name == name; });
  if (found == layers.end()) throw ModelError("no layer is named " + name);
  return *found;
}

std::string message_of(const Graph& graph, const Calibration& calibration) {
  try {
    quantise(graph, calibration, {});
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

TEST(Quantise, RoundsTheImagesAndTheStemBeforeItsMaximum) {
  const Names names = rounded(folded("resnet18"));
  EXPECT_EQ(Names(names.begin(), names.begin() + 2), (Names{"input", "bn1.relu"}));
}

TEST(Quantise, RoundsABasicBlock) {
  EXPECT_EQ(rounded_in("resnet18", "layer2.0."),
            (Names{"bn1.relu", "conv2", "downsample.0", "relu"}));
  EXPECT_EQ(rounded_in("resnet18", "layer2.1."), (Names{"bn1.relu", "conv2", "relu"}));
}

TEST(Quantise, RoundsABottleneck) {
  EXPECT_EQ(rounded_in("resnet50", "layer2.0."),
            (Names{"bn1.relu", "bn2.relu", "conv3", "downsample.0", "relu"}));
}

TEST(Quantise, RoundsThePooledShortcutOfVariantD) {
  EXPECT_EQ(rounded_in("ResNet50_vd", "layer2.0."),
            (Names{"bn1.relu", "bn2.relu", "conv3", "downsample.0", "downsample.1", "relu"}));
}

// The attention reads the convolution's output and computes in floating point. What is rounded is
// its own output, where the next convolution reads it.
TEST(Quantise, LeavesSplitAttentionWhole) {
  EXPECT_EQ(rounded_in("resnest50d", "layer1.0."),
            (Names{"bn1.relu", "conv2", "conv3", "downsample.1", "relu"}));
  const Graph graph = folded("resnest50d");
  const Graph quantised = quantise(graph, calibration_of(graph), {});
  const Layer& attention = find(quantised, "layer1.0.conv2");
  EXPECT_EQ(quantised.layer(attention.inputs.front()).name, "layer1.0.conv2.bn0.relu");
  const Layer& reader = find(quantised, "layer1.0.conv2.quantize");
  EXPECT_EQ(quantised.layer(reader.inputs.front()).name, "layer1.0.conv2");
}

TEST(Quantise, RoundsAfterThePoolingOfAnAttention) {
  EXPECT_EQ(rounded_in("resnest50d", "layer2.0."),
            (Names{"bn1.relu", "avd_last", "conv3", "downsample.0", "downsample.1", "relu"}));
}

TEST(Quantise, LeavesTheProductsOfChannelAttentionInFloatingPoint) {
  EXPECT_EQ(rounded_in("regnety_032", "s1.b1."),
            (Names{"conv1.bn.relu", "se", "conv3.conv", "downsample.conv", "relu"}));
  // The addition reads the output of the attention, not of a convolution.
  EXPECT_EQ(rounded_in("seresnet50", "layer1.1."), (Names{"bn1.relu", "bn2.relu", "relu"}));
  EXPECT_EQ(rounded_in("ecaresnet50d", "layer1.1."), (Names{"bn1.relu", "bn2.relu", "relu"}));
}

TEST(Quantise, RoundsAfterAntialiasing) {
  EXPECT_EQ(rounded_in("resnetblur50", "layer2.0."),
            (Names{"bn1.relu", "aa", "conv3", "downsample.0", "relu"}));
}

TEST(Quantise, RoundsATensorOnceForAllItsReaders) {
  const Graph graph = folded("resnet50");
  const Graph quantised = quantise(graph, calibration_of(graph), {});
  const Tensor shared = find(quantised, "layer1.1.conv1").inputs.front();
  EXPECT_EQ(quantised.layer(shared).name, "layer1.0.relu.quantize");
  EXPECT_EQ(find(quantised, "layer1.1.add").inputs.back(), shared);
  EXPECT_EQ(std::get<Conv2d>(find(quantised, "layer1.1.conv1").definition).weight_bits, 8);
  EXPECT_EQ(to_string(quantised.layer(shared).definition), "Quantize(scale=0.00784314)");
}

TEST(Quantise, IsSignedWhereValuesMayBeNegative) {
  const Graph graph = folded("resnet50");
  const Graph quantised = quantise(graph, calibration_of(graph), {});
  for (const Layer& layer : quantised.layers()) {
    const auto* const quantize = std::get_if<Quantize>(&layer.definition);
    if (quantize == nullptr) continue;
    EXPECT_EQ(quantize->is_signed, !layer.name.ends_with("relu.quantize")) << layer.name;
    EXPECT_FLOAT_EQ(quantize->scale, quantize->is_signed ? 2.0F / 127 : 2.0F / 255);
  }
}

TEST(Quantise, LeavesWhatIsKeptInFloatingPoint) {
  const Graph graph = folded("resnet18");
  Calibration calibration = calibration_of(graph);
  calibration.keep = {"layer1.0.conv2", "layer1.0.add"};
  const Graph quantised = quantise(graph, calibration, {.weight_bits = 7});
  const Layer& kept = find(quantised, "layer1.0.conv2");
  EXPECT_EQ(std::get<Conv2d>(kept.definition).weight_bits, 0);
  EXPECT_EQ(quantised.layer(kept.inputs.front()).name, "layer1.0.bn1.relu");
  const Layer& sum = find(quantised, "layer1.0.add");
  EXPECT_EQ(quantised.layer(sum.inputs.front()).name, "layer1.0.conv2");
  EXPECT_EQ(std::get<Conv2d>(find(quantised, "layer1.1.conv1").definition).weight_bits, 7);
  calibration.keep = {"layer1.0.relu"};
  EXPECT_NE(message_of(graph, calibration).find("'layer1.0.relu'"), std::string::npos);
}

TEST(Quantise, CanLeaveBranchesToAFusedAddition) {
  const Graph graph = folded("resnet18");
  const Names names = rounded(graph, {}, false);
  EXPECT_EQ(std::count(names.begin(), names.end(), "layer2.0.conv2"), 0);
  EXPECT_EQ(std::count(names.begin(), names.end(), "layer2.0.downsample.0"), 1);
}

TEST(Quantise, RefusesRangesThatAreMissingOrInvalid) {
  const Graph graph = folded("resnet18");
  Calibration calibration = calibration_of(graph);
  calibration.ranges.erase("layer1.0.relu");
  EXPECT_NE(message_of(graph, calibration).find("no range for 'layer1.0.relu'"), std::string::npos);
  for (const Range range : {Range{1, -1}, Range{0, std::numeric_limits<float>::quiet_NaN()},
                            Range{0, std::numeric_limits<float>::infinity()}}) {
    calibration.ranges["layer1.0.relu"] = range;
    EXPECT_NE(message_of(graph, calibration).find("invalid range for 'layer1.0.relu'"),
              std::string::npos);
  }
}

TEST(Quantise, RoundsWeightsWithAScaleForEachChannel) {
  auto [weight, out] = make_array({3, 2, 1, 1});
  const std::vector<float> given = {1.0F, -0.4F, 0.0F, 0.0F, 12.7F, 0.08F};
  std::copy(given.begin(), given.end(), out);
  const QuantisedWeight eight = quantise_weight(weight, 8);
  EXPECT_EQ(*eight.integers, (std::vector<int8_t>{127, -51, 0, 0, 127, 1}));
  EXPECT_FLOAT_EQ(eight.scales.data.get()[2], 0.1F);
  const QuantisedWeight seven = quantise_weight(weight, 7);
  EXPECT_EQ(*seven.integers, (std::vector<int8_t>{63, -25, 0, 0, 63, 0}));
}

TEST(CountValues, TellsSignsAndMagnitudesApart) {
  std::vector<uint64_t> counts(kValueIntervals);
  count_values(std::vector<float>{0.0F, 1.0F, 1.001F, -1.0F}, counts);
  count_values(std::vector<float>{1.0F}, counts);
  EXPECT_EQ(counts[0], 1U);
  EXPECT_EQ(counts[0x3F80], 3U);
  EXPECT_EQ(counts[0xBF80], 1U);
}

}  // namespace
}  // namespace resrt::test
