#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "resrt/export.h"

namespace resrt {

// Upper limits for graphs, far beyond any useful network.
inline constexpr int kLargestSide = 1 << 16;   // height or width of an input, in pixels
inline constexpr int kMostChannels = 1 << 20;  // channels of an activation

// Layer definitions: the closed set of layers that networks are made of. Every lowering is one
// std::visit over Definition, so the compiler checks that it handles every layer.

// The network's input: one image, channels x height x width.
struct Input {
  int channels;
  int height;
  int width;
};

// A square 2-D convolution. Parameters: weight (out_channels, in_channels / groups, kernel, kernel)
// and, with `bias`, bias (out_channels).
struct Conv2d {
  int out_channels;
  int kernel;
  int stride = 1;
  int padding = 0;
  int groups = 1;
  bool bias = false;
  // Set by the fuse_add_relu pass: the layer adds its second input, then applies ReLU.
  bool residual = false;
  bool relu = false;
  // Set by the quantise pass: the bits of the weight's integers, which have a scale for each output
  // channel, or 0 if the weight is float. Its input is rounded by a Quantize.
  int weight_bits = 0;
};

// Batch normalisation with its running statistics. Parameters: weight, bias, running_mean,
// running_var, each (channels).
struct BatchNorm2d {
  float epsilon = 1e-5F;
};

struct Relu {};

// x * sigmoid(x), also called swish.
struct Silu {};

struct MaxPool2d {
  int kernel;
  int stride;
  int padding = 0;
};

struct AvgPool2d {
  int kernel;
  int stride;
  int padding = 0;
  // Whether a last window that the input fills only partly also produces an output.
  bool ceil_mode = false;
  // Whether the zeros of the padding count in the average. Cannot be combined with ceil_mode.
  bool count_include_pad = true;
};

// The mean over 3x3 windows with binomial weights, [1 2 1] / 4 along both axes, and a border that
// repeats the pixels inside the edge in reverse order (https://arxiv.org/abs/1904.11486). The input
// must have at least 2x2 pixels.
struct BlurPool2d {
  int stride = 2;
};

// Adds channels of zeros before and after the channels of its input.
struct PadChannels {
  int before;
  int after;
};

// The mean over height and width: (C, H, W) -> (C).
struct GlobalAvgPool2d {};

// The sum of two tensors of the same shape.
struct Add {};

// The split-attention block of ResNeSt (https://arxiv.org/abs/2004.08955). Its input is the output
// U of the grouped convolution, (radix * channels, H, W), one split after another. Its output is
// (channels, H, W):
//
//   gap  = mean over H, W of the sum of the splits
//   z    = fc2(relu(bn1(fc1(gap))))        1x1 convolutions with `cardinality` groups
//   a    = softmax of z over the radix     (radix 1: the sigmoid of z)
//   y    = sum over r of a[r] * U[r]
//
// For each of the `cardinality` groups, z holds radix x (channels / cardinality) logits.
// Parameters: fc1.weight (hidden, channels / cardinality, 1, 1), fc1.bias (with `fc1_bias`), bn1.*
// (with `batch_norm`), fc2.weight (radix * channels, hidden / cardinality, 1, 1), fc2.bias.
struct SplitAttention {
  int channels;
  int radix;
  int cardinality;
  int hidden;
  bool fc1_bias = true;
  bool batch_norm = true;
  float epsilon = 1e-5F;  // of the batch normalisation bn1
};

// Squeeze-and-excitation (https://arxiv.org/abs/1709.01507): x * sigmoid(fc2(relu(fc1(mean(x))))).
// Parameters: fc1.weight (hidden, channels, 1, 1), fc1.bias, fc2.weight (channels, hidden, 1, 1),
// fc2.bias.
struct SqueezeExcite {
  int hidden;
  bool silu = false;  // whether fc1 is followed by SiLU instead of ReLU
};

// Efficient channel attention (https://arxiv.org/abs/1910.03151): x * sigmoid(conv(mean(x))), where
// conv slides over the channels, padded with zeros so that their number stays the same.
// Parameters: conv.weight (1, 1, kernel).
struct EfficientChannelAttention {
  int kernel;  // an odd number
};

// Rounds to what an 8-bit integer can represent: scale * clamp(round(x / scale), 0, 255) or, if
// signed, scale * clamp(round(x / scale), -128, 127). Halves are rounded to the even integer.
struct Quantize {
  float scale;
  bool is_signed = false;
};

// A fully connected layer. Parameters: weight (out_features, in_features), bias (out_features).
struct Linear {
  int out_features;
};

using Definition = std::variant<Input, Conv2d, BatchNorm2d, Relu, Silu, MaxPool2d, AvgPool2d,
                                BlurPool2d, PadChannels, GlobalAvgPool2d, Add, SplitAttention,
                                SqueezeExcite, EfficientChannelAttention, Quantize, Linear>;

// Returns the name of the definition's type: "Conv2d".
RESRT_API const char* kind(const Definition& definition);

// Returns the definition with its fields: "Conv2d(64, kernel=3, stride=2)".
RESRT_API std::string to_string(const Definition& definition);

// The shape of one image's activation. The batch size is never part of a shape. A vector, which is
// what GlobalAvgPool2d and Linear return, has height = width = 1.
struct Shape {
  int channels = 0;
  int height = 1;
  int width = 1;
  // The number of values.
  int64_t size() const { return int64_t{channels} * height * width; }
  bool operator==(const Shape&) const = default;
};

// The output of a layer, as an index into Graph::layers().
struct Tensor {
  int layer = -1;
  bool operator==(const Tensor&) const = default;
};

// The name and shape of a parameter. Names are timm's ("layer1.0.conv2.fc1.weight").
struct Parameter {
  std::string name;
  std::vector<int64_t> shape;
  // Whether training changes it. False for the running statistics of a batch normalisation, which
  // do not count among a network's parameters.
  bool trainable = true;
};

struct Layer {
  std::string name;
  Definition definition;
  std::vector<Tensor> inputs;
  Shape shape;  // of the output
};

// An output of a network, and the name under which engines return it.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// The name of a network's output unless others are selected.
inline constexpr const char* kLogits = "logits";

// The cost of a layer or a network. Multiply-adds are those of convolutions and linear layers for
// one image. Published "FLOPs" are twice as many.
struct Cost {
  int64_t parameters = 0;
  int64_t multiply_adds = 0;
};

// A network: its layers in topological order. The first layer is the only Input, and the last layer
// returns the logits. A Graph is a value: copies are independent. As with a standard container,
// many threads may read it at once, but not while one of them changes it.
class RESRT_API Graph {
 public:
  explicit Graph(std::string name) : name_(std::move(name)) {}

