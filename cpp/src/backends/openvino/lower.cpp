#include "backends/openvino/lower.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include <openvino/core/model.hpp>
#include <openvino/opsets/opset14.hpp>

#include "backends/openvino/profile.h"
#include "graph/binomial_kernel.h"
#include "graph/overloaded.h"
#include "graph/trailing_padding.h"
#include "passes/quantise.h"
#include "passes/rewrite.h"
#include "passes/split_attention.h"

namespace resrt::openvino {
namespace {

namespace op = ov::opset14;
using Output = ov::Output<ov::Node>;

// A tensor as consecutive parts along the channels. It is one part unless its only use is a split
// attention: then each split is computed as a separate tensor. This costs a convolution nothing,
// and avoids the pass over memory that splitting the tensor later would be.
using Parts = std::vector<Output>;

ov::Shape to_shape(const std::vector<int64_t>& shape) {
  return {shape.begin(), shape.end()};
}

ov::Strides strides(int stride) {
  return ov::Strides(2, static_cast<size_t>(stride));
}
ov::Shape window(int kernel) {
  return ov::Shape(2, static_cast<size_t>(kernel));
}
ov::Shape pads(int padding) {
  return ov::Shape(2, static_cast<size_t>(padding));
}

Output integers(const std::vector<int64_t>& values) {
  return op::Constant::create(ov::element::i64, ov::Shape{values.size()}, values);
}

// Returns an array as a constant that uses the array's memory and keeps it alive.
Output constant(const Array& array, const ov::Shape& shape) {
  return std::make_shared<op::Constant>(ov::element::f32, shape, array.data.get(),
                                        std::make_shared<std::shared_ptr<const float>>(array.data));
}

// Returns block `index` of `count` equal blocks of an array along its first axis.
Array rows(const Array& array, size_t index, size_t count) {
  Array block{array.shape, nullptr};
  block.shape.front() /= static_cast<int64_t>(count);
  block.data = std::shared_ptr<const float>(array.data, array.data.get() + index * block.size());
  return block;
}

class Lowering {
 public:
  explicit Lowering(const Network& network)
      : graph_(network.graph), weights_(network.weights), values_(graph_.layers().size()) {
    plan_parts();
  }

  std::shared_ptr<ov::Model> run() {
    for (size_t i = 0; i < graph_.layers().size(); ++i) {
      const Layer& layer = graph_.layers()[i];
      values_[i] = std::visit([&](const auto& definition) { return lower(layer, definition, i); },
                              layer.definition);
      name_nodes(layer.name, values_[i]);
    }
    ov::ResultVector results;
    for (const auto& [name, tensor] : graph_.outputs()) {
      const Output whole_value = whole(parts_of(tensor));
      const Output value = graph_.is_vector(tensor) ? flat(whole_value) : whole_value;
      name_nodes(graph_.layer(tensor).name, one(value));
      results.push_back(std::make_shared<op::Result>(value));
      results.back()->set_friendly_name(name);
    }
    return std::make_shared<ov::Model>(results, ov::ParameterVector{input_}, graph_.name());
  }

 private:
  // Names the nodes that were made for a layer after it.
  void name_nodes(const std::string& layer, const Parts& parts) {
    std::vector<ov::Node*> left;
    for (const Output& part : parts) left.push_back(part.get_node());
    while (!left.empty()) {
      ov::Node* const node = left.back();
      left.pop_back();
      if (!named_.insert(node).second) continue;
      node->set_friendly_name(node_name(layer, named_.size()));
      for (const Output& x : node->input_values()) left.push_back(x.get_node());
    }
  }

  // Decides, from the last layer to the first, how many parts each output has.
  void plan_parts() {
    const std::vector<Layer>& layers = graph_.layers();
    const auto readers = consumers(graph_);
    parts_.assign(layers.size(), 1);
    const auto ask_for_parts = [&](Tensor tensor, int parts) {
      const auto index = static_cast<size_t>(tensor.layer);
      const Definition& maker = layers[index].definition;
      const auto* conv = std::get_if<Conv2d>(&maker);
      const bool divides = conv != nullptr && !conv->residual &&
                           (conv->groups == 1 || conv->groups % parts == 0) &&
                           conv->out_channels % parts == 0;
      const bool passes =
          std::holds_alternative<AvgPool2d>(maker) || std::holds_alternative<Quantize>(maker);
      if (readers[index].size() == 1 && (divides || passes)) parts_[index] = parts;
    };
    for (size_t i = layers.size(); i-- > 0;) {
      const Layer& layer = layers[i];
      if (const auto* block = std::get_if<SplitAttention>(&layer.definition)) {
        // With cardinality greater than 1, the convolutions of the parts would be too narrow to be
        // fast.
        if (block->cardinality == 1) ask_for_parts(layer.inputs.front(), block->radix);
      } else if (parts_[i] > 1) {
        const auto* conv = std::get_if<Conv2d>(&layer.definition);
        if (conv == nullptr || conv->groups > 1) ask_for_parts(layer.inputs.front(), parts_[i]);
      }
    }
  }

