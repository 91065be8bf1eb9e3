#include "resrt/graph.h"

#include "graph/infer_shape.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {

Tensor Graph::add(std::string name, Definition definition, std::vector<Tensor> inputs) {
  std::vector<Shape> input_shapes;
  for (const Tensor input : inputs) {
    if (input.layer < 0 || input.layer >= static_cast<int>(layers_.size())) {
      throw ModelError(concat("layer '", name, "' of ", name_, " takes the output of layer number ",
                              input.layer, ", which is not among the ", layers_.size(),
                              " layers before it"));
    }
    input_shapes.push_back(shape(input));
  }
  for (const Layer& layer : layers_) {
    if (layer.name == name) {
      throw ModelError(concat(name_, " has a layer named '", name, "' already; names are unique"));
    }
  }
  if (std::holds_alternative<Input>(definition) != layers_.empty()) {
    throw ModelError(concat("layer '", name, "' of ", name_,
                            ": a graph begins with its one Input, and has no other"));
  }
  Shape shape;
  try {
    shape = infer_shape(definition, input_shapes);
  } catch (const ModelError& error) {
    throw ModelError(concat("layer '", name, "' of ", name_, " cannot be: ", error.what()));
  }
  layers_.push_back({std::move(name), definition, std::move(inputs), shape});
  return {static_cast<int>(layers_.size()) - 1};
}

Tensor Graph::output() const {
  if (layers_.empty()) throw ModelError(concat("the graph of ", name_, " has no layers"));
  return {static_cast<int>(layers_.size()) - 1};
}

Shape Graph::input_shape() const {
  output();  // there is a first layer if there is a last
  return layers_.front().shape;
}

}  // namespace resrt
