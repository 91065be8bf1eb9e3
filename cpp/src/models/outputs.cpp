#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "resrt/error.h"
#include "resrt/models.h"
#include "resrt/weights.h"
#include "text.h"

namespace resrt {
namespace {

// The output of class activation maps, which is the name of its layer, and the parameter of that.
constexpr const char* kMaps = "cam";
constexpr const char* kMapsWeight = "cam.weight";

// Returns the last of the layers that belong to a stage. Residual networks name them
// "layer1.0.conv1", RegNets "s1.b1.conv1".
std::optional<Tensor> end_of_stage(const Graph& graph, int stage) {
  std::optional<Tensor> end;
  for (size_t i = 0; i < graph.layers().size(); ++i) {
    const std::string& name = graph.layers()[i].name;
    if (name.starts_with(concat("layer", stage, ".")) ||
        name.starts_with(concat("s", stage, "."))) {
      end = Tensor{static_cast<int>(i)};
    }
  }
  return end;
}

// The outputs that have names of their own, beside those of layers.
std::vector<NamedTensor> named_outputs(const Graph& graph) {
  std::vector<NamedTensor> found;
  for (int stage = 1; const auto end = end_of_stage(graph, stage); ++stage) {
    found.push_back({concat("layer", stage), *end});
  }
  const Layer& last = graph.layer(graph.output());
  if (std::holds_alternative<Linear>(last.definition)) {
    found.push_back({"features", last.inputs.front()});
  }
  found.push_back({kLogits, graph.output()});
  return found;
}

// Whether the network ends in GlobalAvgPool2d and Linear, so that it has class activation maps.
bool pools_before_classifying(const Graph& graph) {
  const Layer& last = graph.layer(graph.output());
  return std::holds_alternative<Linear>(last.definition) &&
         std::holds_alternative<GlobalAvgPool2d>(graph.layer(last.inputs.front()).definition);
}

bool has_layer(const Graph& graph, std::string_view name) {
  return std::any_of(graph.layers().begin(), graph.layers().end(),
                     [&](const Layer& layer) { return layer.name == name; });
}

// Returns the graph with a layer for the class activation maps: the classifier without its bias, at
// each position of what is pooled for it. The logits stay the last layer.
Graph with_maps(const Graph& graph) {
  const Layer& head = graph.layer(graph.output());
  const Tensor pooled = graph.layer(head.inputs.front()).inputs.front();
  Graph result(graph.name());
  for (const Layer& layer : graph.layers()) {
    if (&layer == &head) {
      result.add(kMaps, Conv2d{.out_channels = graph.classes(), .kernel = 1}, {pooled});
    }
    result.add(layer.name, layer.definition, layer.inputs);
  }
  return result;
}

}  // namespace

Graph select_outputs(const Graph& original, const std::vector<std::string>& names) {
  const bool has_maps = pools_before_classifying(original);
  const bool wants_maps = std::find(names.begin(), names.end(), kMaps) != names.end();
  const Graph graph =
      has_maps && wants_maps && !has_layer(original, kMaps) ? with_maps(original) : original;
  std::vector<NamedTensor> available = named_outputs(graph);
  const size_t named = available.size();
  for (size_t i = 0; i < graph.layers().size(); ++i) {  // set_outputs refuses the input
    available.push_back({graph.layers()[i].name, {static_cast<int>(i)}});
  }
  std::vector<NamedTensor> selected;
  for (const std::string& name : names) {
    const auto found = std::find_if(available.begin(), available.end(),
                                    [&](const NamedTensor& output) { return output.name == name; });
    if (found == available.end()) {
      std::vector<std::string> texts;
      for (size_t i = 0; i < named; ++i) texts.push_back(concat("'", available[i].name, "'"));
      if (has_maps) texts.push_back(concat("'", kMaps, "'"));
      throw ModelError(concat(graph.name(), " has no output '", name, "'; choose from ",
                              join(texts), ", or the name of a layer"));
    }
    selected.push_back(*found);
  }
  Graph result = graph;
  result.set_outputs(std::move(selected));
  return result;
}

Weights complete_weights(const Graph& graph, Weights weights) {
  if (weights.contains(kMapsWeight) || !pools_before_classifying(graph)) return weights;
  const Layer& head = graph.layer(graph.output());
  const auto found = weights.find(head.name + ".weight");
  for (const Layer& layer : graph.layers()) {
    if (layer.name != kMaps || found == weights.end()) continue;
    const Parameter expected = graph.parameters(layer).front();
    Array kernel = found->second;  // shares its memory
    kernel.shape.insert(kernel.shape.end(), {1, 1});
    if (kernel.shape == expected.shape) weights.emplace(kMapsWeight, std::move(kernel));
  }
  return weights;
}

}  // namespace resrt
