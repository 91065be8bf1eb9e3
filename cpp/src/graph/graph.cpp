#include "resrt/graph.h"

#include <algorithm>
#include <set>

#include "graph/infer_shape.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {

Tensor Graph::add(std::string name, Definition definition, std::vector<Tensor> inputs) {
  std::vector<Shape> input_shapes;
  for (const Tensor input : inputs) {
    if (input.layer < 0 || input.layer >= static_cast<int>(layers_.size())) {
      throw ModelError(concat("layer '", name, "' of ", name_, " reads layer number ", input.layer,
                              ", but only ", layers_.size(), " layers come before it"));
    }
    input_shapes.push_back(shape(input));
  }
  for (const Layer& layer : layers_) {
    if (layer.name == name) {
      throw ModelError(
          concat(name_, " already has a layer named '", name, "'; layer names must be unique"));
    }
  }
  if (std::holds_alternative<Input>(definition) != layers_.empty()) {
    throw ModelError(concat("invalid layer '", name, "' of ", name_,
                            ": the first layer of a graph must be an Input, and no other layer may "
                            "be one"));
  }
  Shape shape;
  try {
    shape = infer_shape(definition, input_shapes);
  } catch (const ModelError& error) {
    throw ModelError(concat("invalid layer '", name, "' of ", name_, ": ", error.what()));
  }
  layers_.push_back({std::move(name), definition, std::move(inputs), shape});
  return {static_cast<int>(layers_.size()) - 1};
}

Tensor Graph::output() const {
  if (layers_.empty()) throw ModelError(concat("the graph of ", name_, " has no layers"));
  return {static_cast<int>(layers_.size()) - 1};
}

std::vector<NamedTensor> Graph::outputs() const {
  return outputs_.empty() ? std::vector{NamedTensor{kLogits, output()}} : outputs_;
}

void Graph::set_outputs(std::vector<NamedTensor> outputs) {
  if (outputs.empty()) throw ModelError(concat("select at least one output of ", name_));
  std::set<std::string> names;
  for (const auto& [name, tensor] : outputs) {
    if (tensor.layer < 0 || tensor.layer >= static_cast<int>(layers_.size())) {
      throw ModelError(concat("the output '", name, "' is that of layer number ", tensor.layer,
                              ", but ", name_, " has only ", layers_.size(), " layers"));
    }
    // OpenVINO shares the memory of an input and an output that are the same tensor, so it would
    // write the content of the caller's output into the caller's images.
    if (std::holds_alternative<Input>(layer(tensor).definition)) {
      throw ModelError(concat("the output '", name, "' is the input of ", name_,
                              "; select layers that compute something"));
    }
    if (std::any_of(name.begin(), name.end(), [](char c) { return c >= 0 && c < ' '; })) {
      throw ModelError(concat("an output of ", name_, " has a control character in its name"));
    }
    if (!names.insert(name).second) {
      throw ModelError(concat("the output '", name, "' of ", name_, " is selected twice"));
    }
  }
  outputs_ = std::move(outputs);
}

bool Graph::is_vector(Tensor tensor) const {
  const Layer& made = layer(tensor);
  if (std::holds_alternative<GlobalAvgPool2d>(made.definition) ||
      std::holds_alternative<Linear>(made.definition)) {
    return true;
  }
  return !made.inputs.empty() && is_vector(made.inputs.front());
}

Shape Graph::input_shape() const {
  output();  // throws if there are no layers
  return layers_.front().shape;
}

}  // namespace resrt
