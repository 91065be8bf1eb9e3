#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "resrt/export.h"

namespace resrt {

// The bounds of what a graph describes, far beyond any network that is of use.
inline constexpr int kLargestSide = 1 << 16;   // of an input, in pixels
inline constexpr int kMostChannels = 1 << 20;  // of an activation

// Layer definitions: the closed set of layers that the networks consist of. Every lowering is one
// std::visit over Definition, which the compiler checks for completeness.

// The network's input: one image in planes, channels x height x width.
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
  // Set by the fusing pass, in the order of application: adds the layer's second input, then ReLU.
  bool residual = false;
  bool relu = false;
};

// Batch normalisation with its running statistics. Parameters: weight, bias, running_mean,
// running_var, each (channels).
struct BatchNorm2d {
  float epsilon = 1e-5F;
};

struct Relu {};

struct MaxPool2d {
  int kernel;
  int stride;
  int padding = 0;
};

struct AvgPool2d {
  int kernel;
  int stride;
  int padding = 0;
  // Whether a last window that the input fills only in part yields an output too.
  bool ceil_mode = false;
  // Whether zeros of the padding count in the average. Not together with ceil_mode.
  bool count_include_pad = true;
};

// The mean over height and width: (C, H, W) -> (C).
struct GlobalAvgPool2d {};

// The sum of two tensors of the same shape.
struct Add {};

// The split-attention block of ResNeSt (https://arxiv.org/abs/2004.08955), from the output U of the
// grouped convolution, (radix * channels, H, W) with the splits one after another, to
// (channels, H, W):
//
//   gap  = mean over H, W of the sum of the splits
//   z    = fc2(relu(bn1(fc1(gap))))        1x1 convolutions with `cardinality` groups
//   a    = softmax of z over the radix     (radix 1: the sigmoid of z)
//   y    = sum over r of a[r] * U[r]
//
// z holds, for each group of the cardinality, its radix x (channels / cardinality) logits.
// Parameters: fc1.weight (hidden, channels / cardinality, 1, 1), fc1.bias (with `fc1_bias`), bn1.*
// (with `batch_norm`), fc2.weight (radix * channels, hidden / cardinality, 1, 1), fc2.bias.
struct SplitAttention {
  int channels;
  int radix;
  int cardinality;
  int hidden;
  bool fc1_bias = true;
  bool batch_norm = true;
  float epsilon = 1e-5F;  // of bn1
};

// Squeeze-and-excitation (https://arxiv.org/abs/1709.01507): x * sigmoid(fc2(relu(fc1(mean(x))))).
// Parameters: fc1.weight (hidden, channels, 1, 1), fc1.bias, fc2.weight (channels, hidden, 1, 1),
// fc2.bias.
struct SqueezeExcite {
  int hidden;
};

// A fully connected layer. Parameters: weight (out_features, in_features), bias (out_features).
struct Linear {
  int out_features;
};

using Definition = std::variant<Input, Conv2d, BatchNorm2d, Relu, MaxPool2d, AvgPool2d,
                                GlobalAvgPool2d, Add, SplitAttention, SqueezeExcite, Linear>;

// The name of the definition's type: "Conv2d".
RESRT_API const char* kind(const Definition& definition);

// The definition with its fields, as one would write it: "Conv2d(64, kernel=3, stride=2)".
RESRT_API std::string to_string(const Definition& definition);

// The shape of one image's activation; the batch size is never part of a shape. A vector, as
// GlobalAvgPool2d and Linear yield it, has height = width = 1.
struct Shape {
  int channels = 0;
  int height = 1;
  int width = 1;
  // The number of its values.
  int64_t size() const { return int64_t{channels} * height * width; }
  bool operator==(const Shape&) const = default;
};

// The output of a layer, as an index into Graph::layers().
struct Tensor {
  int layer = -1;
  bool operator==(const Tensor&) const = default;
};

// The name and shape of a parameter, under timm's names ("layer1.0.conv2.fc1.weight").
struct Parameter {
  std::string name;
  std::vector<int64_t> shape;
  // Whether training changes it: the running statistics of a batch normalisation are not counted
  // among a network's parameters.
  bool trainable = true;
};

struct Layer {
  std::string name;
  Definition definition;
  std::vector<Tensor> inputs;
  Shape shape;  // of the output
};

// What a layer or a network costs. Multiply-adds are those of convolutions and linear layers, for
// one image; published "FLOPs" are twice these.
struct Cost {
  int64_t parameters = 0;
  int64_t multiply_adds = 0;
};

// A network: its layers in topological order. The first layer is the only Input, the last one's
// output is the network's. A Graph is a value: copies are independent. Like a standard container,
// it may be read by many threads at once, but not while one adds to it.
class RESRT_API Graph {
 public:
  explicit Graph(std::string name) : name_(std::move(name)) {}

  // Appends a layer and returns its output. The shape is inferred.
  // Throws ModelError, naming the layer, where the definition does not fit its inputs.
  Tensor add(std::string name, Definition definition, std::vector<Tensor> inputs = {});

  const std::string& name() const { return name_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const Layer& layer(Tensor tensor) const { return layers_.at(static_cast<size_t>(tensor.layer)); }
  Shape shape(Tensor tensor) const { return layer(tensor).shape; }

  // The last layer's output, which is the network's. Throws ModelError for an empty graph.
  Tensor output() const;
  // The shape of one input image, and of its output: the number of classes.
  Shape input_shape() const;
  int classes() const { return shape(output()).channels; }

  // The parameters of one layer, and of all layers in their order.
  std::vector<Parameter> parameters(const Layer& layer) const;
  std::vector<Parameter> parameters() const;

  Cost cost(const Layer& layer) const;
  Cost cost() const;

  // A table of the layers with their shapes and costs, and the totals.
  std::string table() const;

 private:
  std::string name_;
  std::vector<Layer> layers_;
};

}  // namespace resrt
