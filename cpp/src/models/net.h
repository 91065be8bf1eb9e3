#pragma once

#include <string>
#include <utility>

#include "resrt/graph.h"

namespace resrt {

// Adds layers to a graph under a name prefix. The networks in this folder are written with it.
class Net {
 public:
  explicit Net(Graph& graph) : graph_(graph) {}

  // Returns a Net for the same graph with the prefix "<prefix><name>.".
  Net scope(const std::string& name) const { return Net(graph_, prefix_ + name + "."); }

  int channels(Tensor x) const { return graph_.shape(x).channels; }

  Tensor layer(const std::string& name, const Definition& definition, Tensor x) {
    return graph_.add(prefix_ + name, definition, {x});
  }

  Tensor conv_bn(const std::string& conv, const std::string& bn, Tensor x,
                 const Conv2d& definition) {
    return layer(bn, BatchNorm2d{}, layer(conv, definition, x));
  }

  Tensor conv_bn_relu(const std::string& conv, const std::string& bn, Tensor x,
                      const Conv2d& definition) {
    return layer(bn + ".relu", Relu{}, conv_bn(conv, bn, x, definition));
  }

  Tensor add_relu(Tensor x, Tensor shortcut) {
    return layer("relu", Relu{}, graph_.add(prefix_ + "add", Add{}, {x, shortcut}));
  }

 private:
  Net(Graph& graph, std::string prefix) : graph_(graph), prefix_(std::move(prefix)) {}

  Graph& graph_;
  std::string prefix_;
};

}  // namespace resrt
