#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "resrt/graph.h"

namespace resrt {

// Returns, for each layer, the layers that read its output.
inline std::vector<std::vector<int>> consumers(const Graph& graph) {
  const std::vector<Layer>& layers = graph.layers();
  std::vector<std::vector<int>> readers(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const Tensor input : layers[i].inputs) {
      readers[static_cast<size_t>(input.layer)].push_back(static_cast<int>(i));
    }
  }
  return readers;
}

// Builds a new graph layer by layer, in the order of an old one, and maps the old graph's tensors
// to the new ones.
class Rewrite {
 public:
  explicit Rewrite(const Graph& source)
      : source_(source), target_(source.name()), tensors_(source.layers().size()) {}

  // Appends a layer that takes the place of layer `old`. `inputs` are tensors of the old graph.
  void emit(int old, const std::string& name, const Definition& definition,
            const std::vector<Tensor>& inputs) {
    std::vector<Tensor> mapped;
    for (const Tensor input : inputs) mapped.push_back(tensors_[static_cast<size_t>(input.layer)]);
    tensors_[static_cast<size_t>(old)] = target_.add(name, definition, std::move(mapped));
  }

  void copy(int old) {
    const Layer& layer = source_.layers()[static_cast<size_t>(old)];
    emit(old, layer.name, layer.definition, layer.inputs);
  }

  Graph finish() && { return std::move(target_); }

 private:
  const Graph& source_;
  Graph target_;
  std::vector<Tensor> tensors_;
};

}  // namespace resrt
