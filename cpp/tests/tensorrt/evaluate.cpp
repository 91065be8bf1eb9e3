#include "evaluate.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <stdexcept>

namespace resrt::test {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::ILayer;
using nvinfer1::LayerType;

// Converts an fp16 or bf16 to double.
double to_double(uint16_t bits, int exponent_bits) {
  const int fraction_bits = 15 - exponent_bits;
  const int exponent = (bits & 0x7FFF) >> fraction_bits;
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, 1 - bias - fraction_bits)
                    : std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

std::vector<double> values(const nvinfer1::Weights& weights) {
  std::vector<double> result(static_cast<size_t>(weights.count));
  for (size_t i = 0; i < result.size(); ++i) {
    if (weights.type == DataType::kFLOAT) {
      result[i] = static_cast<const float*>(weights.values)[i];
    } else {
      result[i] = to_double(static_cast<const uint16_t*>(weights.values)[i],
                            weights.type == DataType::kHALF ? 5 : 8);
    }
  }
  return result;
}

int64_t volume(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

Value zeros(std::vector<int64_t> shape) {
  const auto size = static_cast<size_t>(volume(shape));
  return {std::move(shape), std::vector<double>(size)};
}

// Reads an element of a 4-dimensional value, or returns `outside` for a position in the padding.
double at(const Value& x, int64_t n, int64_t c, int64_t h, int64_t w, double outside) {
  if (h < 0 || h >= x.shape[2] || w < 0 || w >= x.shape[3]) return outside;
  return x.data[static_cast<size_t>(((n * x.shape[1] + c) * x.shape[2] + h) * x.shape[3] + w)];
}

// Calls `write(n, c, h, w)` for each element of a 4-dimensional value in order, and stores what it
// returns.
template <class Write>
void fill(Value& y, Write write) {
  size_t i = 0;
  for (int64_t n = 0; n < y.shape[0]; ++n)
    for (int64_t c = 0; c < y.shape[1]; ++c)
      for (int64_t h = 0; h < y.shape[2]; ++h)
        for (int64_t w = 0; w < y.shape[3]; ++w) y.data[i++] = write(n, c, h, w);
}

int64_t positions(int64_t size, int64_t before, int64_t after, int64_t window, int64_t stride) {
  return (size + before + after - window) / stride + 1;
}

Value convolve(const nvinfer1::IConvolutionLayer& layer, const Value& x) {
  const Dims kernel = layer.getKernelSizeNd();
  const Dims stride = layer.getStrideNd();
  const Dims pad = layer.getPaddingNd();
  const std::vector<double> weight = values(layer.getKernelWeights());
  const std::vector<double> bias = values(layer.getBiasWeights());
  const int64_t in_channels = x.shape[1] / layer.getNbGroups();
  const int64_t out_channels = layer.getNbOutputMaps() / layer.getNbGroups();
  Value y = zeros({x.shape[0], layer.getNbOutputMaps(),
                   positions(x.shape[2], pad.d[0], pad.d[0], kernel.d[0], stride.d[0]),
                   positions(x.shape[3], pad.d[1], pad.d[1], kernel.d[1], stride.d[1])});
  fill(y, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
    double sum = bias.empty() ? 0.0 : bias[static_cast<size_t>(c)];
    auto next = weight.begin() + c * in_channels * kernel.d[0] * kernel.d[1];
    for (int64_t i = 0; i < in_channels; ++i)
      for (int64_t k = 0; k < kernel.d[0]; ++k)
        for (int64_t l = 0; l < kernel.d[1]; ++l)
          sum += *next++ * at(x, n, c / out_channels * in_channels + i,
                              h * stride.d[0] - pad.d[0] + k, w * stride.d[1] - pad.d[1] + l, 0.0);
    return sum;
  });
  return y;
}

Value pool(const nvinfer1::IPoolingLayer& layer, const Value& x) {
  const Dims window = layer.getWindowSizeNd();
  const Dims stride = layer.getStrideNd();
  const Dims before = layer.getPrePadding();
  const Dims after = layer.getPostPadding();
  const bool largest = layer.getPoolingType() == nvinfer1::PoolingType::kMAX;
  const bool inside_only = layer.getAverageCountExcludesPadding();
  Value y = zeros({x.shape[0], x.shape[1],
                   positions(x.shape[2], before.d[0], after.d[0], window.d[0], stride.d[0]),
                   positions(x.shape[3], before.d[1], after.d[1], window.d[1], stride.d[1])});
  fill(y, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
    double most = -std::numeric_limits<double>::infinity();
    double sum = 0.0;
    int inside = 0;
    for (int64_t k = 0; k < window.d[0]; ++k) {
      for (int64_t l = 0; l < window.d[1]; ++l) {
        const double value = at(x, n, c, h * stride.d[0] - before.d[0] + k,
                                w * stride.d[1] - before.d[1] + l, std::nan(""));
        if (std::isnan(value)) continue;
        most = std::max(most, value);
        sum += value;
        ++inside;
      }
    }
    const auto count = inside_only ? inside : static_cast<double>(window.d[0] * window.d[1]);
    return largest ? most : sum / count;
  });
  return y;
}

