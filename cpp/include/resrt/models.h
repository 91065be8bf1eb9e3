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

// plain: one 7x7 convolution; deep: three 3x3 convolutions (the variants c, d and ResNeSt).
enum class Stem { plain, deep };

// How a shortcut halves the resolution: by its 1x1 convolution's stride, or by a 2x2 average
// pooling before it (the variants d, vd and ResNeSt).
enum class Downsample { convolution, average_pool };

// Deep Residual Learning (https://arxiv.org/abs/1512.03385), with the tweaks of Bag of Tricks
// (https://arxiv.org/abs/1812.01187). With cardinality and base_width also ResNeXt and Wide ResNet.
struct ResNetConfig {
  std::vector<int> depths = {3, 4, 6, 3};  // blocks per stage
  Block block = Block::bottleneck;
  int width = 64;  // channels of the first stage before expansion; each stage doubles them
  Stem stem = Stem::plain;
  int stem_channels = 64;  // the stem's output channels; a deep stem starts with half as many
  Downsample downsample = Downsample::convolution;
  // Whether the first shortcut of the first stage has a convolution even if the shapes already
  // match, as in PaddleClas's basic blocks.
  bool project_first = false;
  int cardinality = 1;  // groups of the bottleneck's 3x3 convolution
  int base_width = 64;  // the bottleneck's channels per group, for `width` 64

  bool operator==(const ResNetConfig&) const = default;
};

// Split-Attention Networks (https://arxiv.org/abs/2004.08955): bottlenecks with split attention, a
// deep stem, average pooling in the shortcuts and before or after the split attention.
struct ResNeStConfig {
  std::vector<int> depths = {3, 4, 6, 3};
  int width = 64;
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

// Designing Network Design Spaces (https://arxiv.org/abs/2003.13678): RegNetX, and with
// squeeze_excite RegNetY. The block widths follow the paper's quantised linear rule.
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

  bool operator==(const RegNetConfig&) const = default;
};

using ModelConfig = std::variant<ResNetConfig, ResNeStConfig, RegNetConfig>;

// Options that apply to every network. Height and width default to those of the catalog entry, or
// to 224x224.
struct ModelOptions {
  int classes = 1000;
  int in_channels = 3;
  std::optional<int> height;
  std::optional<int> width;
};

// A row of the catalog.
struct Model {
  std::string name;
  std::string family;  // "ResNet", "ResNeSt", "RegNetX", "RegNetY"
  std::string source;  // whose conventions it follows: "PaddleClas", "timm", "torchvision"
  int input_size;      // height and width for which its weights were published
  ModelConfig config;
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

}  // namespace resrt
