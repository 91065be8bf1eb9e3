#include "models/families.h"
#include "models/residual.h"
#include "resrt/error.h"

namespace resrt {
namespace {

Tensor basic(Net& net, Tensor x, int planes, int stride) {
  x = net.conv_bn_relu("conv1", "bn1", x,
                       {.out_channels = planes, .kernel = 3, .stride = stride, .padding = 1});
  return net.conv_bn("conv2", "bn2", x, {.out_channels = planes, .kernel = 3, .padding = 1});
}

Tensor bottleneck(Net& net, Tensor x, int planes, int stride, const ResNetConfig& config) {
  const int width = bottleneck_width(planes, config.base_width, config.cardinality);
  x = net.conv_bn_relu("conv1", "bn1", x, {.out_channels = width, .kernel = 1});
  x = net.conv_bn_relu("conv2", "bn2", x,
                       {.out_channels = width,
                        .kernel = 3,
                        .stride = stride,
                        .padding = 1,
                        .groups = config.cardinality});
  return net.conv_bn("conv3", "bn3", x, {.out_channels = 4 * planes, .kernel = 1});
}

}  // namespace

Graph build(std::string name, const ResNetConfig& config, const Input& input, int classes) {
  const bool is_basic = config.block == Block::basic;
  if (is_basic && (config.cardinality != 1 || config.base_width != 64)) {
    throw ModelError(
        "a basic block has no cardinality or base_width; use block = bottleneck with these");
  }
  const Trunk trunk = {.depths = config.depths,
                       .width = config.width,
                       .expansion = is_basic ? 1 : 4,
                       .stem = config.stem,
                       .stem_channels = config.stem_channels,
                       .downsample = config.downsample,
                       .project_first = config.project_first};
  return residual_network(std::move(name), trunk, input, classes,
                          [&](Net& net, Tensor x, int planes, int stride) {
                            return is_basic ? basic(net, x, planes, stride)
                                            : bottleneck(net, x, planes, stride, config);
                          });
}

}  // namespace resrt
