// The split-attention block as a plugin for TensorRT 10 and 11, in a library of its own for
// trtexec --dynamicPlugins=, Triton and IPluginRegistry::loadLibrary.
//
// Inputs: U (N, radix * channels, H, W); fc1's weight and bias, fc2's weight and bias, of the same
// type. The parameters are inputs so that they can be refitted. Output: (N, channels, H, W), or
// half of the height and width if the plugin also pools.

#include "backends/tensorrt/plugin/split_attention.h"

#include <NvInferRuntime.h>
#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

// `pooling` is 0 for none, 1 if its average counts the padding and 2 if it does not.
constexpr std::array<const char*, 5> kFieldNames = {"channels", "radix", "cardinality", "hidden",
                                                    "pooling"};
using Fields = std::array<int32_t, kFieldNames.size()>;

// The block that a plugin computes.
struct Block {
  SplitAttentionSizes sizes;
  Pooling pooling;
};

Fields to_fields(const Block& block) {
  const auto& [channels, radix, cardinality, hidden] = block.sizes;
  return {channels, radix, cardinality, hidden, static_cast<int32_t>(block.pooling)};
}

// The tactics, which TensorRT times and chooses from. It requires that they are not 0.
constexpr std::array kVariants = {Variant::passes, Variant::tickets, Variant::cluster};
int32_t to_tactic(Variant variant) {
  return 1 + static_cast<int32_t>(variant);
}

// Returns the calling thread's GPU, or nothing if there is none.
std::optional<Gpu> current_gpu() {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return std::nullopt;
  const auto get = [&](cudaDeviceAttr attribute) {
    int value = 0;
    return cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess ? value : 0;
  };
  const int capability =
      10 * get(cudaDevAttrComputeCapabilityMajor) + get(cudaDevAttrComputeCapabilityMinor);
  // Beyond 8 blocks, a cluster is not portable. Hopper and the large Blackwell GPUs support 16.
  const int largest = capability < 90 ? 1 : capability < 120 ? kLargestCluster : 8;
  return Gpu{capability, std::max(1, get(cudaDevAttrMultiProcessorCount)),
             static_cast<size_t>(get(cudaDevAttrMaxSharedMemoryPerBlockOptin)), largest};
}

// Returns the block that the fields give, or nothing if fields are missing or inconsistent.
std::optional<Block> read_fields(const PluginFieldCollection* fields) {
  Fields values{};
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
  const int32_t pooling = values.back();
  if (std::min({sizes.channels, sizes.radix, sizes.cardinality, sizes.hidden}) < 1 || pooling < 0 ||
      pooling > static_cast<int32_t>(Pooling::inside)) {
    return std::nullopt;
  }
  if (sizes.channels % sizes.cardinality != 0 || sizes.hidden % sizes.cardinality != 0 ||
      !split_attention_fits(sizes)) {
    return std::nullopt;
  }
  return Block{sizes, static_cast<Pooling>(pooling)};
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
  return format == TensorFormat::kLINEAR ? Layout::planes : Layout::channels_last;
}

