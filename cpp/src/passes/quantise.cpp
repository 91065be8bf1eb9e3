#include "passes/quantise.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "passes/rewrite.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

constexpr float kUnsignedSteps = 255;
constexpr float kSignedSteps = 127;

// Finds the tensors that are rounded.
class Placement {
 public:
  Placement(const Graph& graph, const std::set<std::string>& keep, bool round_branches)
      : graph_(graph), keep_(keep), round_branches_(round_branches), readers_(consumers(graph)) {
    check_keep();
    for (const Layer& layer : graph.layers()) {
      if (rounds_input(layer)) round(layer.inputs.front());
    }
    for (size_t i = 0; i < graph.layers().size(); ++i) round_addition(static_cast<int>(i));
  }

  bool rounds_input(const Layer& layer) const {
    if (!std::holds_alternative<Conv2d>(layer.definition) || keep_.contains(layer.name)) {
      return false;
    }
    return is_feature_map(layer.inputs.front());
  }

  const std::set<int>& tensors() const { return tensors_; }

 private:
  void check_keep() const {
    for (const std::string& name : keep_) {
      const auto& layers = graph_.layers();
      const auto found = std::find_if(layers.begin(), layers.end(),
                                      [&](const Layer& layer) { return layer.name == name; });
      if (found == layers.end() || !(std::holds_alternative<Conv2d>(found->definition) ||
                                     std::holds_alternative<Add>(found->definition))) {
        throw InputError(concat("the calibration keeps '", shown(name), "' in floating point, but ",
                                graph_.name(),
                                " has no convolution or addition of that name; remove it, or "
                                "calibrate the network again"));
      }
    }
  }

  bool is_feature_map(Tensor tensor) const {
    const Shape shape = graph_.shape(tensor);
    return shape.height > 1 || shape.width > 1;
  }

  void round(Tensor tensor) {
    const Layer* maker = &graph_.layer(tensor);
    while (std::holds_alternative<MaxPool2d>(maker->definition) ||
           std::holds_alternative<PadChannels>(maker->definition)) {
      tensor = maker->inputs.front();
      maker = &graph_.layer(tensor);
    }
    tensors_.insert(tensor.layer);
  }

  bool is_rounded_convolution(Tensor tensor) const { return rounds_input(graph_.layer(tensor)); }

  void round_addition(int index) {
    const Layer& layer = graph_.layers()[static_cast<size_t>(index)];
    if (!std::holds_alternative<Add>(layer.definition) || keep_.contains(layer.name) ||
        !is_feature_map({index})) {
      return;
    }
    const Tensor branch = layer.inputs.front();
    // Without a convolution to fuse with, the addition gains nothing from a rounded branch.
    const bool has_convolution = is_rounded_convolution(branch);
    if (round_branches_ && has_convolution) round(branch);
    round(layer.inputs.back());
    if (!has_convolution) return;
    const int sum = after_relu(index);
    const std::vector<int>& next = readers_[static_cast<size_t>(sum)];
    const bool is_pooled = std::all_of(next.begin(), next.end(),
                                       [&](int reader) { return is_a<GlobalAvgPool2d>(reader); });
    if (is_pooled) round({sum});
  }

  // Returns the ReLU that is the only reader of a layer, or the layer itself.
  int after_relu(int index) const {
    const std::vector<int>& next = readers_[static_cast<size_t>(index)];
    return next.size() == 1 && is_a<Relu>(next.front()) ? next.front() : index;
  }

  // Whether a reader is a layer of this kind.
  template <class Kind>
  bool is_a(int reader) const {
    return reader != kCaller &&
           std::holds_alternative<Kind>(graph_.layers()[static_cast<size_t>(reader)].definition);
  }

  const Graph& graph_;
  const std::set<std::string>& keep_;
  bool round_branches_;
  std::vector<std::vector<int>> readers_;
  std::set<int> tensors_;
};