  const Parts& parts_of(Tensor tensor) const { return values_[static_cast<size_t>(tensor.layer)]; }

  static Output whole(const Parts& parts) {
    return parts.size() == 1 ? parts.front() : std::make_shared<op::Concat>(parts, 1)->output(0);
  }

  Output input(const Layer& layer) const { return whole(parts_of(layer.inputs.front())); }

  // Returns the input in `count` parts. It is split here if it was not computed in parts.
  Parts input_parts(const Layer& layer, int count) const {
    const Parts& made = parts_of(layer.inputs.front());
    if (made.size() == static_cast<size_t>(count)) return made;
    return std::make_shared<op::Split>(whole(made), integers_scalar(1), static_cast<size_t>(count))
        ->outputs();
  }

  static Output integers_scalar(int64_t value) {
    return op::Constant::create(ov::element::i64, ov::Shape{}, {value});
  }

  const Array& parameter(const std::string& name) const { return weights_.at(name); }

  // Returns the weight of a convolution, (groups, out_channels / groups, ...) if it has several
  // groups. Integers are multiplied by their scales in the model, which OpenVINO does after the
  // convolution instead.
  static Output weight_of(const Array& weight, int groups, int bits) {
    ov::Shape shape = to_shape(weight.shape);
    if (groups > 1) {
      const auto group_count = static_cast<size_t>(groups);
      shape.front() /= group_count;
      shape.insert(shape.begin(), group_count);
    }
    if (bits == 0) return constant(weight, shape);
    const QuantisedWeight quantised = quantise_weight(weight, bits);
    const auto integers = std::make_shared<op::Constant>(
        ov::element::i8, shape, quantised.integers->data(),
        std::make_shared<std::shared_ptr<const std::vector<int8_t>>>(quantised.integers));
    std::fill(shape.end() - 3, shape.end(), 1);
    return multiply(std::make_shared<op::Convert>(integers, ov::element::f32),
                    constant(quantised.scales, shape));
  }

  // Returns a convolution with its bias, if there is one.
  static Output convolve(const Output& x, const Array& weight, const Array* bias, int groups = 1,
                         int stride = 1, int padding = 0, int weight_bits = 0) {
    const Output w = weight_of(weight, groups, weight_bits);
    Output y;
    if (groups == 1) {
      y = std::make_shared<op::Convolution>(x, w, strides(stride), to_difference(padding),
                                            to_difference(padding), strides(1));
    } else {
      y = std::make_shared<op::GroupConvolution>(x, w, strides(stride), to_difference(padding),
                                                 to_difference(padding), strides(1));
    }
    if (bias == nullptr) return y;
    return std::make_shared<op::Add>(y, constant(*bias, {1, bias->size(), 1, 1}));
  }

  static ov::CoordinateDiff to_difference(int padding) { return ov::CoordinateDiff(2, padding); }

  static Output relu(const Output& x) { return std::make_shared<op::Relu>(x); }
  static Output silu(const Output& x) { return std::make_shared<op::Swish>(x); }
  static Output sigmoid(const Output& x) { return std::make_shared<op::Sigmoid>(x); }
  static Output add(const Output& x, const Output& y) { return std::make_shared<op::Add>(x, y); }
  static Output multiply(const Output& x, const Output& y) {
    return std::make_shared<op::Multiply>(x, y);
  }
  static Output mean(const Output& x) {
    return std::make_shared<op::ReduceMean>(x, integers({2, 3}), true);
  }
  // Reshapes a vector from (N, C, 1, 1), the form between layers, to (N, C).
  static Output flat(const Output& x) {
    return std::make_shared<op::Reshape>(x, integers({0, -1}), true);
  }

  static Parts one(const Output& output) { return {output}; }

