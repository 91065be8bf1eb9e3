#include "backends/tensorrt/lower.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "backends/tensorrt/flavour.h"
#include "graph/binomial_kernel.h"
#include "graph/trailing_padding.h"
#include "passes/quantise.h"
#include "passes/split_attention.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::ElementWiseOperation;
using nvinfer1::ITensor;

Dims dims(std::initializer_list<int64_t> sizes) {
  Dims result{};
  result.nbDims = static_cast<int32_t>(sizes.size());
  std::copy(sizes.begin(), sizes.end(), result.d);
  return result;
}

Dims square(int size) {
  return dims({size, size});
}

std::string text(const Dims& shape) {
  return shape_text({shape.d, shape.d + std::max(0, shape.nbDims)});
}

bool same(const Dims& left, const Dims& right) {
  return left.nbDims == right.nbDims && std::equal(left.d, left.d + left.nbDims, right.d);
}

// A block-diagonal convolution: its weights, (out_channels, in_channels / groups, kernel, kernel).
struct Grouped {
  Array weights;
  int groups;
};

// Merges every `factor` groups of a convolution into one, with zeros between them.
Grouped merge_groups(const Array& weights, int groups, int factor) {
  const int64_t outputs = weights.shape[0];
  const int64_t inputs = weights.shape[1];  // of a group
  const int64_t window = weights.shape[2] * weights.shape[3];
  const int64_t group_outputs = outputs / groups;
  auto [merged, out] = make_array({outputs, inputs * factor, weights.shape[2], weights.shape[3]});
  std::fill_n(out, merged.size(), 0.0F);
  for (int64_t output = 0; output < outputs; ++output) {
    const int64_t place = output / group_outputs % factor;
    std::copy_n(weights.data.get() + output * inputs * window, inputs * window,
                out + (output * factor + place) * inputs * window);
  }
  return {merged, groups / factor};
}

// Returns part `index` of `count` along the first axis.
Array part_of(const Array& array, int index, int count) {
  std::vector<int64_t> shape = array.shape;
  shape.front() /= count;
  auto [part, out] = make_array(shape);
  const auto size = static_cast<int64_t>(part.size());
  std::copy_n(array.data.get() + index * size, size, out);
  return part;
}

// Returns a 1x1 convolution's weights as those of a 2x2 convolution over the pixels that a 2x2
// average pooling would average.
Array spread_over_window(const Array& weights) {
  auto [spread, out] = make_array({weights.shape[0], weights.shape[1], 2, 2});
  for (size_t i = 0; i < spread.size(); ++i) out[i] = weights.data.get()[i / 4] / 4;
  return spread;
}

class Lowering {
 public:
  Lowering(const Network& network, Precision precision, nvinfer1::INetworkDefinition& target,
           Constants& constants, const Logger& logger,
           nvinfer1::IPluginCreatorV3One* split_attention, const LoweringChoices& choices)
      : graph_(network.graph),
        weights_(network.weights),
        type_(to_type(precision)),
        eight_bit_type_(precision == Precision::fp8 ? DataType::kFP8 : DataType::kINT8),
        target_(target),
        constants_(constants),
        logger_(logger),
        split_attention_(split_attention),
        choices_(choices),
        users_(graph_.layers().size()) {
    const std::vector<Layer>& layers = graph_.layers();
    for (size_t i = 0; i < layers.size(); ++i) {
      for (const Tensor tensor : layers[i].inputs) {
        users_[static_cast<size_t>(tensor.layer)].push_back(static_cast<int>(i));
      }
    }
  }

  void run() {
    target_.setName(graph_.name().c_str());
    for (const Layer& layer : graph_.layers()) {
      mark_ = logger_.mark();
      ITensor& output =
          std::visit([&](const auto& definition) -> ITensor& { return lower(layer, definition); },
                     layer.definition);
      if (!has_another_shape_) require_shape(layer, output);
      has_another_shape_ = false;
      values_.push_back(&output);
    }
    mark_output();
  }

 private:
  // Names a layer that was added to the network: "layer1.0.conv1", or "layer1.0.conv2.mean" for one
  // of several layers of a definition.
  template <class Made>
  Made& named(const std::string& name, Made* made) const {
    if (made == nullptr) refuse(name, logger_.errors_since(mark_));
    made->setName(name.c_str());
    return *made;
  }

  [[noreturn]] void refuse(const std::string& name, const std::string& why) const {
    throw BackendError(concat(kProduct, " cannot build layer '", name, "' of ", graph_.name(), ": ",
                              why, "; change the layer or use another backend"));
  }