Value scale(const nvinfer1::IScaleLayer& layer, Value x) {
  const std::vector<double> factor = values(layer.getScale());
  const std::vector<double> shift = values(layer.getShift());
  size_t i = 0;
  fill(x, [&](int64_t, int64_t c, int64_t, int64_t) {
    const auto channel = static_cast<size_t>(c);
    return x.data[i++] * factor[channel] + shift[channel];
  });
  return x;
}

Value activate(const nvinfer1::IActivationLayer& layer, Value x) {
  const bool relu = layer.getActivationType() == nvinfer1::ActivationType::kRELU;
  // As on a GPU, ReLU replaces NaN by 0.
  for (double& value : x.data) {
    value = relu ? std::fmax(value, 0.0) : 1.0 / (1.0 + std::exp(-value));
  }
  return x;
}

// Calls `apply` for each element of a result, with the elements of the values there, whose
// dimensions of 1 are broadcast.
template <class Apply>
Value broadcast(const std::vector<const Value*>& values, Apply apply) {
  std::vector<int64_t> shape = values.front()->shape;
  for (const Value* value : values) {
    if (value->shape.size() != shape.size()) throw std::logic_error("invalid ranks: they differ");
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      shape[axis] = std::max(shape[axis], value->shape[axis]);
    }
  }
  Value result = zeros(shape);
  std::vector<double> elements(values.size());
  for (size_t i = 0; i < result.data.size(); ++i) {
    for (size_t k = 0; k < values.size(); ++k) {
      const Value& value = *values[k];
      size_t rest = i;
      size_t index = 0;
      size_t stride = 1;
      for (size_t axis = shape.size(); axis-- > 0;) {
        const auto size = static_cast<size_t>(shape[axis]);
        if (value.shape[axis] != 1) index += rest % size * stride;
        stride *= static_cast<size_t>(value.shape[axis]);
        rest /= size;
      }
      elements[k] = value.data[index];
    }
    result.data[i] = apply(elements);
  }
  return result;
}

Value combine(const nvinfer1::IElementWiseLayer& layer, const Value& x, const Value& y) {
  return broadcast({&x, &y}, [&](const std::vector<double>& elements) -> double {
    const double left = elements[0];
    const double right = elements[1];
    switch (layer.getOperation()) {
      case nvinfer1::ElementWiseOperation::kSUM: return left + right;
      case nvinfer1::ElementWiseOperation::kSUB: return left - right;
      case nvinfer1::ElementWiseOperation::kPROD: return left * right;
      case nvinfer1::ElementWiseOperation::kLESS: return left < right ? 1.0 : 0.0;
      default: throw std::logic_error("unsupported element-wise operation");
    }
  });
}

Value select(const Value& condition, const Value& x, const Value& y) {
  return broadcast({&condition, &x, &y}, [](const std::vector<double>& elements) {
    return elements[0] != 0.0 ? elements[1] : elements[2];
  });
}

Value magnitude(const nvinfer1::IUnaryLayer& layer, Value x) {
  if (layer.getOperation() != nvinfer1::UnaryOperation::kABS) {
    throw std::logic_error("unsupported unary operation");
  }
  for (double& value : x.data) value = std::abs(value);
  return x;
}

