// Tests the lowering into a TensorRT network without a GPU: its results and its types.

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <set>

#include "backends/tensorrt/library.h"
#include "backends/tensorrt/lower.h"
#include "engine/library_folders.h"
#include "evaluate.h"
#include "passes/passes.h"
#include "resrt/engine.h"
#include "resrt/error.h"
#include "resrt/models.h"

namespace resrt::test {
namespace {

using nvinfer1::DataType;
using nvinfer1::LayerType;

tensorrt::Logger& logger() {
  static tensorrt::Logger only;
  return only;
}

// The TensorRT library, or the reason why it could not be opened.
struct Opened {
  std::optional<tensorrt::Library> library;
  std::string error;
};

const Opened& opened() {
  static const Opened result = [] {
    Opened made;
    add_library_folder(RESRT_TEST_PACKAGES);
    try {
      made.library.emplace();
    } catch (const BackendError& error) {
      made.error = error.what();
    }
    return made;
  }();
  return result;
}

// A lowered network and the objects that must outlive it.
class Lowered {
 public:
  Lowered(const Network& network, Precision precision,
          const std::vector<std::string>& lowering = {})
      : builder_(opened().library->create_builder(logger())),
        network_(builder_->createNetworkV2(0)) {
    tensorrt::lower(network, precision, *network_, constants_, logger(), nullptr,
                    tensorrt::parse_lowering(lowering));
  }
  const nvinfer1::INetworkDefinition& operator*() const { return *network_; }
  const nvinfer1::INetworkDefinition* operator->() const { return network_.get(); }

  std::multiset<LayerType> kinds() const {
    std::multiset<LayerType> found;
    for (int i = 0; i < network_->getNbLayers(); ++i)
      found.insert(network_->getLayer(i)->getType());
    return found;
  }

 private:
  std::unique_ptr<nvinfer1::IBuilder> builder_;
  std::unique_ptr<nvinfer1::INetworkDefinition> network_;
  tensorrt::Constants constants_;
};

ModelOptions options(const Shape& input, int classes) {
  return {.classes = classes,
          .in_channels = input.channels,
          .height = input.height,
          .width = input.width};
}

Value noise(const Graph& graph, int64_t batch) {
  const Shape in = graph.input_shape();
  Value images{{batch, in.channels, in.height, in.width}, {}};
  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  images.data.resize(static_cast<size_t>(batch * in.channels * in.height * in.width));
  for (double& value : images.data) value = normal(random);  // a float's value
  return images;
}

// The logits from OpenVINO, which tests/test_lowering.py compares with NumPy.
std::vector<float> reference(const Graph& graph, const Weights& weights, const Value& images) {
  const Engine engine =
      Engine::build(graph, weights, {.precision = Precision::fp32, .max_batch = 2});
  const std::vector<float> input(images.data.begin(), images.data.end());
  std::vector<float> logits(static_cast<size_t>(images.shape[0] * graph.classes()));
  engine.infer(input.data(), images.shape[0], logits.data());
  return logits;
}

double largest(const std::vector<float>& values) {
  double most = 0.0;
  for (const float value : values) most = std::max(most, std::abs(double{value}));
  return most;
}

void expect_close(const Value& found, const std::vector<float>& expected, double tolerance) {
  ASSERT_EQ(found.data.size(), expected.size());
  const double most = largest(expected);
  ASSERT_GT(most, 1e-3);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(found.data[i], expected[i], tolerance * most) << "logit " << i;
  }
}

void expect_computes(const Graph& graph) {
  const Weights weights = random_weights(graph, 1);
  const Value images = noise(graph, 2);
  const std::vector<float> expected = reference(graph, weights, images);
  const Network folded = fold_batch_norm({graph, weights});
  const Network fused = {fuse_add_relu(folded.graph), folded.weights};
  expect_close(evaluate(*Lowered(folded, Precision::fp32), images), expected, 2e-5);
  expect_close(evaluate(*Lowered(fused, Precision::fp32), images), expected, 2e-5);
  expect_close(evaluate(*Lowered(folded, Precision::fp16), images), expected, 5e-3);
  expect_close(evaluate(*Lowered(folded, Precision::bf16), images), expected, 4e-2);
}

class Lowering : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!opened().library) GTEST_SKIP() << opened().error;
  }
};