  // TensorRT infers shapes by its own rules, and reports most errors only by an invalid shape.
  void require_shape(const Layer& layer, const ITensor& output) const {
    const Dims expected = dims({-1, layer.shape.channels, layer.shape.height, layer.shape.width});
    const Dims found = output.getDimensions();
    if (found.nbDims < 0) refuse(layer.name, logger_.errors_since(mark_));
    if (!same(found, expected)) {
      refuse(layer.name,
             concat("expected an output of shape ", text(expected), ", got ", text(found)));
    }
  }

  void mark_output() {
    auto& flat = named("logits.flat", target_.addShuffle(*values_.back()));
    flat.setReshapeDimensions(dims({0, graph_.classes()}));  // 0: as it is
    ITensor& logits = mark_non_finite(cast("logits.cast", *flat.getOutput(0), DataType::kFLOAT));
    logits.setName(kLogits);
    target_.markOutput(logits);
  }

  // Returns the logits, but NaN for each image that has a value that is NaN or infinite, because
  // TensorRT's ReLU replaces NaN by 0. Such a value makes the mean of its image NaN or infinite, as
  // only values above 1e35 would otherwise. TensorRT may simplify `x - x` or `0 * x`, but not this
  // comparison: finite means can be on either side of the bound, and NaN is below no bound.
  ITensor& mark_non_finite(ITensor& logits) {
    constexpr uint32_t channels_and_height = 1U << 1U | 1U << 2U;
    constexpr uint32_t width = 1U << 3U;
    // Rows first, because a single sum per image would occupy few of the GPU's multiprocessors.
    ITensor& rows = reduce_to_mean("images.row_means", *images_, width);
    ITensor& mean = reduce_to_mean("images.mean", rows, channels_and_height);
    auto& flat = named("images.mean.flat", target_.addShuffle(mean));
    flat.setReshapeDimensions(dims({0, 1}));
    ITensor& magnitude =
        *named("images.mean.magnitude",
               target_.addUnary(*flat.getOutput(0), nvinfer1::UnaryOperation::kABS))
             .getOutput(0);
    ITensor& bound = scalar("images.mean.bound", 1e38F);
    ITensor& is_finite =
        elementwise("images.mean.is_finite", magnitude, bound, ElementWiseOperation::kLESS);
    ITensor& nan = scalar("logits.nan", std::numeric_limits<float>::quiet_NaN());
    return *named("logits.or_nan", target_.addSelect(is_finite, logits, nan)).getOutput(0);
  }

  // Returns a float32 constant of shape (1, 1).
  ITensor& scalar(const std::string& name, float value) {
    auto [array, out] = make_array({1, 1});
    *out = value;
    return *named(name,
                  target_.addConstant(dims({1, 1}), constants_.add(name, array, DataType::kFLOAT)))
                .getOutput(0);
  }

  ITensor& reduce_to_mean(const std::string& name, ITensor& x, uint32_t axes) const {
    constexpr bool keep_dimensions = true;
    return *named(name,
                  target_.addReduce(x, nvinfer1::ReduceOperation::kAVG, axes, keep_dimensions))
                .getOutput(0);
  }

  // Returns the only layer that uses the output of the layer that is being lowered, or null.
  const Layer* only_user() const { return only_user(values_.size()); }
  const Layer* only_user(size_t layer) const {
    if (users_[layer].size() != 1) return nullptr;
    return &graph_.layers()[static_cast<size_t>(users_[layer].front())];
  }

  // Returns the number of parts in which the output of a layer is computed, see
  // LoweringChoices::split.
  int parts_of(size_t layer) const {
    const auto* conv = std::get_if<Conv2d>(&graph_.layers()[layer].definition);
    const Layer* user = only_user(layer);
    if (!choices_.split || conv == nullptr || conv->residual || user == nullptr) return 1;
    if (const auto* block = std::get_if<SplitAttention>(&user->definition)) {
      return split_attention_ == nullptr ? block->radix : 1;
    }
    if (const auto* next = std::get_if<Conv2d>(&user->definition)) {
      const int parts = parts_of(static_cast<size_t>(users_[layer].front()));
      return next->groups % parts == 0 && conv->groups == 1 ? parts : 1;
    }
    return 1;
  }

  ITensor& value(Tensor tensor) const { return *values_[static_cast<size_t>(tensor.layer)]; }
  ITensor& input(const Layer& layer) const { return value(layer.inputs.front()); }

