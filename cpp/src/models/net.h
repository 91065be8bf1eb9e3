#pragma once

#include <string>
#include <utility>

#include "resrt/graph.h"
#include "resrt/models.h"

namespace resrt {

// Adds layers to a graph under a name prefix. The networks in this folder are written with it.
class Net {
 public:
  explicit Net(Graph& graph, Activation activation = Activation::relu)
      : graph_(graph), activation_(activation) {}

  // Returns a Net for the same graph with the prefix "<prefix><name>.".
  Net scope(const std::string& name) const {
    Net inner = *this;
    inner.prefix_ = prefix_ + name + ".";
    return inner;
  }

  int channels(Tensor x) const { return graph_.shape(x).channels; }
  Shape shape(Tensor x) const { return graph_.shape(x); }

  Tensor layer(const std::string& name, const Definition& definition, Tensor x) {
    return graph_.add(prefix_ + name, definition, {x});
  }

  Tensor activate(const std::string& prefix, Tensor x) {
    return activation_ == Activation::relu ? layer(prefix + "relu", Relu{}, x)
                                           : layer(prefix + "silu", Silu{}, x);
  }

  Tensor bn_act(const std::string& bn, Tensor x) {
    return activate(bn + ".", layer(bn, BatchNorm2d{}, x));
  }

  Tensor conv_bn(const std::string& conv, const std::string& bn, Tensor x,
                 const Conv2d& definition) {
    return layer(bn, BatchNorm2d{}, layer(conv, definition, x));
  }

  Tensor conv_bn_act(const std::string& conv, const std::string& bn, Tensor x,
                     const Conv2d& definition) {
    return bn_act(bn, layer(conv, definition, x));
  }

  Tensor add(Tensor x, Tensor shortcut) {
    return graph_.add(prefix_ + "add", Add{}, {x, shortcut});
  }

 private:
  Graph& graph_;
  Activation activation_;
  std::string prefix_;
};

}  // namespace resrt
