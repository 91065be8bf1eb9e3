#include <algorithm>
#include <cmath>

#include "models/families.h"
#include "models/residual.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

// The 3x3 convolution that may halve the resolution, with what antialiases it.
Tensor strided(Net& net, const std::string& number, Tensor x, Conv2d conv,
               const ResNetConfig& config) {
  const bool antialiases = config.antialias != Antialias::none && conv.stride == 2;
  if (antialiases) conv.stride = 1;
  x = net.conv_bn_act("conv" + number, "bn" + number, x, conv);
  return antialiases ? antialiased(net, "aa", x, config.antialias) : x;
}

// The kernel size of efficient channel attention: the nearest odd number to (log2(C) + 1) / 2,
// rounded as in the authors' code.
int attention_kernel(int channels) {
  const int size = static_cast<int>((std::log2(channels) + 1) / 2);
  return std::max(3, size % 2 == 1 ? size : size + 1);
}

Tensor attended(Net& net, Tensor x, const ResNetConfig& config) {
  const int channels = net.channels(x);
  const int divisor = config.attention_divisor;
  switch (config.attention) {
    case Attention::none: return x;
    case Attention::squeeze_excite: {
      const double quotient = static_cast<double>(channels) / config.attention_reduction;
      const int rounded = static_cast<int>(quotient + divisor / 2.0) / divisor * divisor;
      return net.layer("se", SqueezeExcite{.hidden = std::max(divisor, rounded)}, x);
    }
    case Attention::efficient:
      return net.layer("se", EfficientChannelAttention{attention_kernel(channels)}, x);
  }
  throw ModelError("invalid attention");
}

Tensor basic(Net& net, Tensor x, int planes, int stride, const ResNetConfig& config) {
  x = strided(net, "1", x, {.out_channels = planes, .kernel = 3, .stride = stride, .padding = 1},
              config);
  return net.conv_bn("conv2", "bn2", x, {.out_channels = planes, .kernel = 3, .padding = 1});
}

Tensor bottleneck(Net& net, Tensor x, int planes, int stride, const ResNetConfig& config) {
  const int width = bottleneck_width(planes, config.base_width, config.cardinality);
  const int first = config.stride_first ? stride : 1;
  x = net.conv_bn_act("conv1", "bn1", x, {.out_channels = width, .kernel = 1, .stride = first});
  x = strided(net, "2", x,
              {.out_channels = width,
               .kernel = 3,
               .stride = stride / first,
               .padding = 1,
               .groups = config.cardinality},
              config);
  return net.conv_bn("conv3", "bn3", x, {.out_channels = 4 * planes, .kernel = 1});
}

void check(const ResNetConfig& config) {
  if (config.block == Block::basic &&
      (config.cardinality != 1 || config.base_width != 64 || config.stride_first)) {
    throw ModelError(
        "a basic block has no cardinality, base_width or stride_first; use block = bottleneck "
        "with these");
  }
  if (config.stride_first && config.antialias != Antialias::none) {
    throw ModelError("stride_first cannot be combined with antialias");
  }
  if (config.attention_reduction < 1 || config.attention_divisor < 1 ||
      config.attention_reduction > kMostChannels || config.attention_divisor > kMostChannels) {
    throw ModelError(concat("attention_reduction and attention_divisor must be from 1 to ",
                            kMostChannels, ", not ", config.attention_reduction, " and ",
                            config.attention_divisor));
  }
}

}  // namespace

Graph build(std::string name, const ResNetConfig& config, const Input& input, int classes) {
  check(config);
  const bool is_basic = config.block == Block::basic;
  const Trunk trunk = {.depths = config.depths,
                       .width = config.width,
                       .expansion = is_basic ? 1 : 4,
                       .stem = config.stem,
                       .stem_channels = config.stem_channels,
                       .stem_pool = config.stem_pool,
                       .downsample = config.downsample,
                       .project_first = config.project_first,
                       .antialias = config.antialias,
                       .activation = config.activation};
  return residual_network(std::move(name), trunk, input, classes,
                          [&](Net& net, Tensor x, int planes, int stride) {
                            x = is_basic ? basic(net, x, planes, stride, config)
                                         : bottleneck(net, x, planes, stride, config);
                            return attended(net, x, config);
                          });
}

}  // namespace resrt
