#include "backends/openvino/profile.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <sstream>

#include <openvino/core/model.hpp>
#include <openvino/runtime/compiled_model.hpp>

#include "text.h"

namespace resrt::openvino {
namespace {

constexpr char kBeforeNumber = '#';

// Returns the layers of a step from the names of the nodes that OpenVINO fused in it.
std::vector<std::string> to_layers(const std::string& nodes) {
  std::vector<std::string> layers;
  std::istringstream names(nodes);
  for (std::string name; std::getline(names, name, ',');) {
    const std::string_view layer = layer_of_node(name);
    if (layer.empty()) continue;
    if (std::find(layers.begin(), layers.end(), layer) == layers.end()) layers.emplace_back(layer);
  }
  return layers;
}

// Returns the layers of each step of a compiled model by the step's name.
std::map<std::string, std::vector<std::string>> layers_of(const ov::CompiledModel& model) {
  std::map<std::string, std::vector<std::string>> layers;
  for (const auto& node : model.get_runtime_model()->get_ordered_ops()) {
    const auto& facts = node->get_rt_info();
    const auto nodes = facts.find("originalLayersNames");
    if (nodes == facts.end()) continue;
    layers.emplace(node->get_friendly_name(), to_layers(nodes->second.as<std::string>()));
  }
  return layers;
}

}  // namespace

std::string node_name(const std::string& layer, size_t number) {
  return concat(layer, kBeforeNumber, number);
}

std::string_view layer_of_node(std::string_view node) {
  const size_t end = node.rfind(kBeforeNumber);
  return end == std::string_view::npos ? std::string_view() : node.substr(0, end);
}

std::vector<StepTime> Counters::read(ov::InferRequest& request) {
  const std::vector<ov::ProfilingInfo> nodes = request.get_profiling_info();
  const auto layers = layers_of(request.get_compiled_model());
  const auto counted = static_cast<double>(inferences_ - previous_inferences_);
  previous_ms_.resize(nodes.size());
  std::vector<StepTime> steps;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const ov::ProfilingInfo& node = nodes[i];
    if (node.status != ov::ProfilingInfo::Status::EXECUTED) continue;
    const std::chrono::duration<double, std::milli> mean = node.real_time;
    const double total = mean.count() * static_cast<double>(inferences_);
    const auto found = layers.find(node.node_name);
    // The means are whole microseconds, so the difference may be slightly negative.
    steps.push_back({.name = node.node_name,
                     .type = node.node_type,
                     .layers = found == layers.end() ? std::vector<std::string>() : found->second,
                     .kernel = node.exec_type,
                     .ms = std::max(0.0, (total - previous_ms_[i]) / counted)});
    previous_ms_[i] = total;
  }
  previous_inferences_ = inferences_;
  return steps;
}

}  // namespace resrt::openvino
