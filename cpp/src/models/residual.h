#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/net.h"
#include "resrt/models.h"

namespace resrt {

// What ResNet and ResNeSt share: stem, stages, shortcuts and head, around residual branches.
struct Trunk {
  std::vector<int> depths;
  int width;
  int expansion;  // of a block's output over the stage's width
  Stem stem;
  int stem_channels;
  Downsample downsample;
  bool project_first;
};

// A block's residual branch, without the ReLU after the addition, from the block's input.
// `planes` is the stage's width before expansion.
using Branch = std::function<Tensor(Net& net, Tensor x, int planes, int stride)>;

Graph residual_network(std::string name, const Trunk& trunk, const Input& input, int classes,
                       const Branch& branch);

// planes * base_width / 64 for each of the groups: the channels inside a bottleneck.
int bottleneck_width(int planes, int base_width, int cardinality);

}  // namespace resrt
