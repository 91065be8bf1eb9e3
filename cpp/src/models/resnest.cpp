#include <algorithm>

#include "models/families.h"
#include "models/residual.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

// A quarter of the channels of all splits, at least 32, rounded to the nearest multiple of
// `divisor` that is no more than a tenth smaller.
int hidden_channels(int width, int radix, int divisor) {
  const int quarter = width * radix / 4;
  const int rounded = std::max(32, (quarter + divisor / 2) / divisor * divisor);
  return 10 * rounded < 9 * quarter ? rounded + divisor : rounded;
}

Tensor bottleneck(Net& net, Tensor x, int planes, int stride, const ResNeStConfig& config) {
  const int width = bottleneck_width(planes, config.base_width, config.cardinality);
  if (width % (config.radix * config.cardinality) != 0) {
    throw ModelError(concat("a bottleneck of ", width, " channels cannot be split by radix ",
                            config.radix, " and cardinality ", config.cardinality,
                            "; choose a width that is a multiple of their product"));
  }
  const AvgPool2d pool = {
      .kernel = 3, .stride = stride, .padding = 1, .count_include_pad = config.count_include_pad};
  const bool pool_before = stride != 1 && config.pool_first;
  const bool pool_after = stride != 1 && !config.pool_first;

  x = net.conv_bn_act("conv1", "bn1", x, {.out_channels = width, .kernel = 1});
  if (pool_before) x = net.layer("avd_first", pool, x);
  x = net.conv_bn_act("conv2.conv", "conv2.bn0", x,
                      {.out_channels = width * config.radix,
                       .kernel = 3,
                       .padding = 1,
                       .groups = config.cardinality * config.radix});
  x = net.layer(
      "conv2",
      SplitAttention{.channels = width,
                     .radix = config.radix,
                     .cardinality = config.cardinality,
                     .hidden = hidden_channels(width, config.radix, config.hidden_divisor),
                     .fc1_bias = config.attention_bias},
      x);
  if (pool_after) x = net.layer("avd_last", pool, x);
  return net.conv_bn("conv3", "bn3", x, {.out_channels = 4 * planes, .kernel = 1});
}

}  // namespace

Graph build(std::string name, const ResNeStConfig& config, const Input& input, int classes) {
  if (config.radix < 1 || config.radix > 64) {
    throw ModelError(concat("radix must be from 1 to 64, not ", config.radix));
  }
  if (config.hidden_divisor < 1 || config.hidden_divisor > kMostChannels) {
    throw ModelError(concat("hidden_divisor must be from 1 to ", kMostChannels, ", not ",
                            config.hidden_divisor));
  }
  const Trunk trunk = {.depths = config.depths,
                       .width = config.width,
                       .expansion = 4,
                       .stem = config.stem,
                       .stem_channels = config.stem_channels,
                       .downsample = Downsample::average_pool};
  return residual_network(std::move(name), trunk, input, classes,
                          [&](Net& net, Tensor x, int planes, int stride) {
                            return bottleneck(net, x, planes, stride, config);
                          });
}

}  // namespace resrt