  nvinfer1::Weights constant(const std::string& name, const Array& array) {
    return constants_.add(name, array, type_);
  }
  nvinfer1::Weights parameter(const std::string& name) { return constant(name, weights_.at(name)); }

  ITensor& cast(const std::string& name, ITensor& x, DataType type) {
    if (x.getType() == type) return x;
    return *named(name, target_.addCast(x, type)).getOutput(0);
  }

  ITensor& activation(const std::string& name, ITensor& x, nvinfer1::ActivationType type) {
    return *named(name, target_.addActivation(x, type)).getOutput(0);
  }
  ITensor& relu(const std::string& name, ITensor& x) {
    return activation(name, x, nvinfer1::ActivationType::kRELU);
  }
  ITensor& silu(const std::string& name, ITensor& x) {
    return multiply(name, x, sigmoid(name + ".sigmoid", x));
  }
  ITensor& sigmoid(const std::string& name, ITensor& x) {
    return activation(name, x, nvinfer1::ActivationType::kSIGMOID);
  }

  ITensor& elementwise(const std::string& name, ITensor& x, ITensor& y, ElementWiseOperation op) {
    return *named(name, target_.addElementWise(x, y, op)).getOutput(0);
  }
  ITensor& add(const std::string& name, ITensor& x, ITensor& y) {
    return elementwise(name, x, y, ElementWiseOperation::kSUM);
  }
  ITensor& multiply(const std::string& name, ITensor& x, ITensor& y) {
    return elementwise(name, x, y, ElementWiseOperation::kPROD);
  }

  // Returns the mean over height and width, (N, C, 1, 1).
  ITensor& mean(const std::string& name, ITensor& x) {
    constexpr int window = 7;
    const Dims shape = x.getDimensions();
    ITensor* values = &x;
    if (choices_.windows && shape.d[2] > window && shape.d[2] % window == 0 &&
        shape.d[3] % window == 0) {
      auto& pool = named(name + ".windows",
                         target_.addPoolingNd(x, nvinfer1::PoolingType::kAVERAGE, square(window)));
      pool.setStrideNd(square(window));
      values = pool.getOutput(0);
    }
    ITensor& wide = cast(name + ".cast", *values, DataType::kFLOAT);
    constexpr uint32_t height_and_width = 1U << 2U | 1U << 3U;
    return cast(name + ".cast_back", reduce_to_mean(name, wide, height_and_width), type_);
  }

  float largest_8_bit() const {
    constexpr float largest_e4m3 = 448;
    return eight_bit_type_ == DataType::kFP8 ? largest_e4m3 : 127;
  }

  // Returns a tensor rounded to the 8-bit type, which TensorRT fuses with the layers before and
  // after. With a scale for each output channel of a weight, `scale` is a vector.
  ITensor& round(const std::string& name, ITensor& x, const Array& scale) {
    Dims shape{};
    shape.nbDims = static_cast<int32_t>(scale.shape.size());
    std::copy(scale.shape.begin(), scale.shape.end(), shape.d);
    // In 16 bits, the scales of small weights would not be normal numbers.
    ITensor& factor =
        *named(name + ".scale",
               target_.addConstant(shape, constants_.add(name, scale, DataType::kFLOAT)))
             .getOutput(0);
    auto& quantised = named(name + ".quantize", target_.addQuantize(x, factor, eight_bit_type_));
    auto& rounded =
        named(name + ".dequantize", target_.addDequantize(*quantised.getOutput(0), factor, type_));
    if (!scale.shape.empty()) {
      quantised.setAxis(0);
      rounded.setAxis(0);
    }
    return *rounded.getOutput(0);
  }

  ITensor& rounded_weight(const std::string& name, const Array& weight) {
    QuantisedWeight quantised = quantise_weight(weight, 8);
    if (eight_bit_type_ == DataType::kFP8) {
      auto [scales, out] = make_array(quantised.scales.shape);
      const float* const from = quantised.scales.data.get();
      for (size_t c = 0; c < scales.size(); ++c) out[c] = from[c] * 127 / largest_8_bit();
      quantised.scales = scales;
    }
    Dims shape{};
    shape.nbDims = static_cast<int32_t>(weight.shape.size());
    std::copy(weight.shape.begin(), weight.shape.end(), shape.d);
    ITensor& values = *named(name, target_.addConstant(shape, constant(name, weight))).getOutput(0);
    return round(name, values, quantised.scales);
  }

