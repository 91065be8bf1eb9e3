#include "resrt/graph.h"

#include <gtest/gtest.h>

#include "resrt/error.h"
#include "resrt/models.h"
#include "support.h"

namespace resrt::test {
namespace {

TEST(Graph, InfersShapesAndCountsCosts) {
  const Graph graph = tiny_graph();
  EXPECT_EQ(graph.input_shape(), (Shape{3, 12, 12}));
  EXPECT_EQ(graph.input_shape().size(), 3 * 12 * 12);
  EXPECT_EQ(graph.classes(), 5);
  EXPECT_EQ(graph.cost().parameters,
            16 * 3 * 9 + 2 * 16 + (8 * 8 + 8 + 2 * 8 + 16 * 8 + 16) + (5 * 8 + 5));
}

TEST(Graph, RejectsLayersThatDoNotFitTheirInputs) {
  Graph graph("wrong");
  const Tensor x = graph.add("input", Input{.channels = 3, .height = 8, .width = 8});
  EXPECT_THROW(graph.add("conv", Conv2d{.out_channels = 4, .kernel = 9}, {x}), ModelError);
  EXPECT_THROW(graph.add("conv", Conv2d{.out_channels = 4, .kernel = 1, .groups = 2}, {x}),
               ModelError);
  EXPECT_THROW(graph.add("input", Relu{}, {x}), ModelError);
  EXPECT_THROW(graph.add("relu", Relu{}, {Tensor{7}}), ModelError);
  EXPECT_THROW(graph.add("relu", Relu{}, {}), ModelError);
  EXPECT_THROW(graph.add("add", Add{}, {x}), ModelError);
  EXPECT_EQ(graph.layers().size(), 1U);
  EXPECT_THROW(Graph("empty").output(), ModelError);
}

TEST(Graph, SelectsItsOutputs) {
  const Graph graph = build_graph("RegNetX_4GF", {.height = 64, .width = 64});
  EXPECT_EQ(graph.outputs().size(), 1U);
  EXPECT_EQ(graph.outputs().front().name, kLogits);
  EXPECT_EQ(graph.outputs().front().tensor, graph.output());
  const Graph selected = select_outputs(graph, {"layer3", "features", "stem.conv"});
  ASSERT_EQ(selected.outputs().size(), 3U);
  const auto tensor = [&](size_t i) { return selected.outputs()[i].tensor; };
  EXPECT_EQ(selected.shape(tensor(0)), (Shape{560, 4, 4}));
  EXPECT_FALSE(selected.is_vector(tensor(0)));
  EXPECT_EQ(selected.shape(tensor(1)), (Shape{1360, 1, 1}));
  EXPECT_TRUE(selected.is_vector(tensor(1)));
  EXPECT_EQ(selected.layer(tensor(2)).name, "stem.conv");
  EXPECT_THROW(select_outputs(graph, {"layer5"}), ModelError);
  EXPECT_THROW(select_outputs(graph, {"layer1", "layer1"}), ModelError);
  EXPECT_THROW(select_outputs(graph, {}), ModelError);
  EXPECT_THROW(select_outputs(graph, {"input"}), ModelError);
  Graph other = graph;
  EXPECT_THROW(other.set_outputs({{"far", Tensor{10000}}}), ModelError);
}

TEST(Models, AreFoundByNameOrDescribedByParameters) {
  EXPECT_EQ(build_graph("ResNeSt50").classes(), 1000);
  EXPECT_THROW(build_graph("ResNeSt5"), ModelError);
  EXPECT_THROW(build_graph("odd", ResNetConfig{.depths = {0}}), ModelError);
  const Graph graph = build_graph("own", RegNetConfig{}, {.classes = 7, .height = 64, .width = 96});
  EXPECT_EQ(graph.input_shape(), (Shape{3, 64, 96}));
  EXPECT_EQ(graph.classes(), 7);
}

TEST(Weights, AreCheckedWithAllErrorsInOneMessage) {
  const Graph graph = tiny_graph();
  Weights weights = random_weights(graph);
  weights.erase("conv.weight");
  weights["fc.bias"] = make_array({6}).first;
  weights["nothing"] = make_array({1}).first;
  try {
    check_weights(graph, weights);
    FAIL() << "these weights were accepted";
  } catch (const WeightsError& error) {
    const std::string text = error.what();
    for (const char* part : {"conv.weight (16, 3, 3, 3)", "fc.bias: expected (5,), found (6,)",
                             "1 unexpected", "nothing (1,)"}) {
      EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
    }
  }
}

}  // namespace
}  // namespace resrt::test