Value constant(const nvinfer1::IConstantLayer& layer) {
  const Dims shape = layer.getDimensions();
  return {{shape.d, shape.d + shape.nbDims}, values(layer.getWeights())};
}

Value reshape(const nvinfer1::IShuffleLayer& layer, Value x) {
  const Dims target = layer.getReshapeDimensions();
  std::vector<int64_t> shape;
  for (int i = 0; i < target.nbDims; ++i) {
    shape.push_back(target.d[i] == 0 ? x.shape[static_cast<size_t>(i)] : target.d[i]);
  }
  if (volume(shape) != volume(x.shape)) throw std::logic_error("invalid reshape: elements differ");
  return {shape, x.data};
}

Value mean(const nvinfer1::IReduceLayer& layer, const Value& x) {
  if (layer.getOperation() != nvinfer1::ReduceOperation::kAVG || !layer.getKeepDimensions()) {
    throw std::logic_error("unsupported reduction: expected a mean that keeps the dimensions");
  }
  std::vector<int64_t> size = {1, 1, 1, 1};  // of what is averaged
  std::vector<int64_t> shape = x.shape;
  for (size_t axis = 0; axis < 4; ++axis) {
    if ((layer.getReduceAxes() >> axis & 1U) != 0) std::swap(size[axis], shape[axis]);
  }
  Value y = zeros(shape);
  fill(y, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
    double sum = 0.0;
    for (int64_t i = 0; i < size[0]; ++i)
      for (int64_t j = 0; j < size[1]; ++j)
        for (int64_t k = 0; k < size[2]; ++k)
          for (int64_t l = 0; l < size[3]; ++l) sum += at(x, n + i, c + j, h + k, w + l, 0.0);
    return sum / static_cast<double>(volume(size));
  });
  return y;
}

// Returns the index that a reflection at the first and the last pixel gives.
int64_t reflect(int64_t index, int64_t size) {
  if (index < 0) return -index;
  return index < size ? index : 2 * (size - 1) - index;
}

// Slices along any axes, with `outside` or a reflection by less than the size of an axis for what
// is not in x.
Value slice(const nvinfer1::ISliceLayer& layer, const Value& x, double outside) {
  const Dims axes = layer.getAxes();
  const nvinfer1::SampleMode mode = layer.getMode();
  std::vector<int64_t> shape = x.shape;
  std::array<int64_t, 4> start = {};
  for (int i = 0; i < axes.nbDims; ++i) {
    if (layer.getStride().d[i] != 1) throw std::logic_error("unsupported slice: it has a stride");
    shape[static_cast<size_t>(axes.d[i])] = layer.getSize().d[i];
    start[static_cast<size_t>(axes.d[i])] = layer.getStart().d[i];
  }
  Value y = zeros(shape);
  fill(y, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
    std::array<int64_t, 4> from = {n, c, h, w};
    for (size_t axis = 0; axis < 4; ++axis) {
      from[axis] += start[axis];
      if (mode == nvinfer1::SampleMode::kREFLECT) from[axis] = reflect(from[axis], x.shape[axis]);
      if (from[axis] >= 0 && from[axis] < x.shape[axis]) continue;
      if (mode != nvinfer1::SampleMode::kFILL) throw std::logic_error("a slice is out of bounds");
      return outside;
    }
    return at(x, from[0], from[1], from[2], from[3], 0.0);
  });
  return y;
}

// Over axis 1.
Value softmax(const nvinfer1::ISoftMaxLayer& layer, Value x) {
  if (layer.getAxes() != 0b10) throw std::logic_error("unsupported softmax: expected axis 1");
  Value y = x;
  fill(y, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
    double sum = 0.0;
    for (int64_t i = 0; i < x.shape[1]; ++i) sum += std::exp(at(x, n, i, h, w, 0.0));
    return std::exp(at(x, n, c, h, w, 0.0)) / sum;
  });
  return y;
}

// Over axis 1, of 4-dimensional values.
Value concatenate(const nvinfer1::IConcatenationLayer& layer, const std::vector<Value>& inputs) {
  if (layer.getAxis() != 1) throw std::logic_error("unsupported concatenation: expected axis 1");
  std::vector<int64_t> shape = inputs.front().shape;
  shape[1] = 0;
  for (const Value& input : inputs) shape[1] += input.shape[1];
  Value y = zeros(shape);
  fill(y, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
    size_t i = 0;
    while (c >= inputs[i].shape[1]) c -= inputs[i++].shape[1];
    return at(inputs[i], n, c, h, w, 0.0);
  });
  return y;
}

