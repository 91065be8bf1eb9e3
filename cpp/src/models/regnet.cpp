#include <algorithm>
#include <cmath>
#include <vector>

#include "models/families.h"
#include "models/net.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

struct Stage {
  int depth;
  int width;
  int group_width;
};

// Rounds `width` to a multiple of `group_width`.
int round_width(int width, int group_width, double min_ratio) {
  if (min_ratio == 0.0) {
    // Python's round: halves go to the even neighbour.
    return static_cast<int>(std::nearbyint(static_cast<double>(width) / group_width)) * group_width;
  }
  const int rounded = std::max(group_width, (width + group_width / 2) / group_width * group_width);
  return rounded < min_ratio * width ? rounded + group_width : rounded;
}

// The width of a block is w_0 * w_m^k, rounded to a multiple of 8, where k is the rounded exponent
// at which it meets the line of the given slope. A stage is a run of blocks with the same width.
std::vector<Stage> stages(const RegNetConfig& config) {
  constexpr int quantum = 8;
  std::vector<Stage> stages;
  for (int block = 0; block < config.depth; ++block) {
    const double line = config.width_initial + config.width_slope * block;
    const double exponent =
        std::nearbyint(std::log(line / config.width_initial) / std::log(config.width_multiplier));
    const double width = config.width_initial * std::pow(config.width_multiplier, exponent);
    const double quantised = std::nearbyint(width / quantum) * quantum;
    if (quantised > 1 << 20) {
      throw ModelError(
          "width_slope and width_multiplier give blocks of more than a million channels");
    }
    const int channels = static_cast<int>(quantised);
    if (stages.empty() || stages.back().width != channels) stages.push_back({0, channels, 0});
    ++stages.back().depth;
  }
  for (Stage& stage : stages) {
    stage.group_width = std::min(config.group_width, stage.width);
    stage.width = round_width(stage.width, stage.group_width, config.min_width_ratio);
  }
  return stages;
}

Tensor conv_bn(Net& net, const std::string& name, Tensor x, const Conv2d& conv) {
  return net.conv_bn(name + ".conv", name + ".bn", x, conv);
}

Tensor conv_bn_relu(Net& net, const std::string& name, Tensor x, const Conv2d& conv) {
  return net.conv_bn_relu(name + ".conv", name + ".bn", x, conv);
}

Tensor block(Net& net, Tensor x, const Stage& stage, int stride, bool squeeze_excite) {
  const int in_channels = net.channels(x);
  const Conv2d expand = {.out_channels = stage.width, .kernel = 1};
  Tensor y = conv_bn_relu(net, "conv1", x, expand);
  y = conv_bn_relu(net, "conv2", y,
                   {.out_channels = stage.width,
                    .kernel = 3,
                    .stride = stride,
                    .padding = 1,
                    .groups = stage.width / stage.group_width});
  if (squeeze_excite) {
    const int hidden = static_cast<int>(std::nearbyint(in_channels * 0.25));
    y = net.layer("se", SqueezeExcite{std::max(1, hidden)}, y);
  }
  y = conv_bn(net, "conv3", y, expand);
  Tensor shortcut = x;
  if (in_channels != stage.width || stride != 1) {
    shortcut =
        conv_bn(net, "downsample", x, {.out_channels = stage.width, .kernel = 1, .stride = stride});
  }
  return net.add_relu(y, shortcut);
}

void check(const RegNetConfig& config) {
  if (config.depth < 1 || config.depth > 1000) {
    throw ModelError(concat("depth must be from 1 to 1000, not ", config.depth));
  }
  if (config.width_initial < 8 || config.width_initial % 8 != 0) {
    throw ModelError(
        concat("width_initial must be a positive multiple of 8, not ", config.width_initial));
  }
  if (!(config.width_slope >= 0.0) || !(config.width_multiplier > 1.0)) {
    throw ModelError(
        concat("width_slope must be at least 0 and width_multiplier greater than 1, not ",
               config.width_slope, " and ", config.width_multiplier));
  }
  if (config.group_width < 1 || config.stem_channels < 1) {
    throw ModelError(concat("group_width and stem_channels must be at least 1, not ",
                            config.group_width, " and ", config.stem_channels));
  }
  if (!(config.min_width_ratio >= 0.0 && config.min_width_ratio <= 1.0)) {
    throw ModelError(concat("min_width_ratio must be from 0 to 1, not ", config.min_width_ratio));
  }
}

}  // namespace

Graph build(std::string name, const RegNetConfig& config, const Input& input, int classes) {
  check(config);
  Graph graph(std::move(name));
  Net net(graph);
  Tensor x =
      conv_bn_relu(net, "stem", graph.add("input", input),
                   {.out_channels = config.stem_channels, .kernel = 3, .stride = 2, .padding = 1});
  int number = 0;
  for (const Stage& stage : stages(config)) {
    ++number;
    for (int index = 1; index <= stage.depth; ++index) {
      Net scope = net.scope(concat("s", number)).scope(concat("b", index));
      x = block(scope, x, stage, index == 1 ? 2 : 1, config.squeeze_excite);
    }
  }
  x = net.layer("head.global_pool", GlobalAvgPool2d{}, x);
  net.layer("head.fc", Linear{classes}, x);
  return graph;
}

}  // namespace resrt