  // Appends a layer and returns its output. The shape is inferred.
  // Throws ModelError, which names the layer, if the definition does not fit its inputs.
  Tensor add(std::string name, Definition definition, std::vector<Tensor> inputs = {});

  const std::string& name() const { return name_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const Layer& layer(Tensor tensor) const { return layers_.at(static_cast<size_t>(tensor.layer)); }
  Shape shape(Tensor tensor) const { return layer(tensor).shape; }

  // The last layer's output, the logits. Throws ModelError if the graph is empty.
  Tensor output() const;
  // What an engine of the network returns: the logits, unless set_outputs selected other tensors.
  std::vector<NamedTensor> outputs() const;
  // Selects the outputs, in this order. Throws ModelError if there are none, if two have the same
  // name, or if a tensor is the input or not of this graph. See select_outputs in models.h, which
  // finds them by their names.
  void set_outputs(std::vector<NamedTensor> outputs);
  // Whether a tensor is a vector, as GlobalAvgPool2d and Linear return it, not a feature map.
  bool is_vector(Tensor tensor) const;
  // The shape of one input image, and the number of values in the output for it.
  Shape input_shape() const;
  int classes() const { return shape(output()).channels; }

  // The parameters of one layer, and those of all layers in order.
  std::vector<Parameter> parameters(const Layer& layer) const;
  std::vector<Parameter> parameters() const;

  Cost cost(const Layer& layer) const;
  Cost cost() const;

  // Returns a table of the layers with their shapes and costs, followed by the totals.
  std::string table() const;

 private:
  std::string name_;
  std::vector<Layer> layers_;
  std::vector<NamedTensor> outputs_;  // empty: the logits
};

}  // namespace resrt
