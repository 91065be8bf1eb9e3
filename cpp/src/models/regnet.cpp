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
  int inner_width;  // of a block's 3x3 convolution
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
    if (stages.empty() || stages.back().width != channels) stages.push_back({0, channels, 0, 0});
    ++stages.back().depth;
  }
  for (Stage& stage : stages) {
    const int inner = static_cast<int>(stage.width * config.bottleneck_ratio);
    stage.group_width = std::min(config.group_width, inner);
    stage.inner_width = round_width(inner, stage.group_width, config.min_width_ratio);
    stage.width = static_cast<int>(stage.inner_width / config.bottleneck_ratio);
    if (stage.width < 1) {
      throw ModelError(concat("bottleneck_ratio ", config.bottleneck_ratio, " with width_initial ",
                              config.width_initial, " gives a stage without channels"));
    }
  }
  return stages;
}

// A convolution of a block, its normalisation and its activation, in this order or before it.
Tensor conv_act(Net& net, const std::string& number, Tensor x, const Conv2d& conv,
                const RegNetConfig& config) {
  const std::string name = "conv" + number;
  if (config.pre_activation) return net.layer(name, conv, net.bn_act("norm" + number, x));
  return net.conv_bn_act(name + ".conv", name + ".bn", x, conv);
}

// The convolution of a shortcut, with its normalisation unless that comes before convolutions.
Tensor project(Net& net, const std::string& name, Tensor x, const Conv2d& conv,
               const RegNetConfig& config) {
  if (config.pre_activation) return net.layer(name, conv, x);
  return net.conv_bn(name + ".conv", name + ".bn", x, conv);
}

// Returns the shortcut of a block that changes the shape.
Tensor shortcut(Net& net, Tensor x, int width, int stride, const RegNetConfig& config) {
  if (config.shortcut == Shortcut::convolution) {
    return project(net, "downsample", x, {.out_channels = width, .kernel = 1, .stride = stride},
                   config);
  }
  if (stride != 1) {
    const AvgPool2d pool = {
        .kernel = stride, .stride = stride, .ceil_mode = true, .count_include_pad = false};
    x = net.layer("downsample.0", pool, x);
  }
  return project(net, "downsample.1", x, {.out_channels = width, .kernel = 1}, config);
}

// The 3x3 convolution of a block, and the attention after it.
Tensor middle(Net& net, Tensor x, int in_channels, const Stage& stage, int stride,
              const RegNetConfig& config) {
  x = conv_act(net, "2", x,
               {.out_channels = stage.inner_width,
                .kernel = 3,
                .stride = stride,
                .padding = 1,
                .groups = stage.inner_width / stage.group_width},
               config);
  if (!config.squeeze_excite) return x;
  const int hidden = std::max(1, static_cast<int>(std::nearbyint(in_channels * 0.25)));
  const bool silu = config.activation == Activation::silu;
  return net.layer("se", SqueezeExcite{.hidden = hidden, .silu = silu}, x);
}

Tensor block(Net& net, Tensor x, const Stage& stage, int stride, const RegNetConfig& config) {
  const int in_channels = net.channels(x);
  const Conv2d expand = {.out_channels = stage.inner_width, .kernel = 1};
  const Conv2d reduce = {.out_channels = stage.width, .kernel = 1};
  Tensor y;
  if (config.pre_activation) {
    x = net.bn_act("norm1", x);
    y = net.layer("conv1", expand, x);
    y = middle(net, y, in_channels, stage, stride, config);
    y = net.layer("conv3", reduce, net.bn_act("norm3", y));
  } else {
    y = net.conv_bn_act("conv1.conv", "conv1.bn", x, expand);
    y = middle(net, y, in_channels, stage, stride, config);
    y = net.conv_bn("conv3.conv", "conv3.bn", y, reduce);
  }
  const bool changes_shape = in_channels != stage.width || stride != 1;
  if (!changes_shape) {
    y = net.add(y, x);
  } else if (config.shortcut != Shortcut::none) {
    y = net.add(y, shortcut(net, x, stage.width, stride, config));
  }
  return config.pre_activation || config.linear_blocks ? y : net.activate("", y);
}

// What follows the last stage, before the head.
Tensor finish(Net& net, Tensor x, const RegNetConfig& config) {
  if (config.final_channels > 0) {
    return net.conv_bn_act("final_conv.conv", "final_conv.bn", x,
                           {.out_channels = config.final_channels, .kernel = 1});
  }
  return config.pre_activation || config.linear_blocks ? net.activate("final_conv.", x) : x;
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
  if (config.stem_stride != 1 && config.stem_stride != 2) {
    throw ModelError(concat("stem_stride must be 1 or 2, not ", config.stem_stride));
  }
  if (!(config.bottleneck_ratio >= 0.01 && config.bottleneck_ratio <= 100.0)) {
    throw ModelError(
        concat("bottleneck_ratio must be from 0.01 to 100, not ", config.bottleneck_ratio));
  }
  if (config.final_channels < 0) {
    throw ModelError(concat("final_channels must be at least 0, not ", config.final_channels));
  }
  if (!(config.min_width_ratio >= 0.0 && config.min_width_ratio <= 1.0)) {
    throw ModelError(concat("min_width_ratio must be from 0 to 1, not ", config.min_width_ratio));
  }
}

}  // namespace

Graph build(std::string name, const RegNetConfig& config, const Input& input, int classes) {
  check(config);
  Graph graph(std::move(name));
  Net net(graph, config.activation);
  const Conv2d stem = {.out_channels = config.stem_channels,
                       .kernel = 3,
                       .stride = config.stem_stride,
                       .padding = 1};
  Tensor x = graph.add("input", input);
  x = config.pre_activation ? net.layer("stem", stem, x)
                            : net.conv_bn_act("stem.conv", "stem.bn", x, stem);
  int number = 0;
  for (const Stage& stage : stages(config)) {
    ++number;
    for (int index = 1; index <= stage.depth; ++index) {
      Net scope = net.scope(concat("s", number)).scope(concat("b", index));
      x = block(scope, x, stage, index == 1 ? 2 : 1, config);
    }
  }
  x = net.layer("head.global_pool", GlobalAvgPool2d{}, finish(net, x, config));
  net.layer("head.fc", Linear{classes}, x);
  return graph;
}

}  // namespace resrt