  Parts lower(const Layer&, const Input& definition, size_t) {
    input_ = std::make_shared<op::Parameter>(
        ov::element::f32,
        ov::PartialShape{-1, definition.channels, definition.height, definition.width});
    input_->output(0).set_names({"images"});
    return one(input_);
  }

  Parts lower(const Layer& layer, const Conv2d& conv, size_t index) {
    const Array& weight = parameter(layer.name + ".weight");
    const int count = parts_[index];
    const Parts x = conv.groups > 1 ? input_parts(layer, count)
                                    : Parts(static_cast<size_t>(count), input(layer));
    const int groups = conv.groups > 1 ? conv.groups / count : 1;
    Parts made;
    for (size_t part = 0; part < x.size(); ++part) {
      Array bias;
      if (conv.bias) bias = rows(parameter(layer.name + ".bias"), part, x.size());
      Output y = convolve(x[part], rows(weight, part, x.size()), conv.bias ? &bias : nullptr,
                          groups, conv.stride, conv.padding, conv.weight_bits);
      if (conv.residual) y = add(y, whole(parts_of(layer.inputs.back())));
      made.push_back(conv.relu ? relu(y) : y);
    }
    return made;
  }

  Parts lower(const Layer& layer, const BatchNorm2d& norm, size_t) {
    const auto vector = [&](const char* name) {
      const Array& array = parameter(layer.name + name);
      return constant(array, {array.size()});
    };
    return one(std::make_shared<op::BatchNormInference>(
        input(layer), vector(".weight"), vector(".bias"), vector(".running_mean"),
        vector(".running_var"), double{norm.epsilon}));
  }

  Parts lower(const Layer& layer, const Relu&, size_t) { return one(relu(input(layer))); }

  Parts lower(const Layer& layer, const Silu&, size_t) { return one(silu(input(layer))); }

  Parts lower(const Layer& layer, const MaxPool2d& pool, size_t) {
    return one(std::make_shared<op::MaxPool>(input(layer), strides(pool.stride), strides(1),
                                             pads(pool.padding), pads(pool.padding),
                                             window(pool.kernel)));
  }

  Parts lower(const Layer& layer, const AvgPool2d& pool, size_t index) {
    const Shape in = graph_.shape(layer.inputs.front());
    // OpenVINO's own rounding modes do not support windows that are larger than the input.
    const auto pad_end = [&](int size, int positions) {
      return static_cast<size_t>(trailing_padding(pool, size, positions));
    };
    const ov::Shape end = {pad_end(in.height, layer.shape.height),
                           pad_end(in.width, layer.shape.width)};
    Parts made;
    for (const Output& x : input_parts(layer, parts_[index])) {
      made.push_back(std::make_shared<op::AvgPool>(x, strides(pool.stride), pads(pool.padding), end,
                                                   window(pool.kernel), !pool.count_include_pad));
    }
    return made;
  }

  Parts lower(const Layer& layer, const BlurPool2d& pool, size_t) {
    const auto channels = static_cast<size_t>(layer.shape.channels);
    const Output border = integers({0, 0, 1, 1});
    const Output padded =
        std::make_shared<op::Pad>(input(layer), border, border, ov::op::PadMode::REFLECT);
    std::vector<float> kernels;
    for (size_t c = 0; c < channels; ++c) {
      kernels.insert(kernels.end(), kBinomialKernel.begin(), kBinomialKernel.end());
    }
    const Output weight =
        op::Constant::create(ov::element::f32, ov::Shape{channels, 1, 1, 3, 3}, kernels);
    return one(std::make_shared<op::GroupConvolution>(
        padded, weight, strides(pool.stride), to_difference(0), to_difference(0), strides(1)));
  }

  Parts lower(const Layer& layer, const PadChannels& pad, size_t) {
    return one(std::make_shared<op::Pad>(
        input(layer), integers({0, pad.before, 0, 0}), integers({0, pad.after, 0, 0}),
        op::Constant::create(ov::element::f32, ov::Shape{}, {0}), ov::op::PadMode::CONSTANT));
  }

  Parts lower(const Layer& layer, const GlobalAvgPool2d&, size_t) {
    return one(mean(input(layer)));
  }

  Parts lower(const Layer& layer, const Add&, size_t) {
    return one(add(whole(parts_of(layer.inputs.front())), whole(parts_of(layer.inputs.back()))));
  }