TEST_F(Lowering, ComputesResNets) {
  for (const ResNetConfig& config : {
           ResNetConfig{.depths = {1, 1}, .block = Block::basic, .width = 8},
           ResNetConfig{.depths = {1, 1, 1},
                        .width = 8,
                        .stem = Stem::deep,
                        .downsample = Downsample::average_pool},
           ResNetConfig{.depths = {1, 2}, .width = 16, .cardinality = 4, .base_width = 16},
           ResNetConfig{.depths = {1, 2},
                        .block = Block::basic,
                        .width = 8,
                        .stem = Stem::small,
                        .stem_channels = 6,
                        .downsample = Downsample::pad},
           ResNetConfig{.depths = {1, 1},
                        .width = 8,
                        .stem = Stem::tiered,
                        .stem_channels = 16,
                        .stem_pool = StemPool::convolution},
           ResNetConfig{
               .depths = {1, 1}, .width = 8, .stride_first = true, .activation = Activation::silu},
           ResNetConfig{.depths = {1, 1},
                        .width = 8,
                        .antialias = Antialias::blur,
                        .attention = Attention::squeeze_excite,
                        .attention_reduction = 3,
                        .attention_divisor = 1},
       }) {
    for (const auto& [height, width] : {std::pair{32, 32}, std::pair{37, 50}, std::pair{9, 7}}) {
      expect_computes(build_graph("resnet", config, options({2, height, width}, 5)));
    }
  }
}

// Its shortcuts and its average pooling agree only on even sizes.
TEST_F(Lowering, ComputesResNetsWithAveragePoolingAgainstAliasing) {
  const ResNetConfig config = {.depths = {1, 1},
                               .block = Block::basic,
                               .width = 8,
                               .antialias = Antialias::average_pool,
                               .attention = Attention::efficient};
  for (const auto& [height, width] : {std::pair{32, 32}, std::pair{16, 48}}) {
    expect_computes(build_graph("resnet", config, options({2, height, width}, 5)));
  }
}

TEST_F(Lowering, ComputesResNeSts) {
  for (const int radix : {1, 2, 3, 4}) {
    for (const int cardinality : {1, 2, 4}) {
      SCOPED_TRACE(::testing::Message() << "radix " << radix << ", cardinality " << cardinality);
      const ResNeStConfig config = {.depths = {1, 1},
                                    .width = 12 * radix,
                                    .stem_channels = 8,
                                    .radix = radix,
                                    .cardinality = cardinality};
      expect_computes(build_graph("resnest", config, options({3, 19, 26}, 5)));
    }
  }
}

// Every other way to lower a network computes the same.
TEST_F(Lowering, ComputesTheSameInEveryWay) {
  const std::vector<std::vector<std::string>> ways = {
      {"split"},
      {"dense"},
      {"merged"},
      {"pooled"},
      {"windows"},
      {"matrix"},
      {"split", "merged", "pooled", "windows", "matrix"}};
  std::vector<Graph> graphs;
  for (const int radix : {1, 2, 3}) {
    for (const int cardinality : {1, 2}) {
      graphs.push_back(build_graph("resnest",
                                   ResNeStConfig{.depths = {1, 1},
                                                 .width = 12 * radix,
                                                 .stem_channels = 8,
                                                 .radix = radix,
                                                 .cardinality = cardinality},
                                   options({3, 112, 56}, 5)));
    }
  }
  graphs.push_back(build_graph("resnest", ResNeStConfig{.depths = {1, 1}, .width = 16},
                               options({3, 19, 26}, 5)));
  graphs.push_back(build_graph(
      "regnet", RegNetConfig{.depth = 5, .width_initial = 16, .width_slope = 12, .group_width = 8},
      options({3, 33, 18}, 5)));
  for (const Graph& graph : graphs) {
    const Weights weights = random_weights(graph, 1);
    const Value images = noise(graph, 2);
    const std::vector<float> expected = reference(graph, weights, images);
    const Network folded = fold_batch_norm({graph, weights});
    const Network fused = {fuse_add_relu(folded.graph), folded.weights};
    for (const auto& way : ways) {
      SCOPED_TRACE(::testing::Message() << graph.name() << ", " << way.front());
      expect_close(evaluate(*Lowered(fused, Precision::fp32, way), images), expected, 2e-5);
      expect_close(evaluate(*Lowered(fused, Precision::fp16, way), images), expected, 5e-3);
    }
  }
}

// The network as it is built.
Network network_of(const std::string& model) {
  const Graph graph = build_graph(model);
  const Network folded = fold_batch_norm({graph, random_weights(graph, 0)});
  return {fuse_add_relu(folded.graph), folded.weights};
}

