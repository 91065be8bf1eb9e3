#include "models/residual.h"

#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

// The stem's convolutions, and the maximum after them.
Tensor stem(Net& net, Tensor x, const Trunk& trunk) {
  const int channels = trunk.stem_channels;
  if (trunk.stem == Stem::small) {
    return net.conv_bn_act("conv1", "bn1", x,
                           {.out_channels = channels, .kernel = 3, .padding = 1});
  }
  if (trunk.stem == Stem::plain) {
    x = net.conv_bn_act("conv1", "bn1", x,
                        {.out_channels = channels, .kernel = 7, .stride = 2, .padding = 3});
  } else {
    const int half = channels / 2;
    const int first = trunk.stem == Stem::tiered ? half / 4 * 3 : half;
    x = net.conv_bn_act("conv1.0", "conv1.1", x,
                        {.out_channels = first, .kernel = 3, .stride = 2, .padding = 1});
    x = net.conv_bn_act("conv1.3", "conv1.4", x, {.out_channels = half, .kernel = 3, .padding = 1});
    x = net.conv_bn_act("conv1.6", "bn1", x, {.out_channels = channels, .kernel = 3, .padding = 1});
  }
  if (trunk.stem_pool == StemPool::convolution) {
    return net.conv_bn_act("maxpool.0", "maxpool.1", x,
                           {.out_channels = channels, .kernel = 3, .stride = 2, .padding = 1});
  }
  MaxPool2d pool = {.kernel = 3, .stride = 2, .padding = 1};
  if (trunk.antialias == Antialias::average_pool) {
    return antialiased(net, "maxpool", x, trunk.antialias);
  }
  if (trunk.antialias == Antialias::none) return net.layer("maxpool", pool, x);
  pool.stride = 1;
  return antialiased(net, "maxpool.1", net.layer("maxpool.0", pool, x), trunk.antialias);
}

// A shortcut without parameters: every `stride`-th pixel, and channels of zeros around its own.
Tensor padded_shortcut(Net& net, Tensor x, int channels, int stride) {
  if (stride != 1) x = net.layer("downsample.0", MaxPool2d{.kernel = 1, .stride = stride}, x);
  const int added = channels - net.channels(x);
  if (added < 0) {
    throw ModelError(concat("downsample = pad cannot reduce ", net.channels(x), " channels to ",
                            channels, "; choose stem_channels of at most the first stage's"));
  }
  const PadChannels pad = {.before = added / 2, .after = added - added / 2};
  return net.layer("downsample.1", pad, x);
}

Tensor shortcut(Net& net, Tensor x, const Trunk& trunk, int channels, int stride, bool project) {
  if (!project) return x;
  if (trunk.downsample == Downsample::pad) return padded_shortcut(net, x, channels, stride);
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
  const int multiple = trunk.stem == Stem::deep ? 2 : trunk.stem == Stem::tiered ? 8 : 1;
  if (trunk.stem_channels < 1 || trunk.stem_channels % multiple != 0) {
    throw ModelError(
        concat("stem_channels must be positive, even for a deep stem and a multiple of 8 for a "
               "tiered one, not ",
               trunk.stem_channels));
  }
  if (trunk.stem_pool != StemPool::max &&
      (trunk.stem == Stem::small || trunk.antialias != Antialias::none)) {
    throw ModelError(
        "stem_pool = convolution cannot be combined with a small stem, which has no pooling, or "
        "with antialias");
  }
}

}  // namespace

Graph residual_network(std::string name, const Trunk& trunk, const Input& input, int classes,
                       const Branch& branch) {
  check(trunk);
  Graph graph(std::move(name));
  Net net(graph, trunk.activation);
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
      const Tensor z = shortcut(block, x, trunk, channels, stride, project);
      if (trunk.antialias == Antialias::average_pool && net.shape(y) != net.shape(z)) {
        const Shape odd = net.shape(x);
        throw ModelError(
            concat("antialias = average_pool requires maps of even height and width, "
                   "but layer",
                   stage + 1, " has one of ", odd.height, "x", odd.width,
                   "; choose an input size that is a multiple of 32"));
      }
      x = block.activate("", block.add(y, z));
    }
  }
  x = net.layer("global_pool", GlobalAvgPool2d{}, x);
  net.layer("fc", Linear{classes}, x);
  return graph;
}

Tensor antialiased(Net& net, const std::string& name, Tensor x, Antialias antialias) {
  switch (antialias) {
    case Antialias::none: return x;
    case Antialias::average_pool: return net.layer(name, AvgPool2d{.kernel = 2, .stride = 2}, x);
    case Antialias::blur: return net.layer(name, BlurPool2d{.stride = 2}, x);
  }
  throw ModelError("invalid antialias");
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
