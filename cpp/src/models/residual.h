#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/net.h"
#include "resrt/models.h"

namespace resrt {

// The parts that ResNet and ResNeSt share: stem, stages, shortcuts and head.
struct Trunk {
  std::vector<int> depths;
  int width;
  int expansion;  // the ratio of a block's output channels to the stage's width
  Stem stem;
  int stem_channels;
  StemPool stem_pool = StemPool::max;
  Downsample downsample;
  bool project_first = false;
  Antialias antialias = Antialias::none;
  Activation activation = Activation::relu;
};

// Adds a block's residual branch, without the addition and the activation after it, to the graph
// and returns its output. `planes` is the stage's width before expansion.
using Branch = std::function<Tensor(Net& net, Tensor x, int planes, int stride)>;

Graph residual_network(std::string name, const Trunk& trunk, const Input& input, int classes,
                       const Branch& branch);

// Adds what halves the resolution where a stride of 2 was left out.
Tensor antialiased(Net& net, const std::string& name, Tensor x, Antialias antialias);

// Returns the channels inside a bottleneck: planes * base_width / 64 for each group.
int bottleneck_width(int planes, int base_width, int cardinality);

}  // namespace resrt