std::multiset<LayerType> kinds_of(const std::string& model, const std::vector<std::string>& way) {
  return Lowered(network_of(model), Precision::fp16, way).kinds();
}

TEST_F(Lowering, AvoidsWhatItsChoicesAreFor) {
  const auto plain = kinds_of("ResNeSt50", {});
  EXPECT_EQ(plain.count(LayerType::kSLICE), 32U);  // two splits of 16 blocks
  EXPECT_EQ(kinds_of("ResNeSt50", {"split"}).count(LayerType::kSLICE), 0U);
  EXPECT_EQ(plain.count(LayerType::kPOOLING) -
                kinds_of("ResNeSt50", {"pooled"}).count(LayerType::kPOOLING),
            3U);  // the shortcuts
  EXPECT_EQ(kinds_of("ResNeSt50", {"matrix"}).count(LayerType::kMATRIX_MULTIPLY), 33U);
  EXPECT_GT(kinds_of("ResNeSt50", {"windows"}).count(LayerType::kPOOLING),
            plain.count(LayerType::kPOOLING));
}

TEST_F(Lowering, HasNoGroupsOrWideOnesIfAsked) {
  const auto narrowest = [](const std::string& model, const std::vector<std::string>& way) {
    const Lowered lowered(network_of(model), Precision::fp16, way);
    int64_t least = std::numeric_limits<int64_t>::max();
    for (int i = 0; i < lowered->getNbLayers(); ++i) {
      const nvinfer1::ILayer* layer = lowered->getLayer(i);
      if (layer->getType() != LayerType::kCONVOLUTION) continue;
      const int64_t groups = static_cast<const nvinfer1::IConvolutionLayer*>(layer)->getNbGroups();
      if (groups > 1) least = std::min(least, layer->getInput(0)->getDimensions().d[1] / groups);
    }
    return least;
  };
  EXPECT_EQ(narrowest("ResNeSt50", {}), 32);
  EXPECT_EQ(narrowest("ResNeSt50", {"dense"}), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(narrowest("RegNetX_4GF", {}), 40);
  EXPECT_GE(narrowest("RegNetX_4GF", {"merged"}), 64);
}

TEST(LoweringChoices, RejectUnknownNamesAndContradictions) {
  EXPECT_THROW(tensorrt::parse_lowering({"fast"}), InputError);
  EXPECT_THROW(tensorrt::parse_lowering({"split", "dense"}), InputError);
}

TEST_F(Lowering, ComputesPoolFirstResNeSts) {
  expect_computes(build_graph("resnest",
                              ResNeStConfig{.depths = {1, 1},
                                            .width = 16,
                                            .stem_channels = 8,
                                            .pool_first = true,
                                            .attention_bias = false,
                                            .count_include_pad = false},
                              options({3, 19, 26}, 5)));
}

TEST_F(Lowering, ComputesResNeStsForSmallImages) {
  expect_computes(build_graph(
      "resnest",
      ResNeStConfig{.depths = {1, 1}, .width = 16, .stem = Stem::small, .stem_channels = 8},
      options({3, 19, 26}, 5)));
}

TEST_F(Lowering, ComputesRegNets) {
  const RegNetConfig plain = {.depth = 5, .width_initial = 16, .width_slope = 12, .group_width = 8};
  RegNetConfig squeeze_excite = plain;
  squeeze_excite.squeeze_excite = true;
  RegNetConfig pre_activation = squeeze_excite;
  pre_activation.activation = Activation::silu;
  pre_activation.pre_activation = true;
  RegNetConfig pooled_shortcut = pre_activation;
  pooled_shortcut.shortcut = Shortcut::average_pool;
  const RegNetConfig regnet_z = {.depth = 5,
                                 .width_initial = 8,
                                 .width_slope = 8,
                                 .group_width = 4,
                                 .squeeze_excite = true,
                                 .stem_stride = 1,
                                 .bottleneck_ratio = 2.0,
                                 .shortcut = Shortcut::none,
                                 .activation = Activation::silu,
                                 .linear_blocks = true,
                                 .final_channels = 24};
  for (const RegNetConfig& config :
       {plain, squeeze_excite, pre_activation, pooled_shortcut, regnet_z}) {
    expect_computes(build_graph("regnet", config, options({3, 33, 18}, 5)));
  }
}

TEST_F(Lowering, ComputesUnfoldedBatchNorms) {
  Graph graph("norms");
  Tensor x = graph.add("input", Input{.channels = 3, .height = 5, .width = 6});
  x = graph.add("bn", BatchNorm2d{.epsilon = 0.1F}, {x});
  x = graph.add("pool", GlobalAvgPool2d{}, {x});
  graph.add("fc", Linear{.out_features = 4}, {x});
  expect_computes(graph);
}

// A blur, added channels, SiLU and attention across channels.
Graph blurred_graph(int height, int width, int stride) {
  Graph graph("blurred");
  Tensor x = graph.add("input", Input{.channels = 3, .height = height, .width = width});
  x = graph.add("blur", BlurPool2d{.stride = stride}, {x});
  x = graph.add("pad", PadChannels{.before = 2, .after = 1}, {x});
  x = graph.add("silu", Silu{}, {x});
  x = graph.add("attention", EfficientChannelAttention{.kernel = 5}, {x});
  x = graph.add("pool", GlobalAvgPool2d{}, {x});
  graph.add("fc", Linear{.out_features = 7}, {x});
  return graph;
}

TEST_F(Lowering, ComputesBlursOfTheSmallestImages) {
  for (const auto& [height, width] : {std::pair{2, 2}, std::pair{2, 9}, std::pair{5, 3}}) {
    for (const int stride : {1, 2}) expect_computes(blurred_graph(height, width, stride));
  }
}

// Whether a layer tests the images for values that are NaN or infinite.
bool tests_images(const nvinfer1::ILayer& layer) {
  const std::string name = layer.getName();
  return name.starts_with("images.") || name == "logits.nan" || name == "logits.or_nan";
}

Network small_resnest(int radix) {
  const Graph graph = build_graph(
      "small", ResNeStConfig{.depths = {1}, .width = 24, .stem_channels = 8, .radix = radix},
      options({3, 32, 32}, 7));
  return fold_batch_norm({graph, random_weights(graph)});
}

TEST_F(Lowering, GivesNanForImagesThatAreNotFinite) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const Network network = small_resnest(2);
  const Value images = noise(network.graph, 4);
  const size_t size = images.data.size() / 4;
  Value changed = images;
  changed.data[0] = std::nan("");
  changed.data[size + size / 3] = infinity;
  changed.data[3 * size + size / 2] = infinity;
  changed.data[4 * size - 1] = -infinity;
  for (const Precision precision : {Precision::fp32, Precision::fp16}) {
    const Lowered lowered(network, precision);
    const Value expected = evaluate(*lowered, images);
    const Value found = evaluate(*lowered, changed);
    for (size_t i = 0; i < expected.data.size(); ++i) {
      if (i / 7 == 2) {
        EXPECT_EQ(found.data[i], expected.data[i]) << "logit " << i;
      } else {
        EXPECT_FALSE(std::isnan(expected.data[i])) << "logit " << i;
        EXPECT_TRUE(std::isnan(found.data[i])) << "logit " << i;
      }
    }
  }
}

