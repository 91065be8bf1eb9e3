#include "graph/overloaded.h"
#include "resrt/graph.h"

namespace resrt {
namespace {

void add_batch_norm(std::vector<Parameter>& parameters, const std::string& name, int64_t channels) {
  parameters.push_back({name + ".weight", {channels}});
  parameters.push_back({name + ".bias", {channels}});
  parameters.push_back({name + ".running_mean", {channels}, false});
  parameters.push_back({name + ".running_var", {channels}, false});
}

}  // namespace

std::vector<Parameter> Graph::parameters(const Layer& layer) const {
  std::vector<Parameter> parameters;
  const std::string& name = layer.name;
  const int64_t in_channels = layer.inputs.empty() ? 0 : shape(layer.inputs.front()).channels;

  std::visit(
      Overloaded{
          [&](const Conv2d& conv) {
            parameters.push_back(
                {name + ".weight",
                 {conv.out_channels, in_channels / conv.groups, conv.kernel, conv.kernel}});
            if (conv.bias) parameters.push_back({name + ".bias", {conv.out_channels}});
          },
          [&](const BatchNorm2d&) { add_batch_norm(parameters, name, in_channels); },
          [&](const SplitAttention& block) {
            const int64_t hidden = block.hidden;
            const int64_t out = int64_t{block.radix} * block.channels;
            parameters.push_back(
                {name + ".fc1.weight", {hidden, block.channels / block.cardinality, 1, 1}});
            if (block.fc1_bias) parameters.push_back({name + ".fc1.bias", {hidden}});
            if (block.batch_norm) add_batch_norm(parameters, name + ".bn1", hidden);
            parameters.push_back({name + ".fc2.weight", {out, hidden / block.cardinality, 1, 1}});
            parameters.push_back({name + ".fc2.bias", {out}});
          },
          [&](const SqueezeExcite& block) {
            const int64_t hidden = block.hidden;
            parameters.push_back({name + ".fc1.weight", {hidden, in_channels, 1, 1}});
            parameters.push_back({name + ".fc1.bias", {hidden}});
            parameters.push_back({name + ".fc2.weight", {in_channels, hidden, 1, 1}});
            parameters.push_back({name + ".fc2.bias", {in_channels}});
          },
          [&](const EfficientChannelAttention& block) {
            parameters.push_back({name + ".conv.weight", {1, 1, block.kernel}});
          },
          [&](const Linear& linear) {
            parameters.push_back({name + ".weight", {linear.out_features, in_channels}});
            parameters.push_back({name + ".bias", {linear.out_features}});
          },
          [](const Input&) {},
          [](const Relu&) {},
          [](const Silu&) {},
          [](const MaxPool2d&) {},
          [](const AvgPool2d&) {},
          [](const BlurPool2d&) {},
          [](const PadChannels&) {},
          [](const GlobalAvgPool2d&) {},
          [](const Add&) {},
          [](const Quantize&) {},
      },
      layer.definition);
  return parameters;
}

std::vector<Parameter> Graph::parameters() const {
  std::vector<Parameter> all;
  for (const Layer& layer : layers_) {
    for (Parameter& parameter : parameters(layer)) all.push_back(std::move(parameter));
  }
  return all;
}

}  // namespace resrt