  // Returns a fully connected layer on a vector, (N, C, 1, 1), as a convolution, which has a bias.
  ITensor& fully_connected(const std::string& name, ITensor& x, const Array& weight,
                           const Array& bias) {
    if (choices_.matrix) return matrix_product(name, x, weight, bias);
    return *named(name, target_.addConvolutionNd(x, weight.shape.front(), square(1),
                                                 constant(name + ".weight", weight),
                                                 constant(name + ".bias", bias)))
                .getOutput(0);
  }

  // The same as a matrix product.
  ITensor& matrix_product(const std::string& name, ITensor& x, const Array& weight,
                          const Array& bias) {
    const int64_t outputs = weight.shape[0];
    const auto size = static_cast<int64_t>(weight.size());
    const auto reshape = [&](const char* what, ITensor& tensor, const Dims& shape) -> ITensor& {
      auto& made = named(name + what, target_.addShuffle(tensor));
      made.setReshapeDimensions(shape);
      return *made.getOutput(0);
    };
    const auto matrix = [&](const char* what, const Array& array, const Dims& shape) -> ITensor& {
      return *named(name + what, target_.addConstant(shape, constant(name + what, array)))
                  .getOutput(0);
    };
    ITensor& vectors = reshape(".vectors", x, dims({0, size / outputs}));
    ITensor& product = *named(name, target_.addMatrixMultiply(
                                        vectors, nvinfer1::MatrixOperation::kNONE,
                                        matrix(".weight", weight, dims({outputs, size / outputs})),
                                        nvinfer1::MatrixOperation::kTRANSPOSE))
                            .getOutput(0);
    ITensor& sum = add(name + ".add", product, matrix(".bias", bias, dims({1, outputs})));
    return reshape(".pixels", sum, dims({0, outputs, 1, 1}));
  }

  // Returns `count` channels, starting with `first`.
  ITensor& channels(const std::string& name, ITensor& x, int64_t first, int64_t count) {
    auto& slice = named(name, target_.addSlice(x, dims({first}), dims({count}), dims({1})));
    slice.setAxes(dims({1}));
    return *slice.getOutput(0);
  }

  ITensor& lower(const Layer& layer, const Input& input) {
    images_ = target_.addInput(kImages, DataType::kFLOAT,
                               dims({-1, input.channels, input.height, input.width}));
    if (images_ == nullptr) refuse(layer.name, logger_.errors_since(mark_));
    return cast(layer.name + ".cast", *images_, type_);
  }

  ITensor& lower(const Layer& layer, const Conv2d& conv) {
    const int parts = parts_of(values_.size());
    const Array weights = weights_.at(layer.name + ".weight");
    if (parts == 1) {
      if (pooled_.contains(layer.inputs.front().layer)) {
        Conv2d window = conv;
        window.kernel = 2;
        window.stride = 2;
        return convolve(layer.name, layer, window, input(layer),
                        {spread_over_window(weights), conv.groups}, bias_of(layer, conv));
      }
      return convolve(layer.name, layer, conv, input(layer),
                      merge_groups(weights, conv.groups, groups_to_merge(layer, conv)),
                      bias_of(layer, conv));
    }
    const std::vector<ITensor*> inputs = parts_[layer.inputs.front().layer];
    std::vector<ITensor*>& outputs = parts_[static_cast<int>(values_.size())];
    for (int part = 0; part < parts; ++part) {
      ITensor& x = inputs.empty() ? input(layer) : *inputs[static_cast<size_t>(part)];
      const int groups = inputs.empty() ? 1 : conv.groups / parts;
      std::optional<Array> bias = bias_of(layer, conv);
      if (bias) bias = part_of(*bias, part, parts);
      const Grouped grouped = {part_of(weights, part, parts), groups};
      outputs.push_back(
          &convolve(concat(layer.name, ".part", part), layer, conv, x, grouped, bias));
    }
    has_another_shape_ = true;
    return *outputs.front();
  }

  std::optional<Array> bias_of(const Layer& layer, const Conv2d& conv) const {
    if (!conv.bias) return std::nullopt;
    return weights_.at(layer.name + ".bias");
  }

  // Returns how many groups of a convolution become one.
  int groups_to_merge(const Layer& layer, const Conv2d& conv) const {
    constexpr int wanted = 64;  // channels of a group
    const Layer* user = only_user();
    if (user != nullptr && std::holds_alternative<SplitAttention>(user->definition)) {
      return choices_.dense ? conv.groups : 1;
    }
    const int width = graph_.shape(layer.inputs.front()).channels / conv.groups;
    int factor = 1;
    if (choices_.merged && width > 1) {
      while (factor * width < wanted && factor < conv.groups) {
        do ++factor;
        while (conv.groups % factor != 0);
      }
    }
    return factor;
  }

