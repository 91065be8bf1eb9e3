#include <map>
#include <set>

#include "passes/passes.h"
#include "passes/rewrite.h"

namespace resrt {
namespace {

// A convolution and the layers after it that are fused into it. It takes the place of the last one.
struct Fusion {
  int conv;
  Conv2d definition;
  std::vector<Tensor> inputs;
};

}  // namespace

Graph fuse_add_relu(const Graph& graph) {
  const std::vector<Layer>& layers = graph.layers();
  const auto readers = consumers(graph);
  // Returns the only reader of a layer if it is a layer of this kind, else -1.
  const auto only_reader = [&]<class Kind>(int layer, Kind) {
    const std::vector<int>& next = readers[static_cast<size_t>(layer)];
    const bool fits =
        next.size() == 1 && next.front() != kCaller &&
        std::holds_alternative<Kind>(layers[static_cast<size_t>(next.front())].definition);
    return fits ? next.front() : -1;
  };

  std::map<int, Fusion> fusions;  // by the last layer that is fused
  std::set<int> absorbed;
  for (int i = 0; i < static_cast<int>(layers.size()); ++i) {
    const Layer& layer = layers[static_cast<size_t>(i)];
    if (!std::holds_alternative<Conv2d>(layer.definition)) continue;
    Fusion fusion{i, std::get<Conv2d>(layer.definition), layer.inputs};
    int last = i;
    const auto absorb = [&](int next) {
      absorbed.insert(last);
      last = next;
    };
    // If both inputs of an addition are convolutions, it is fused into the first one, the residual
    // branch, because the output of the other one must be complete before.
    if (const int add = only_reader(last, Add{}); add >= 0) {
      const std::vector<Tensor>& sides = layers[static_cast<size_t>(add)].inputs;
      if (sides.front() == Tensor{i} && sides.back() != Tensor{i} && !fusion.definition.residual &&
          !fusion.definition.relu) {
        absorb(add);
        fusion.definition.residual = true;
        fusion.inputs.push_back(sides.back());
      }
    }
    if (const int relu = only_reader(last, Relu{}); relu >= 0) {
      absorb(relu);
      fusion.definition.relu = true;
    }
    if (last != i) fusions.emplace(last, fusion);
  }

  Rewrite rewrite(graph);
  for (int i = 0; i < static_cast<int>(layers.size()); ++i) {
    if (absorbed.contains(i)) continue;
    if (const auto found = fusions.find(i); found != fusions.end()) {
      const Fusion& fusion = found->second;
      rewrite.emit(i, layers[static_cast<size_t>(fusion.conv)].name, fusion.definition,
                   fusion.inputs);
    } else {
      rewrite.copy(i);
    }
  }
  return std::move(rewrite).finish();
}

}  // namespace resrt
