// The split-attention block as a plugin for TensorRT 10 and 11, in a library of its own for
// trtexec --dynamicPlugins=, Triton and IPluginRegistry::loadLibrary.
//
// Inputs: U (N, radix * channels, H, W); fc1's weight and bias, fc2's weight and bias, of the same
// type. The parameters are inputs so that they can be refitted. Output: (N, channels, H, W).

#include "backends/tensorrt/plugin/split_attention.h"

#include <NvInferRuntime.h>
#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <optional>
#include <string_view>

#include "resrt/export.h"

namespace resrt::plugin {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

constexpr const char* kName = "SplitAttention";
constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "resrt";

constexpr int kInputs = 5;

constexpr std::array<const char*, 4> kFieldNames = {"channels", "radix", "cardinality", "hidden"};

std::array<int32_t, 4> to_array(const SplitAttentionSizes& sizes) {
  return {sizes.channels, sizes.radix, sizes.cardinality, sizes.hidden};
}

// Returns the sizes that the fields give, or nothing if fields are missing or inconsistent.
std::optional<SplitAttentionSizes> read_fields(const PluginFieldCollection* fields) {
  std::array<int32_t, 4> values{};
  for (int i = 0; fields != nullptr && i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    for (size_t k = 0; k < kFieldNames.size(); ++k) {
      if (std::string_view(field.name) == kFieldNames[k] && field.data != nullptr &&
          field.type == nvinfer1::PluginFieldType::kINT32 && field.length == 1) {
        std::memcpy(&values[k], field.data, sizeof values[k]);
      }
    }
  }
  const SplitAttentionSizes sizes{values[0], values[1], values[2], values[3]};
  for (const int32_t value : values) {
    if (value < 1) return std::nullopt;
  }
  if (sizes.channels % sizes.cardinality != 0 || sizes.hidden % sizes.cardinality != 0 ||
      !split_attention_fits(sizes)) {
    return std::nullopt;
  }
  return sizes;
}

std::optional<Element> to_element(DataType type) {
  switch (type) {
    case DataType::kFLOAT: return Element::fp32;
    case DataType::kHALF: return Element::fp16;
    case DataType::kBF16: return Element::bf16;
    default: return std::nullopt;
  }
}

Layout to_layout(TensorFormat format) {
  return format == TensorFormat::kHWC8 ? Layout::channels_last : Layout::planes;
}

// Returns the number of values of a tensor, or -1 if its shape is not known.
int64_t count_values(const DimsExprs& shape) {
  int64_t count = 1;
  for (int i = 0; i < shape.nbDims; ++i) {
    if (!shape.d[i]->isConstant()) return -1;
    count *= shape.d[i]->getConstantValue();
  }
  return count;
}

int to_int(int64_t value) {
  return static_cast<int>(value);
}

class SplitAttention : public nvinfer1::IPluginV3,
                       public nvinfer1::IPluginV3OneCore,
                       public nvinfer1::IPluginV3OneBuild,
                       public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit SplitAttention(const SplitAttentionSizes& sizes)
      : sizes_(sizes), values_(to_array(sizes)) {
    for (size_t i = 0; i < kFieldNames.size(); ++i) {
      fields_[i] = PluginField(kFieldNames[i], &values_[i], nvinfer1::PluginFieldType::kINT32, 1);
    }
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
  }
  SplitAttention(const SplitAttention&) = delete;
  SplitAttention& operator=(const SplitAttention&) = delete;
  ~SplitAttention() override = default;

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3* clone() noexcept override { return copy(); }

  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(DataType* outputs, int32_t, const DataType* inputs,
                             int32_t) const noexcept override {
    outputs[0] = inputs[0];
    return 0;
  }

  // Fails if the inputs do not match the fields, which can happen in an ONNX file.
  int32_t getOutputShapes(const DimsExprs* inputs, int32_t count, const DimsExprs*, int32_t,
                          DimsExprs* outputs, int32_t,
                          nvinfer1::IExprBuilder& builder) noexcept override {
    if (count != kInputs || !match_sizes(inputs)) return 1;
    outputs[0] = inputs[0];
    outputs[0].d[1] = builder.constant(sizes_.channels);
    return 0;
  }