  // Adds a convolution, or a part of one.
  ITensor& convolve(const std::string& name, const Layer& layer, const Conv2d& conv, ITensor& x,
                    const Grouped& grouped, const std::optional<Array>& bias) {
    const nvinfer1::Weights no_bias{type_, nullptr, 0};
    const bool is_rounded = conv.weight_bits != 0;
    const std::string weight = name + ".weight";
    const nvinfer1::Weights given_as_tensor{type_, nullptr, 0};
    auto& made = named(name, target_.addConvolutionNd(
                                 x, grouped.weights.shape.front(), square(conv.kernel),
                                 is_rounded ? given_as_tensor : constant(weight, grouped.weights),
                                 bias ? constant(name + ".bias", *bias) : no_bias));
    if (is_rounded) made.setInput(1, rounded_weight(weight, grouped.weights));
    made.setStrideNd(square(conv.stride));
    made.setPaddingNd(square(conv.padding));
    made.setNbGroups(grouped.groups);
    ITensor* y = made.getOutput(0);
    if (conv.residual) y = &add(name + ".add", *y, value(layer.inputs.back()));
    return conv.relu ? relu(name + ".relu", *y) : *y;
  }

  ITensor& lower(const Layer& layer, const BatchNorm2d& norm) {
    const auto get = [&](const char* name) { return weights_.at(layer.name + name).data.get(); };
    const float* gamma = get(".weight");
    const float* beta = get(".bias");
    const float* mean = get(".running_mean");
    const float* variance = get(".running_var");
    auto [scale, scale_out] = make_array({layer.shape.channels});
    auto [shift, shift_out] = make_array({layer.shape.channels});
    for (size_t c = 0; c < scale.size(); ++c) {
      const double factor = gamma[c] / std::sqrt(double{variance[c]} + norm.epsilon);
      scale_out[c] = static_cast<float>(factor);
      shift_out[c] = static_cast<float>(beta[c] - factor * mean[c]);
    }
    constexpr int channel_axis = 1;
    const nvinfer1::Weights no_power{type_, nullptr, 0};
    return *named(layer.name, target_.addScaleNd(input(layer), nvinfer1::ScaleMode::kCHANNEL,
                                                 constant(layer.name + ".shift", shift),
                                                 constant(layer.name + ".scale", scale), no_power,
                                                 channel_axis))
                .getOutput(0);
  }

  ITensor& lower(const Layer& layer, const Relu&) { return relu(layer.name, input(layer)); }

  ITensor& lower(const Layer& layer, const Silu&) { return silu(layer.name, input(layer)); }

  ITensor& lower(const Layer& layer, const MaxPool2d& pool) {
    auto& made = named(layer.name, target_.addPoolingNd(input(layer), nvinfer1::PoolingType::kMAX,
                                                        square(pool.kernel)));
    made.setStrideNd(square(pool.stride));
    made.setPaddingNd(square(pool.padding));
    return *made.getOutput(0);
  }

  // Whether the only user of a pooling can compute it too, see LoweringChoices::pooled.
  bool is_part_of_convolution(const Layer& layer, const AvgPool2d& pool) const {
    const Layer* user = only_user();
    const auto* conv = user == nullptr ? nullptr : std::get_if<Conv2d>(&user->definition);
    const Shape in = graph_.shape(layer.inputs.front());
    return choices_.pooled && conv != nullptr && conv->kernel == 1 && conv->stride == 1 &&
           conv->padding == 0 && pool.kernel == 2 && pool.stride == 2 && pool.padding == 0 &&
           in.height % 2 == 0 && in.width % 2 == 0 &&
           user->inputs.front().layer == static_cast<int>(values_.size());
  }

  ITensor& lower(const Layer& layer, const AvgPool2d& pool) {
    if (pooled_.contains(layer.inputs.front().layer)) return input(layer);  // by the plugin
    if (is_part_of_convolution(layer, pool)) {
      pooled_.insert(static_cast<int>(values_.size()));
      has_another_shape_ = true;
      return input(layer);
    }
    const Shape in = graph_.shape(layer.inputs.front());
    auto& made = named(
        layer.name,
        target_.addPoolingNd(input(layer), nvinfer1::PoolingType::kAVERAGE, square(pool.kernel)));
    made.setStrideNd(square(pool.stride));
    made.setPrePadding(square(pool.padding));
    // TensorRT's own rounding up also adds windows that start beyond the end.
    made.setPostPadding(dims({trailing_padding(pool, in.height, layer.shape.height),
                              trailing_padding(pool, in.width, layer.shape.width)}));
    made.setAverageCountExcludesPadding(!pool.count_include_pad);
    return *made.getOutput(0);
  }

