#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "resrt/error.h"
#include "resrt/models.h"
#include "text.h"

namespace resrt {
namespace {

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

}  // namespace

Graph select_outputs(const Graph& graph, const std::vector<std::string>& names) {
  std::vector<NamedTensor> available = named_outputs(graph);
  const size_t named = available.size();
  for (size_t i = 0; i < graph.layers().size(); ++i) {
    available.push_back({graph.layers()[i].name, {static_cast<int>(i)}});
  }
  std::vector<NamedTensor> selected;
  for (const std::string& name : names) {
    const auto found = std::find_if(available.begin(), available.end(),
                                    [&](const NamedTensor& output) { return output.name == name; });
    if (found == available.end()) {
      std::vector<std::string> texts;
      for (size_t i = 0; i < named; ++i) texts.push_back(concat("'", available[i].name, "'"));
      throw ModelError(concat(graph.name(), " has no output '", name, "'; choose from ",
                              join(texts), ", or the name of a layer"));
    }
    selected.push_back(*found);
  }
  Graph result = graph;
  result.set_outputs(std::move(selected));
  return result;
}

}  // namespace resrt