// Whether a tensor has no negative values, as after ReLU. Means and maxima of such values, and
// their products with the weights of an attention, which are positive, have none either.
bool is_non_negative(const Graph& graph, Tensor tensor) {
  const Layer& layer = graph.layer(tensor);
  const Definition& definition = layer.definition;
  if (std::holds_alternative<Relu>(definition)) return true;
  if (const auto* conv = std::get_if<Conv2d>(&definition)) return conv->relu;
  const bool keeps_sign = std::holds_alternative<MaxPool2d>(definition) ||
                          std::holds_alternative<AvgPool2d>(definition) ||
                          std::holds_alternative<BlurPool2d>(definition) ||
                          std::holds_alternative<PadChannels>(definition) ||
                          std::holds_alternative<SplitAttention>(definition) ||
                          std::holds_alternative<SqueezeExcite>(definition) ||
                          std::holds_alternative<EfficientChannelAttention>(definition);
  return keeps_sign && is_non_negative(graph, layer.inputs.front());
}

Quantize to_quantize(const std::string& name, const Range& range, bool is_signed) {
  if (!std::isfinite(range.low) || !std::isfinite(range.high) || range.low > range.high) {
    throw InputError(concat("the calibration has an invalid range for '", name, "', from ",
                            range.low, " to ", range.high,
                            "; a range is two finite numbers, the lower one first"));
  }
  const float most = is_signed ? std::max(-range.low, range.high) : range.high;
  const float scale = most / (is_signed ? kSignedSteps : kUnsignedSteps);
  // A tensor that is always 0, such as behind channels that training switched off, is representable
  // with any scale.
  return {.scale = std::isnormal(scale) && scale > 0 ? scale : 1.0F, .is_signed = is_signed};
}

}  // namespace

std::vector<int> quantised_tensors(const Graph& graph, const std::set<std::string>& keep,
                                   bool round_branches) {
  const Placement placement(graph, keep, round_branches);
  return {placement.tensors().begin(), placement.tensors().end()};
}

Graph quantise(const Graph& graph, const Calibration& calibration, const QuantiseOptions& options) {
  const Placement placement(graph, calibration.keep, options.round_branches);
  Rewrite rewrite(graph);
  for (int i = 0; i < static_cast<int>(graph.layers().size()); ++i) {
    const Layer& layer = graph.layers()[static_cast<size_t>(i)];
    if (placement.rounds_input(layer)) {
      Conv2d conv = std::get<Conv2d>(layer.definition);
      conv.weight_bits = options.weight_bits;
      rewrite.emit(i, layer.name, conv, layer.inputs);
    } else {
      rewrite.copy(i);
    }
    if (!placement.tensors().contains(i)) continue;
    const auto range = calibration.ranges.find(layer.name);
    if (range == calibration.ranges.end()) {
      throw InputError(concat("the calibration has no range for '", layer.name, "' of ",
                              graph.name(), "; calibrate the network again"));
    }
    const bool is_signed = !is_non_negative(graph, {i});
    rewrite.emit(i, layer.name + ".quantize", to_quantize(layer.name, range->second, is_signed),
                 {Tensor{i}});
  }
  return std::move(rewrite).finish();
}

QuantisedWeight quantise_weight(const Array& weight, int bits) {
  const auto most = static_cast<float>((1 << (bits - 1)) - 1);
  const auto channels = static_cast<size_t>(weight.shape.front());
  const size_t per_channel = weight.size() / channels;
  auto integers = std::make_shared<std::vector<int8_t>>(weight.size());
  auto [scales, out] = make_array({weight.shape.front()});
  for (size_t c = 0; c < channels; ++c) {
    const float* const values = weight.data.get() + c * per_channel;
    float largest = 0;
    for (size_t i = 0; i < per_channel; ++i) largest = std::max(largest, std::abs(values[i]));
    const float scale = largest / most;
    out[c] = std::isnormal(scale) ? scale : 1.0F;
    for (size_t i = 0; i < per_channel; ++i) {
      const float integer = std::clamp(std::nearbyint(values[i] / out[c]), -most, most);
      (*integers)[c * per_channel + i] = static_cast<int8_t>(integer);
    }
  }
  return {std::move(integers), std::move(scales)};
}

}  // namespace resrt