  ITensor& lower(const Layer& layer, const BlurPool2d& pool) {
    const std::string& name = layer.name;
    const Shape in = graph_.shape(layer.inputs.front());
    auto& padded = named(
        name + ".pad",
        target_.addSlice(input(layer), square(-1), dims({in.height + 2, in.width + 2}), square(1)));
    padded.setAxes(dims({2, 3}));
    padded.setMode(nvinfer1::SampleMode::kREFLECT);
    auto [kernels, out] = make_array({in.channels, 1, 3, 3});
    for (size_t i = 0; i < kernels.size(); ++i) out[i] = kBinomialKernel[i % 9];
    const nvinfer1::Weights no_bias{type_, nullptr, 0};
    auto& made =
        named(name, target_.addConvolutionNd(*padded.getOutput(0), in.channels, square(3),
                                             constant(name + ".weight", kernels), no_bias));
    made.setStrideNd(square(pool.stride));
    made.setNbGroups(in.channels);
    return *made.getOutput(0);
  }

  ITensor& lower(const Layer& layer, const PadChannels& pad) {
    const std::string& name = layer.name;
    auto [zero, out] = make_array({});
    *out = 0.0F;
    ITensor& fill =
        *named(name + ".zero", target_.addConstant(dims({}), constant(name + ".zero", zero)))
             .getOutput(0);
    auto& slice = named(name, target_.addSlice(input(layer), dims({-pad.before}),
                                               dims({layer.shape.channels}), dims({1})));
    slice.setAxes(dims({1}));
    slice.setMode(nvinfer1::SampleMode::kFILL);
    slice.setInput(4, fill);
    return *slice.getOutput(0);
  }

  ITensor& lower(const Layer& layer, const GlobalAvgPool2d&) {
    return mean(layer.name, input(layer));
  }

  ITensor& lower(const Layer& layer, const Add&) {
    return add(layer.name, value(layer.inputs.front()), value(layer.inputs.back()));
  }

  // Returns the means of all splits, which may be in parts.
  ITensor& means_of(const std::string& name, ITensor& x, const std::vector<ITensor*>& parts) {
    if (parts.empty()) return mean(name + ".mean", x);
    std::vector<ITensor*> means;
    for (ITensor* part : parts) {
      means.push_back(&mean(concat(name, ".mean", means.size()), *part));
    }
    auto& joined = named(name + ".means", target_.addConcatenation(
                                              means.data(), static_cast<int32_t>(means.size())));
    joined.setAxis(1);
    return *joined.getOutput(0);
  }

  ITensor& lower(const Layer& layer, const SplitAttention& block) {
    const std::string& name = layer.name;
    ITensor& x = input(layer);
    if (split_attention_ != nullptr) return plugin(layer, block);
    const AttentionProducts products = dense_products(block, name, weights_);
    const std::vector<ITensor*> parts = parts_[layer.inputs.front().layer];
    const auto split = [&](const char* what, ITensor& tensor, int r) -> ITensor& {
      if (&tensor == &x && !parts.empty()) return *parts[static_cast<size_t>(r)];
      return channels(concat(name, what, r), tensor, int64_t{r} * block.channels, block.channels);
    };
    ITensor& hidden = relu(name + ".relu", fully_connected(name + ".fc1", means_of(name, x, parts),
                                                           products.fc1, products.fc1_bias));
    ITensor& logits = fully_connected(name + ".fc2", hidden, products.fc2, products.fc2_bias);

    if (block.radix == 1) return multiply(name, x, sigmoid(name + ".sigmoid", logits));
    if (block.radix == 2) {
      ITensor& s = sigmoid(name + ".sigmoid", logits);
      ITensor& first = split(".split", x, 0);
      ITensor& second = split(".split", x, 1);
      ITensor& change =
          elementwise(name + ".difference", first, second, ElementWiseOperation::kSUB);
      return add(name, second, multiply(name + ".weigh", s, change));
    }
    ITensor& attention = softmax_over_radix(name, logits, block);
    ITensor* sum = nullptr;
    for (int r = 0; r < block.radix; ++r) {
      ITensor& weighted = multiply(concat(name, ".weigh", r), split(".split", x, r),
                                   split(".attention", attention, r));
      sum = sum == nullptr ? &weighted : &add(concat(name, ".sum", r), *sum, weighted);
    }
    return *sum;
  }

#if defined(TRT_MAJOR_RTX)
  ITensor& plugin(const Layer& layer, const SplitAttention&) {
    refuse(layer.name, "plugins are not supported");
  }
#else
  // Returns the plugin's number for the pooling that follows a block, which the plugin computes
  // too, or 0 if none does.
  int pooling_after(const SplitAttention& block) const {
    constexpr int pack = 8;  // channels that the plugin requires a multiple of
    const Layer* user = only_user();
    const auto* pool = user == nullptr ? nullptr : std::get_if<AvgPool2d>(&user->definition);
    if (pool == nullptr || pool->kernel != 3 || pool->stride != 2 || pool->padding != 1 ||
        pool->ceil_mode || block.channels % pack != 0) {
      return 0;
    }
    return pool->count_include_pad ? 1 : 2;
  }