TEST_F(Lowering, HasFloatInputsAndOutputsOfAnyBatch) {
  for (const Precision precision :
       {Precision::fp32, Precision::tf32, Precision::fp16, Precision::bf16}) {
    const Lowered network(small_resnest(2), precision);
    ASSERT_EQ(network->getNbInputs(), 1);
    ASSERT_EQ(network->getNbOutputs(), 1);
    const nvinfer1::ITensor& images = *network->getInput(0);
    const nvinfer1::ITensor& logits = *network->getOutput(0);
    EXPECT_STREQ(images.getName(), "images");
    EXPECT_STREQ(logits.getName(), "logits");
    EXPECT_EQ(images.getType(), DataType::kFLOAT);
    EXPECT_EQ(logits.getType(), DataType::kFLOAT);
    EXPECT_EQ(images.getDimensions().d[0], -1);
    EXPECT_EQ(logits.getDimensions().nbDims, 2);
    EXPECT_EQ(logits.getDimensions().d[0], -1);
    EXPECT_EQ(logits.getDimensions().d[1], 7);
  }
}

// Networks that have every kind of layer whose lowering has a constant or a mean.
std::vector<Network> small_networks() {
  const Graph blurred = blurred_graph(9, 7, 2);
  return {small_resnest(2), {blurred, random_weights(blurred)}};
}

