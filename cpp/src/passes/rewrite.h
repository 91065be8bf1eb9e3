#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "resrt/graph.h"

namespace resrt {

// Stands for the caller of the network among the readers of a layer.
inline constexpr int kCaller = -1;

// Returns, for each layer, the layers that read its output, and kCaller if it is an output of the
// network.
inline std::vector<std::vector<int>> consumers(const Graph& graph) {
  const std::vector<Layer>& layers = graph.layers();
  std::vector<std::vector<int>> readers(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const Tensor input : layers[i].inputs) {
      readers[static_cast<size_t>(input.layer)].push_back(static_cast<int>(i));
    }
  }
  for (const NamedTensor& output : graph.outputs()) {
    readers[static_cast<size_t>(output.tensor.layer)].push_back(kCaller);
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

  Graph finish() && {
    std::vector<NamedTensor> outputs = source_.outputs();
    for (NamedTensor& output : outputs) {
      output.tensor = tensors_[static_cast<size_t>(output.tensor.layer)];
    }
    target_.set_outputs(std::move(outputs));
    return std::move(target_);
  }

 private:
  const Graph& source_;
  Graph target_;
  std::vector<Tensor> tensors_;
};

}  // namespace resrt