  // Returns the block as one plugin layer with its parameters as inputs.
  ITensor& plugin(const Layer& layer, const SplitAttention& block) {
    require_folded(block, layer.name);
    const int pooling = pooling_after(block);
    if (pooling != 0) {
      pooled_.insert(static_cast<int>(values_.size()));
      has_another_shape_ = true;
    }
    const std::array values = {block.channels, block.radix, block.cardinality, block.hidden,
                               pooling};
    std::array<nvinfer1::PluginField, 5> fields;
    constexpr std::array names = {"channels", "radix", "cardinality", "hidden", "pooling"};
    for (size_t i = 0; i < fields.size(); ++i) {
      fields[i] = {names[i], &values[i], nvinfer1::PluginFieldType::kINT32, 1};
    }
    const nvinfer1::PluginFieldCollection collection = {static_cast<int32_t>(fields.size()),
                                                        fields.data()};
    const std::unique_ptr<nvinfer1::IPluginV3> made(split_attention_->createPlugin(
        layer.name.c_str(), &collection, nvinfer1::TensorRTPhase::kBUILD));
    if (made == nullptr) refuse(layer.name, "the plugin does not support its sizes");
    const auto parameter_input = [&](const char* name, const Array& array) {
      const std::string full = layer.name + name;
      Dims shape{};
      shape.nbDims = static_cast<int32_t>(array.shape.size());
      std::copy(array.shape.begin(), array.shape.end(), shape.d);
      return named(full, target_.addConstant(shape, constant(full, array))).getOutput(0);
    };
    const auto weight = [&](const char* name) {
      return parameter_input(name, weights_.at(layer.name + name));
    };
    auto [no_bias, zeros] = make_array({block.hidden});
    std::fill_n(zeros, block.hidden, 0.0F);
    const std::array<ITensor*, 5> inputs = {
        &input(layer), weight(".fc1.weight"),
        block.fc1_bias ? weight(".fc1.bias") : parameter_input(".fc1.bias", no_bias),
        weight(".fc2.weight"), weight(".fc2.bias")};
    return *named(layer.name,
                  target_.addPluginV3(inputs.data(), static_cast<int32_t>(inputs.size()), nullptr,
                                      0, *made))
                .getOutput(0);
  }
#endif

  // Returns the softmax of logits that are stored one split after another,
  // (N, radix * channels, 1, 1).
  ITensor& softmax_over_radix(const std::string& name, ITensor& logits,
                              const SplitAttention& block) {
    auto& by_split = named(name + ".by_split", target_.addShuffle(logits));
    by_split.setReshapeDimensions(dims({0, block.radix, block.channels, 1}));
    auto& softmax = named(name + ".softmax", target_.addSoftMax(*by_split.getOutput(0)));
    softmax.setAxes(1U << 1U);
    auto& flat = named(name + ".flat", target_.addShuffle(*softmax.getOutput(0)));
    flat.setReshapeDimensions(dims({0, int64_t{block.radix} * block.channels, 1, 1}));
    return *flat.getOutput(0);
  }

  ITensor& lower(const Layer& layer, const SqueezeExcite& block) {
    const std::string& name = layer.name;
    ITensor& x = input(layer);
    const auto fc = [&](const char* which, ITensor& vector) -> ITensor& {
      return fully_connected(name + which, vector, weights_.at(name + which + ".weight"),
                             weights_.at(name + which + ".bias"));
    };
    ITensor& z = fc(".fc1", mean(name + ".mean", x));
    ITensor& hidden = block.silu ? silu(name + ".silu", z) : relu(name + ".relu", z);
    return multiply(name, x, sigmoid(name + ".sigmoid", fc(".fc2", hidden)));
  }

