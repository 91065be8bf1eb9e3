#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "resrt/export.h"
#include "resrt/graph.h"

namespace resrt {

// Networks, built from a catalog name or from custom parameters. The sources (the papers' authors,
// timm, torchvision, PaddleClas) differ only in the values of these parameters.

// basic: two 3x3 convolutions; bottleneck: 1x1, 3x3 and 1x1 with four times the channels.
enum class Block { basic, bottleneck };

// plain: one 7x7 convolution; deep: three 3x3 convolutions (the variants c, d, s and ResNeSt);
// tiered: a deep one whose first convolution is narrower (the variant t); small: for small images,
// one 3x3 convolution that keeps the resolution, without pooling.
enum class Stem { plain, deep, tiered, small };

// How a stem halves the resolution after its convolutions: by a 3x3 maximum, or by another 3x3
// convolution (ResNet-RS).
enum class StemPool { max, convolution };

// How a shortcut changes the resolution and the channels: by its 1x1 convolution with a stride, by
// a 2x2 average pooling before that convolution (the variants d, vd and ResNeSt), or without
// parameters, by leaving out pixels and adding channels of zeros (option A of the paper).
enum class Downsample { convolution, average_pool, pad };

// How a block and the stem halve the resolution: by a stride, or without one and then by a 2x2
// average pooling or a blur (https://arxiv.org/abs/1904.11486).
enum class Antialias { none, average_pool, blur };

// The channel attention at the end of a block's residual branch: none, squeeze-and-excitation
// (https://arxiv.org/abs/1709.01507), or efficient channel attention
// (https://arxiv.org/abs/1910.03151), whose kernel size follows from the channels as in the paper.
enum class Attention { none, squeeze_excite, efficient };

// ReLU, or SiLU: x * sigmoid(x).
enum class Activation { relu, silu };

// Deep Residual Learning (https://arxiv.org/abs/1512.03385), with the tweaks of Bag of Tricks
// (https://arxiv.org/abs/1812.01187). With cardinality and base_width also ResNeXt and Wide ResNet.
struct ResNetConfig {
  std::vector<int> depths = {3, 4, 6, 3};  // blocks per stage
  Block block = Block::bottleneck;
  int width = 64;  // channels of the first stage before expansion; each stage doubles them
  Stem stem = Stem::plain;
  int stem_channels = 64;  // the stem's output channels; a deep stem starts with half as many
  StemPool stem_pool = StemPool::max;
  Downsample downsample = Downsample::convolution;
  // Whether the first shortcut of the first stage has a convolution even if the shapes already
  // match, as in PaddleClas's basic blocks.
  bool project_first = false;
  int cardinality = 1;  // groups of the bottleneck's 3x3 convolution
  int base_width = 64;  // the bottleneck's channels per group, for `width` 64
  // Whether a bottleneck's first 1x1 convolution has the stride, as in the paper, instead of its
  // 3x3 convolution, as in most implementations.
  bool stride_first = false;
  Antialias antialias = Antialias::none;
  Attention attention = Attention::none;
  // The ratio of a block's channels to the hidden channels of its squeeze-and-excitation, which are
  // rounded to a multiple of the divisor.
  int attention_reduction = 16;
  int attention_divisor = 8;
  Activation activation = Activation::relu;

  bool operator==(const ResNetConfig&) const = default;
};

// Split-Attention Networks (https://arxiv.org/abs/2004.08955): bottlenecks with split attention, a
// deep stem, average pooling in the shortcuts and before or after the split attention.
struct ResNeStConfig {
  std::vector<int> depths = {3, 4, 6, 3};
  int width = 64;
  Stem stem = Stem::deep;
  int stem_channels = 64;
  int radix = 2;
  int cardinality = 1;
  int base_width = 64;
  bool pool_first = false;  // average pooling before, not after, the split attention
  // The sources differ here: in timm, the attention's first convolution has a bias, the average
  // pooling counts padding, and the hidden channels are rounded to a multiple of 8.
  bool attention_bias = true;
  bool count_include_pad = true;
  int hidden_divisor = 8;