  // U and y have the same format, planes or HWC8. The parameters are linear.
  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t,
                                 int32_t) noexcept override {
    const PluginTensorDesc& x = tensors[0].desc;
    const PluginTensorDesc& asked = tensors[position].desc;
    if (asked.type != x.type || !to_element(x.type)) return false;
    if (position > 0 && position < kInputs) return asked.format == TensorFormat::kLINEAR;
    if (position == kInputs) return asked.format == x.format;
    return x.format == TensorFormat::kLINEAR ||
           (x.format == TensorFormat::kHWC8 && x.type != DataType::kFLOAT &&
            sizes_.channels % 8 == 0);
  }
  // Three types as planes, and two of them also in HWC8.
  int32_t getFormatCombinationLimit() noexcept override { return 5; }

  int32_t configurePlugin(const DynamicPluginTensorDesc*, int32_t, const DynamicPluginTensorDesc*,
                          int32_t) noexcept override {
    return 0;
  }

  size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t,
                          const DynamicPluginTensorDesc*, int32_t) const noexcept override {
    // Each image has fewer parts in a larger batch, so the largest batch does not always need the
    // largest workspace.
    size_t most = 0;
    const nvinfer1::Dims& x = inputs[0].max;
    const int pixels = to_int(x.d[2] * x.d[3]);
    const Layout layout = to_layout(inputs[0].desc.format);
    for (int batch = 1; batch <= x.d[0]; ++batch) {
      most = std::max(most, split_attention_workspace(sizes_, batch, pixels, layout));
    }
    return most;
  }

  int32_t onShapeChange(const PluginTensorDesc*, int32_t, const PluginTensorDesc*,
                        int32_t) noexcept override {
    return 0;
  }

  int32_t enqueue(const PluginTensorDesc* inputs, const PluginTensorDesc*, const void* const* in,
                  void* const* out, void* workspace, cudaStream_t stream) noexcept override {
    const std::optional<Element> element = to_element(inputs[0].type);
    if (!element) return 1;
    const nvinfer1::Dims& x = inputs[0].dims;
    const cudaError_t error = split_attention({.sizes = sizes_,
                                               .element = *element,
                                               .layout = to_layout(inputs[0].format),
                                               .batch = to_int(x.d[0]),
                                               .pixels = to_int(x.d[2] * x.d[3]),
                                               .x = in[0],
                                               .fc1_weight = in[1],
                                               .fc1_bias = in[2],
                                               .fc2_weight = in[3],
                                               .fc2_bias = in[4],
                                               .y = out[0],
                                               .workspace = workspace},
                                              stream);
    return static_cast<int32_t>(error);
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return copy();
  }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override { return &collection_; }

 private:
  bool match_sizes(const DimsExprs* inputs) const {
    const auto [channels, radix, cardinality, hidden] = sizes_;
    const int32_t splits = radix * channels;
    const std::array<int64_t, 4> parameters = {int64_t{hidden} * (channels / cardinality), hidden,
                                               int64_t{splits} * (hidden / cardinality), splits};
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (count_values(inputs[i + 1]) != parameters[i]) return false;
    }
    return inputs[0].nbDims == 4 && inputs[0].d[1]->isConstant() &&
           inputs[0].d[1]->getConstantValue() == splits;
  }

  SplitAttention* copy() const noexcept {
    try {
      return new SplitAttention(sizes_);
    } catch (const std::exception&) {
      return nullptr;
    }
  }

  SplitAttentionSizes sizes_;
  std::array<int32_t, 4> values_;
  std::array<PluginField, 4> fields_;
  PluginFieldCollection collection_;
};

class Creator : public nvinfer1::IPluginCreatorV3One {
 public:
  Creator() {
    for (size_t i = 0; i < kFieldNames.size(); ++i) {
      fields_[i] = PluginField(kFieldNames[i], nullptr, nvinfer1::PluginFieldType::kINT32, 1);
    }
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
  }

  // Returns null if fields are missing or inconsistent, which TensorRT reports.
  nvinfer1::IPluginV3* createPlugin(const char*, const PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    try {
      const std::optional<SplitAttentionSizes> sizes = read_fields(fields);
      return sizes ? new SplitAttention(*sizes) : nullptr;
    } catch (const std::exception&) {
      return nullptr;
    }
  }

  const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  std::array<PluginField, 4> fields_;
  PluginFieldCollection collection_;
};

}  // namespace
}  // namespace resrt::plugin

// The functions that TensorRT looks for in a plugin library.
extern "C" RESRT_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static resrt::plugin::Creator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}

extern "C" RESRT_API void setLoggerFinder(nvinfer1::ILoggerFinder*) {}