// The channels-last format of a type.
TensorFormat channels_last_of(DataType type) {
  return type == DataType::kFLOAT ? TensorFormat::kHWC : TensorFormat::kHWC8;
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
  explicit SplitAttention(const Block& block) : block_(block), values_(to_fields(block)) {
    for (const int32_t value : values_) (timing_cache_id_ += '_') += std::to_string(value);
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
    outputs[0].d[1] = builder.constant(block_.sizes.channels);
    if (block_.pooling != Pooling::none) {
      for (const int axis : {2, 3}) {
        const auto* longer = builder.operation(nvinfer1::DimensionOperation::kSUM,
                                               *inputs[0].d[axis], *builder.constant(1));
        outputs[0].d[axis] = builder.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *longer,
                                               *builder.constant(2));
      }
    }
    return 0;
  }

  // U and y have the same format, planes or channels last. The parameters are linear.
  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t,
                                 int32_t) noexcept override {
    const PluginTensorDesc& x = tensors[0].desc;
    const PluginTensorDesc& asked = tensors[position].desc;
    if (asked.type != x.type || !to_element(x.type)) return false;
    if (position > 0 && position < kInputs) return asked.format == TensorFormat::kLINEAR;
    if (position == kInputs) return asked.format == x.format;
    if (x.format != TensorFormat::kLINEAR && x.format != channels_last_of(x.type)) return false;
    return supports(problem_of(x, 1), Variant::passes, {});
  }
  // Three types, as planes and channels last.
  int32_t getFormatCombinationLimit() noexcept override { return 6; }

  int32_t configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t,
                          const DynamicPluginTensorDesc*, int32_t) noexcept override {
    configured_ = inputs[0].desc;
    configured_.dims = inputs[0].max;
    return 0;
  }

  int32_t getNbTactics() noexcept override { return static_cast<int32_t>(tactics().size()); }
  int32_t getValidTactics(int32_t* tactics, int32_t count) noexcept override {
    const std::vector<int32_t> valid = this->tactics();
    std::copy_n(valid.begin(), std::min(valid.size(), static_cast<size_t>(count)), tactics);
    return 0;
  }
  int32_t setTactic(int32_t tactic) noexcept override {
    const auto* found = std::ranges::find(kVariants, tactic, to_tactic);
    variant_ = found == kVariants.end() ? Variant::passes : *found;
    return 0;
  }
  const char* getTimingCacheID() noexcept override { return timing_cache_id_.c_str(); }

  size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t,
                          const DynamicPluginTensorDesc*, int32_t) const noexcept override {
    // Each image has fewer parts in a larger batch, so the largest batch does not always need the
    // largest workspace.
    size_t most = 0;
    PluginTensorDesc x = inputs[0].desc;
    x.dims = inputs[0].max;
    for (int batch = 1; batch <= inputs[0].max.d[0]; ++batch) {
      most = std::max(most, split_attention_workspace(problem_of(x, batch)));
    }
    return most;
  }

  int32_t onShapeChange(const PluginTensorDesc*, int32_t, const PluginTensorDesc*,
                        int32_t) noexcept override {
    return 0;
  }

  int32_t enqueue(const PluginTensorDesc* inputs, const PluginTensorDesc*, const void* const* in,
                  void* const* out, void* workspace, cudaStream_t stream) noexcept override {
    const std::optional<Gpu> gpu = current_gpu();
    if (!to_element(inputs[0].type) || !gpu) return 1;
    SplitAttentionCall call = {.problem = problem_of(inputs[0], to_int(inputs[0].dims.d[0])),
                               .variant = variant_,
                               .gpu = *gpu,
                               .x = in[0],
                               .fc1_weight = in[1],
                               .fc1_bias = in[2],
                               .fc2_weight = in[3],
                               .fc2_bias = in[4],
                               .y = out[0],
                               .workspace = workspace};
    // The engine may have been built on another GPU.
    if (!supports(call.problem, call.variant, call.gpu)) call.variant = Variant::passes;
    cudaError_t error = split_attention(call, stream);
    if (error != cudaSuccess && call.variant == Variant::cluster) {
      // A part of a GPU may have no room for such a cluster.
      cudaGetLastError();
      call.variant = Variant::passes;
      error = split_attention(call, stream);
    }
    return static_cast<int32_t>(error);
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return copy();
  }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override { return &collection_; }

 private:
  bool match_sizes(const DimsExprs* inputs) const {
    const auto [channels, radix, cardinality, hidden] = block_.sizes;
    const int32_t splits = radix * channels;
    const std::array<int64_t, 4> parameters = {int64_t{hidden} * (channels / cardinality), hidden,
                                               int64_t{splits} * (hidden / cardinality), splits};
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (count_values(inputs[i + 1]) != parameters[i]) return false;
    }
    return inputs[0].nbDims == 4 && inputs[0].d[1]->isConstant() &&
           inputs[0].d[1]->getConstantValue() == splits;
  }

  // The type must be one that to_element knows.
  Problem problem_of(const PluginTensorDesc& x, int batch) const {
    return {block_.sizes,        to_element(x.type).value_or(Element::fp32),
            to_layout(x.format), batch,
            to_int(x.dims.d[2]), to_int(x.dims.d[3]),
            block_.pooling};
  }

  // Returns the tactics for the configured tensors.
  std::vector<int32_t> tactics() const {
    const Gpu gpu = current_gpu().value_or(Gpu{.processors = 1, .largest_cluster = 1});
    const Problem problem = problem_of(configured_, std::max(1, to_int(configured_.dims.d[0])));
    std::vector<int32_t> found;
    for (const Variant variant : kVariants) {
      if (supports(problem, variant, gpu)) found.push_back(to_tactic(variant));
    }
    return found;
  }

  SplitAttention* copy() const noexcept {
    try {
      auto* made = new SplitAttention(block_);
      made->variant_ = variant_;
      made->configured_ = configured_;
      return made;
    } catch (const std::exception&) {
      return nullptr;
    }
  }

  Block block_;
  Fields values_;
  std::string timing_cache_id_ = "resrt";
  std::array<PluginField, kFieldNames.size()> fields_;
  PluginFieldCollection collection_;
  Variant variant_ = Variant::passes;
  PluginTensorDesc configured_{};  // U, with its largest batch
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
      const std::optional<Block> block = read_fields(fields);
      return block ? new SplitAttention(*block) : nullptr;
    } catch (const std::exception&) {
      return nullptr;
    }
  }

  const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  std::array<PluginField, kFieldNames.size()> fields_;
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