  bool operator==(const ResNeStConfig&) const = default;
};

// The shortcut of a RegNet's block that changes the shape: a 1x1 convolution with the stride, one
// after a 2x2 average pooling, or no shortcut at all (RegNetZ).
enum class Shortcut { convolution, average_pool, none };

// Designing Network Design Spaces (https://arxiv.org/abs/2003.13678): RegNetX, and with
// squeeze_excite RegNetY. The block widths follow the paper's quantised linear rule. With other
// values of the last parameters also RegNetZ (https://arxiv.org/abs/2103.06877) and timm's RegNetV.
struct RegNetConfig {
  int depth = 23;  // total number of blocks
  int width_initial = 96;
  double width_slope = 38.65;
  double width_multiplier = 2.43;
  int group_width = 40;
  bool squeeze_excite = false;
  int stem_channels = 32;
  // torchvision rounds a stage's width to the nearest multiple of the group width that is at least
  // this fraction of the width. 0 rounds to the nearest multiple, as pycls and timm do.
  double min_width_ratio = 0.0;
  int stem_stride = 2;            // 1 for small images
  double bottleneck_ratio = 1.0;  // a block's inner channels over its output's
  Shortcut shortcut = Shortcut::convolution;
  Activation activation = Activation::relu;
  // Whether normalisation and activation come before each convolution, not after it.
  bool pre_activation = false;
  bool linear_blocks = false;  // whether no activation follows the addition at a block's end
  int final_channels = 0;      // channels of a 1x1 convolution before the head; 0: there is none

  bool operator==(const RegNetConfig&) const = default;
};

using ModelConfig = std::variant<ResNetConfig, ResNeStConfig, RegNetConfig>;

// Options that apply to every network. Classes, height and width default to those of the catalog
// entry, or to 1000 and 224x224.
struct ModelOptions {
  std::optional<int> classes;
  int in_channels = 3;
  std::optional<int> height;
  std::optional<int> width;
};

// A row of the catalog.
struct Model {
  std::string name;
  std::string family;  // "ResNet", "ResNeSt", "RegNetX", "RegNetY", "RegNetZ", "RegNetV"
  // Whose conventions it follows: "PaddleClas", "timm", "torchvision", or "paper" for the original
  // paper's networks, which none of these libraries has.
  std::string source;
  int input_size;  // height and width for which its weights were published
  ModelConfig config;
  int classes = 1000;
};

// All networks known by name, ordered by family, size and source.
RESRT_API const std::vector<Model>& catalog();

// Returns the catalog row with that name. Throws ModelError, listing the nearest names, if there is
// none.
RESRT_API const Model& find_model(std::string_view name);

// Builds the graph of a catalog network, or of a custom configuration under a custom name. Throws
// ModelError if the name is unknown or the parameters are invalid.
RESRT_API Graph build_graph(std::string_view name, const ModelOptions& options = {});
RESRT_API Graph build_graph(std::string name, const ModelConfig& config,
                            const ModelOptions& options = {});

// Returns the graph with these outputs, in this order: "logits"; "features", what the last linear
// layer reads; "layer1", "layer2" and so on, the feature maps at the end of each stage, in every
// family; "cam", the class activation maps; or the name of any layer but the input. Throws
// ModelError, listing the outputs, if there is none of a name.
//
// The class activation maps (https://arxiv.org/abs/1512.04150) are the logits before pooling,
// without the bias: (classes, H, W), whose mean over H and W plus the bias of a class is its logit.
// A network has them if it ends in GlobalAvgPool2d and Linear. They are computed by an added layer,
// whose weight complete_weights makes of the linear layer's.
RESRT_API Graph select_outputs(const Graph& graph, const std::vector<std::string>& names);

}  // namespace resrt
