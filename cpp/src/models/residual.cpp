#include "models/residual.h"

#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

Tensor stem(Net& net, Tensor x, const Trunk& trunk) {
  const int channels = trunk.stem_channels;
  if (trunk.stem == Stem::plain) {
    x = net.conv_bn_relu("conv1", "bn1", x,
                         {.out_channels = channels, .kernel = 7, .stride = 2, .padding = 3});
  } else {
    const Conv2d narrow = {.out_channels = channels / 2, .kernel = 3, .padding = 1};
    Conv2d first = narrow;
    first.stride = 2;
    Conv2d last = narrow;
    last.out_channels = channels;
    x = net.conv_bn_relu("conv1.0", "conv1.1", x, first);
    x = net.conv_bn_relu("conv1.3", "conv1.4", x, narrow);
    x = net.conv_bn_relu("conv1.6", "bn1", x, last);
  }
  return net.layer("maxpool", MaxPool2d{.kernel = 3, .stride = 2, .padding = 1}, x);
}

Tensor shortcut(Net& net, Tensor x, const Trunk& trunk, int channels, int stride, bool project) {
  if (!project) return x;
  if (trunk.downsample == Downsample::convolution) {
    return net.conv_bn("downsample.0", "downsample.1", x,
                       {.out_channels = channels, .kernel = 1, .stride = stride});
  }
  if (stride != 1) {
    const AvgPool2d pool = {
        .kernel = stride, .stride = stride, .ceil_mode = true, .count_include_pad = false};
    x = net.layer("downsample.0", pool, x);
  }
  return net.conv_bn("downsample.1", "downsample.2", x, {.out_channels = channels, .kernel = 1});
}

void check(const Trunk& trunk) {
  if (trunk.depths.empty()) {
    throw ModelError("depths is empty; it must list the number of blocks of each stage");
  }
  for (const int depth : trunk.depths) {
    if (depth < 1 || depth > 1000) {
      throw ModelError(
          concat("each entry of depths must be at least 1 and at most 1000, not ", depth));
    }
  }
  // Each stage doubles the width, which must fit an int.
  if (trunk.depths.size() > 8) {
    throw ModelError(
        concat("depths has ", trunk.depths.size(), " stages; at most 8 are supported"));
  }
  if (trunk.width < 1 || trunk.width > 4096) {
    throw ModelError(concat("width must be from 1 to 4096, not ", trunk.width));
  }
  if (trunk.stem_channels < 1 || (trunk.stem == Stem::deep && trunk.stem_channels % 2 != 0)) {
    throw ModelError(concat("stem_channels must be positive, and even for a deep stem, not ",
                            trunk.stem_channels));
  }
}

}  // namespace

Graph residual_network(std::string name, const Trunk& trunk, const Input& input, int classes,
                       const Branch& branch) {
  check(trunk);
  Graph graph(std::move(name));
  Net net(graph);
  Tensor x = stem(net, graph.add("input", input), trunk);
  int planes = trunk.width;
  for (size_t stage = 0; stage < trunk.depths.size(); ++stage, planes *= 2) {
    const int channels = planes * trunk.expansion;
    for (int index = 0; index < trunk.depths[stage]; ++index) {
      Net block = net.scope(concat("layer", stage + 1)).scope(std::to_string(index));
      const int stride = stage > 0 && index == 0 ? 2 : 1;
      const bool project = stride != 1 || net.channels(x) != channels ||
                           (trunk.project_first && stage == 0 && index == 0);
      const Tensor y = branch(block, x, planes, stride);
      x = block.add_relu(y, shortcut(block, x, trunk, channels, stride, project));
    }
  }
  x = net.layer("global_pool", GlobalAvgPool2d{}, x);
  net.layer("fc", Linear{classes}, x);
  return graph;
}

int bottleneck_width(int planes, int base_width, int cardinality) {
  if (base_width < 1 || base_width > 4096 || cardinality < 1 || cardinality > 4096) {
    throw ModelError(concat("base_width and cardinality must be from 1 to 4096, not ", base_width,
                            " and ", cardinality));
  }
  const int64_t per_group = int64_t{planes} * base_width / 64;
  if (per_group < 1) {
    throw ModelError(concat("width ", planes, " with base_width ", base_width,
                            " gives the bottleneck no channels; width * base_width must be at "
                            "least 64"));
  }
  const int64_t width = per_group * cardinality;
  if (width > kMostChannels) {
    throw ModelError(concat("width ", planes, ", base_width ", base_width, " and cardinality ",
                            cardinality, " give a bottleneck of ", width, " channels; at most ",
                            kMostChannels, " are supported"));
  }
  return static_cast<int>(width);
}

}  // namespace resrt
