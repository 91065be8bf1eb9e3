#include "resrt/graph.h"

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

Shape Graph::input_shape() const {
  output();  // throws if there are no layers
  return layers_.front().shape;
}

}  // namespace resrt