TEST_F(Lowering, ComputesInThePrecisionExceptForMeans) {
  for (const auto& [precision, type] :
       {std::pair{Precision::fp32, DataType::kFLOAT}, std::pair{Precision::tf32, DataType::kFLOAT},
        std::pair{Precision::fp16, DataType::kHALF}, std::pair{Precision::bf16, DataType::kBF16}}) {
    for (const Network& small : small_networks()) {
      const Lowered network(small, precision);
      for (int i = 0; i < network->getNbLayers(); ++i) {
        const nvinfer1::ILayer& layer = *network->getLayer(i);
        if (layer.getType() == LayerType::kCAST || tests_images(layer)) continue;
        const DataType expected = layer.getType() == LayerType::kREDUCE ? DataType::kFLOAT : type;
        for (int k = 0; k < layer.getNbInputs(); ++k) {
          if (layer.getInput(k) == nullptr) continue;
          EXPECT_EQ(layer.getInput(k)->getType(), expected) << layer.getName();
        }
        EXPECT_EQ(layer.getOutput(0)->getType(), expected) << layer.getName();
      }
      // One to the precision and one back, and the same for each of the two means.
      EXPECT_EQ(network.kinds().count(LayerType::kCAST), type == DataType::kFLOAT ? 0U : 6U);
    }
  }
}

TEST_F(Lowering, UsesFewLayersForSplitAttention) {
  // Radix 2: mean, two products, ReLU, sigmoid, two slices, difference, product, sum.
  const auto two = Lowered(small_resnest(2), Precision::fp32).kinds();
  EXPECT_EQ(two.count(LayerType::kSLICE), 2U);
  EXPECT_EQ(two.count(LayerType::kSOFTMAX), 0U);
  EXPECT_EQ(two.count(LayerType::kREDUCE), 4U);  // the others: the classifier's, the images' test
  const auto one = Lowered(small_resnest(1), Precision::fp32).kinds();
  EXPECT_EQ(one.count(LayerType::kSLICE), 0U);
  EXPECT_EQ(one.count(LayerType::kSOFTMAX), 0U);
  const auto three = Lowered(small_resnest(3), Precision::fp32).kinds();
  EXPECT_EQ(three.count(LayerType::kSOFTMAX), 1U);
}

TEST_F(Lowering, GivesLayersUniqueNames) {
  std::vector<std::set<std::string>> found;
  for (const Network& small : small_networks()) {
    const Lowered network(small, Precision::fp16);
    std::set<std::string>& names = found.emplace_back();
    for (int i = 0; i < network->getNbLayers(); ++i) {
      EXPECT_TRUE(names.insert(network->getLayer(i)->getName()).second);
    }
  }
  EXPECT_TRUE(found[0].contains("layer1.0.conv2.fc1"));
  EXPECT_TRUE(found[0].contains("layer1.0.conv1"));
  EXPECT_TRUE(found[1].contains("blur"));
  EXPECT_TRUE(found[1].contains("attention.conv"));
}

TEST_F(Lowering, ReportsTheParameterThatExceedsFp16) {
  Network network = small_resnest(2);
  auto [bias, out] = make_array({7});
  std::fill_n(out, 7, 65504.0F);
  network.weights["fc.bias"] = bias;
  EXPECT_NO_THROW(Lowered(network, Precision::fp16));
  out[3] = -65505.0F;
  EXPECT_NO_THROW(Lowered(network, Precision::bf16));
  try {
    Lowered(network, Precision::fp16);
    FAIL() << "a value outside fp16's range was accepted";
  } catch (const PrecisionError& error) {
    EXPECT_NE(std::string(error.what()).find("fc.bias"), std::string::npos) << error.what();
  }
}

TEST_F(Lowering, RejectsSplitAttentionWithItsBatchNorm) {
  const Graph graph =
      build_graph("small", ResNeStConfig{.depths = {1}, .width = 8}, options({3, 32, 32}, 7));
  EXPECT_THROW(Lowered({graph, random_weights(graph)}, Precision::fp32), ModelError);
}

TEST_F(Lowering, ReportsTheLayerThatTensorRTRejects) {
  Graph graph("wide");
  Tensor x = graph.add("input", Input{.channels = 4, .height = 8, .width = 8});
  x = graph.add("stem", Conv2d{.out_channels = 4, .kernel = 1}, {x});
  x = graph.add("pool", GlobalAvgPool2d{}, {x});
  graph.add("fc", Linear{.out_features = 2}, {x});
  Weights weights = random_weights(graph);
  weights["stem.weight"].shape = {4, 3, 1, 1};  // fewer values than the layer needs
  try {
    Lowered({graph, weights}, Precision::fp32);
    FAIL() << "a convolution with too few weights was accepted";
  } catch (const BackendError& error) {
    EXPECT_NE(std::string(error.what()).find("'stem' of wide"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace resrt::test