  Parts lower(const Layer& layer, const SplitAttention& block, size_t) {
    const Parts splits = input_parts(layer, block.radix);
    Output gap = mean(splits.front());
    for (size_t r = 1; r < splits.size(); ++r) gap = add(gap, mean(splits[r]));
    const AttentionProducts products = grouped_products(block, layer.name, weights_);
    const Output hidden = relu(convolve(gap, products.fc1, &products.fc1_bias, block.cardinality));

    if (block.radix <= 2) {
      const Output s =
          sigmoid(convolve(hidden, products.fc2, &products.fc2_bias, block.cardinality));
      if (block.radix == 1) return one(multiply(splits.front(), s));
      const Output change = std::make_shared<op::Subtract>(splits[0], splits[1]);
      return one(add(splits[1], multiply(s, change)));
    }
    const auto radix = static_cast<size_t>(block.radix);
    Parts logits;
    for (size_t r = 0; r < radix; ++r) {
      const Array bias = rows(products.fc2_bias, r, radix);
      logits.push_back(convolve(hidden, rows(products.fc2, r, radix), &bias, block.cardinality));
    }
    // The splits are concatenated along the height, which is 1 for each.
    const Output softmax =
        std::make_shared<op::Softmax>(std::make_shared<op::Concat>(logits, 2), 2);
    const Parts attention =
        std::make_shared<op::Split>(softmax, integers_scalar(2), radix)->outputs();
    Output y = multiply(splits[0], attention[0]);
    for (size_t r = 1; r < radix; ++r) y = add(y, multiply(splits[r], attention[r]));
    return one(y);
  }

  Parts lower(const Layer& layer, const SqueezeExcite& block, size_t) {
    const Output x = input(layer);
    const Array& fc1_bias = parameter(layer.name + ".fc1.bias");
    const Array& fc2_bias = parameter(layer.name + ".fc2.bias");
    const Output z = convolve(mean(x), parameter(layer.name + ".fc1.weight"), &fc1_bias);
    const Output hidden = block.silu ? silu(z) : relu(z);
    return one(
        multiply(x, sigmoid(convolve(hidden, parameter(layer.name + ".fc2.weight"), &fc2_bias))));
  }

  Parts lower(const Layer& layer, const EfficientChannelAttention& block, size_t) {
    const Output x = input(layer);
    // The channels become the height of an image.
    const Output means = std::make_shared<op::Reshape>(mean(x), integers({0, 1, -1, 1}), true);
    const auto kernel = static_cast<size_t>(block.kernel);
    const ov::CoordinateDiff padding = {block.kernel / 2, 0};
    const Output logits = std::make_shared<op::Convolution>(
        means, constant(parameter(layer.name + ".conv.weight"), {1, 1, kernel, 1}), strides(1),
        padding, padding, strides(1));
    return one(
        multiply(x, sigmoid(std::make_shared<op::Reshape>(logits, integers({0, -1, 1, 1}), true))));
  }

  Parts lower(const Layer& layer, const Quantize& quantize, size_t index) {
    const auto scalar = [](float value) {
      return op::Constant::create(ov::element::f32, ov::Shape{}, {value});
    };
    const Output low = scalar(quantize.is_signed ? -128 * quantize.scale : 0);
    const Output high = scalar((quantize.is_signed ? 127 : 255) * quantize.scale);
    Parts made;
    for (const Output& x : input_parts(layer, parts_[index])) {
      made.push_back(std::make_shared<op::FakeQuantize>(x, low, high, low, high, 256));
    }
    return made;
  }

  Parts lower(const Layer& layer, const Linear&, size_t) {
    const Array& weight = parameter(layer.name + ".weight");
    const Array& bias = parameter(layer.name + ".bias");
    const Output y = std::make_shared<op::MatMul>(
        flat(input(layer)), constant(weight, to_shape(weight.shape)), false, true);
    const Output logits = add(y, constant(bias, {1, bias.size()}));
    const auto features = static_cast<int64_t>(bias.size());
    return one(std::make_shared<op::Reshape>(logits, integers({0, features, 1, 1}), true));
  }

  const Graph& graph_;
  const Weights& weights_;
  std::vector<int> parts_;     // by layer: the number of parts of its output
  std::vector<Parts> values_;  // by layer: its output
  std::unordered_set<const ov::Node*> named_;
  std::shared_ptr<op::Parameter> input_;
};

}  // namespace

std::shared_ptr<ov::Model> lower(const Network& network) {
  return Lowering(network).run();
}

}  // namespace resrt::openvino