  ITensor& lower(const Layer& layer, const Quantize& quantize) {
    // TensorRT has no unsigned type of 8 bits, and the largest value of a signed one is less.
    const float largest = quantize.scale * (quantize.is_signed ? 127.0F : 255.0F);
    auto [scale, out] = make_array({});
    *out = largest / largest_8_bit();
    return round(layer.name, input(layer), scale);
  }

  ITensor& lower(const Layer& layer, const EfficientChannelAttention& block) {
    const std::string& name = layer.name;
    ITensor& x = input(layer);
    // The channels become the height of an image.
    auto& means = named(name + ".channels", target_.addShuffle(mean(name + ".mean", x)));
    means.setReshapeDimensions(dims({0, 1, layer.shape.channels, 1}));
    const nvinfer1::Weights no_bias{type_, nullptr, 0};
    auto& conv = named(name + ".conv",
                       target_.addConvolutionNd(*means.getOutput(0), 1, dims({block.kernel, 1}),
                                                parameter(name + ".conv.weight"), no_bias));
    conv.setPaddingNd(dims({block.kernel / 2, 0}));
    auto& logits = named(name + ".logits", target_.addShuffle(*conv.getOutput(0)));
    logits.setReshapeDimensions(dims({0, layer.shape.channels, 1, 1}));
    return multiply(name, x, sigmoid(name + ".sigmoid", *logits.getOutput(0)));
  }

  ITensor& lower(const Layer& layer, const Linear&) {
    return fully_connected(layer.name, input(layer), weights_.at(layer.name + ".weight"),
                           weights_.at(layer.name + ".bias"));
  }

  const Graph& graph_;
  const Weights& weights_;
  DataType type_;
  DataType eight_bit_type_;  // of what is rounded
  nvinfer1::INetworkDefinition& target_;
  Constants& constants_;
  const Logger& logger_;
  nvinfer1::IPluginCreatorV3One* split_attention_;
  LoweringChoices choices_;
  std::vector<std::vector<int>> users_;         // by layer: those that use its output
  std::map<int, std::vector<ITensor*>> parts_;  // by layer: its output, if it is in parts
  std::set<int> pooled_;  // layers whose pooling is computed by the plugin or a convolution
  bool has_another_shape_ = false;  // whether the current layer's output is not as in the graph
  ITensor* images_ = nullptr;
  uint64_t mark_ = 0;             // the logger's mark before the current layer
  std::vector<ITensor*> values_;  // by layer: its output
};

}  // namespace

DataType to_type(Precision precision) {
  switch (precision) {
    case Precision::fp32:
    case Precision::tf32: return DataType::kFLOAT;  // tf32 is a way to multiply float32, not a type
    case Precision::bf16: return DataType::kBF16;
    case Precision::int8:  // which is the type of what is rounded; the rest is in fp16
    case Precision::fp8:
    case Precision::fp16: return DataType::kHALF;
    case Precision::automatic: break;
  }
  throw BackendError("the precision of a network must not be 'auto'");
}

LoweringChoices parse_lowering(const std::vector<std::string>& names) {
  LoweringChoices choices;
  const std::vector<std::pair<const char*, bool*>> known = {
      {"split", &choices.split},   {"dense", &choices.dense},     {"merged", &choices.merged},
      {"pooled", &choices.pooled}, {"windows", &choices.windows}, {"matrix", &choices.matrix}};
  for (const std::string& name : names) {
    const auto found = std::find_if(known.begin(), known.end(),
                                    [&](const auto& one) { return name == one.first; });
    if (found == known.end()) {
      std::vector<std::string> all;
      for (const auto& one : known) all.emplace_back(one.first);
      throw InputError(concat("there is no lowering '", name, "'; choose from ", join(all)));
    }
    *found->second = true;
  }
  if (choices.split && choices.dense) {
    throw InputError("the lowerings 'split' and 'dense' exclude each other; leave out one");
  }
  return choices;
}

void lower(const Network& network, Precision precision, nvinfer1::INetworkDefinition& target,
           Constants& constants, const Logger& logger,
           nvinfer1::IPluginCreatorV3One* split_attention, const LoweringChoices& choices) {
  Lowering(network, precision, target, constants, logger, split_attention, choices).run();
}

}  // namespace resrt::tensorrt