// x times the transpose of y.
Value multiply_matrices(const nvinfer1::IMatrixMultiplyLayer& layer, const Value& x,
                        const Value& y) {
  if (layer.getOperation(0) != nvinfer1::MatrixOperation::kNONE ||
      layer.getOperation(1) != nvinfer1::MatrixOperation::kTRANSPOSE) {
    throw std::logic_error("unsupported matrix product: expected x times the transpose of y");
  }
  const int64_t length = x.shape.at(1);
  Value product = zeros({x.shape.at(0), y.shape.at(0)});
  for (size_t i = 0; i < product.data.size(); ++i) {
    const auto row = static_cast<int64_t>(i) / product.shape[1];
    const auto column = static_cast<int64_t>(i) % product.shape[1];
    for (int64_t k = 0; k < length; ++k) {
      product.data[i] += x.data[static_cast<size_t>(row * length + k)] *
                         y.data[static_cast<size_t>(column * length + k)];
    }
  }
  return product;
}

Value evaluate_layer(const ILayer& layer, const std::vector<Value>& inputs) {
  if (layer.getType() == LayerType::kCONSTANT) {
    return constant(static_cast<const nvinfer1::IConstantLayer&>(layer));
  }
  const Value& x = inputs.front();
  switch (layer.getType()) {
    case LayerType::kCONVOLUTION:
      return convolve(static_cast<const nvinfer1::IConvolutionLayer&>(layer), x);
    case LayerType::kPOOLING: return pool(static_cast<const nvinfer1::IPoolingLayer&>(layer), x);
    case LayerType::kSCALE: return scale(static_cast<const nvinfer1::IScaleLayer&>(layer), x);
    case LayerType::kACTIVATION:
      return activate(static_cast<const nvinfer1::IActivationLayer&>(layer), x);
    case LayerType::kELEMENTWISE:
      return combine(static_cast<const nvinfer1::IElementWiseLayer&>(layer), x, inputs.back());
    case LayerType::kSHUFFLE: return reshape(static_cast<const nvinfer1::IShuffleLayer&>(layer), x);
    case LayerType::kREDUCE: return mean(static_cast<const nvinfer1::IReduceLayer&>(layer), x);
    case LayerType::kSLICE:
      // Its only other input, if any, is the value of a fill.
      return slice(static_cast<const nvinfer1::ISliceLayer&>(layer), x,
                   inputs.size() > 1 ? inputs.back().data.front() : 0.0);
    case LayerType::kSOFTMAX: return softmax(static_cast<const nvinfer1::ISoftMaxLayer&>(layer), x);
    case LayerType::kUNARY: return magnitude(static_cast<const nvinfer1::IUnaryLayer&>(layer), x);
    case LayerType::kSELECT: return select(x, inputs[1], inputs[2]);
    case LayerType::kCONCATENATION:
      return concatenate(static_cast<const nvinfer1::IConcatenationLayer&>(layer), inputs);
    case LayerType::kMATRIX_MULTIPLY:
      return multiply_matrices(static_cast<const nvinfer1::IMatrixMultiplyLayer&>(layer), x,
                               inputs.back());
    case LayerType::kCAST: return x;
    default: throw std::logic_error("unsupported layer");
  }
}

}  // namespace

Value evaluate(const nvinfer1::INetworkDefinition& network, const Value& images) {
  std::map<const nvinfer1::ITensor*, Value> known = {{network.getInput(0), images}};
  for (int i = 0; i < network.getNbLayers(); ++i) {
    const ILayer& layer = *network.getLayer(i);
    std::vector<Value> inputs;
    for (int k = 0; k < layer.getNbInputs(); ++k) {
      // A convolution has extra inputs for weights, which the lowering leaves empty.
      if (layer.getInput(k) != nullptr) inputs.push_back(known.at(layer.getInput(k)));
    }
    known[layer.getOutput(0)] = evaluate_layer(layer, inputs);
  }
  return known.at(network.getOutput(0));
}

}  // namespace resrt::test
