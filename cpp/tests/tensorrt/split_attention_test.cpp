// Tests the plugin's host side, its answers to TensorRT, without a GPU.

#include "backends/tensorrt/plugin/split_attention.h"

#include <NvInferRuntime.h>
#include <array>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

namespace resrt::plugin {
namespace {

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::TensorFormat;

nvinfer1::IPluginCreatorV3One& creator() {
  int32_t count = 0;
  nvinfer1::IPluginCreatorInterface* const* creators = getCreators(count);
  EXPECT_EQ(count, 1);
  return static_cast<nvinfer1::IPluginCreatorV3One&>(*creators[0]);
}

std::unique_ptr<nvinfer1::IPluginV3> create(const std::map<std::string, int32_t>& values,
                                            int32_t length = 1) {
  std::vector<PluginField> fields;
  for (const auto& [name, value] : values) {
    fields.emplace_back(name.c_str(), &value, nvinfer1::PluginFieldType::kINT32, length);
  }
  const PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
  return std::unique_ptr<nvinfer1::IPluginV3>(
      creator().createPlugin("block", &collection, nvinfer1::TensorRTPhase::kBUILD));
}

const std::map<std::string, int32_t> kBlock = {
    {"channels", 64}, {"radix", 2}, {"cardinality", 1}, {"hidden", 32}, {"pooling", 0}};

std::map<std::string, int32_t> pooled_block() {
  auto block = kBlock;
  block["pooling"] = 1;
  return block;
}

template <class Capability>
Capability& as(nvinfer1::IPluginV3& plugin, nvinfer1::PluginCapabilityType type) {
  return *static_cast<Capability*>(plugin.getCapabilityInterface(type));
}
nvinfer1::IPluginV3OneBuild& build(nvinfer1::IPluginV3& plugin) {
  return as<nvinfer1::IPluginV3OneBuild>(plugin, nvinfer1::PluginCapabilityType::kBUILD);
}
nvinfer1::IPluginV3OneRuntime& runtime(nvinfer1::IPluginV3& plugin) {
  return as<nvinfer1::IPluginV3OneRuntime>(plugin, nvinfer1::PluginCapabilityType::kRUNTIME);
}

std::map<std::string, int32_t> fields_of(nvinfer1::IPluginV3& plugin) {
  std::map<std::string, int32_t> values;
  const PluginFieldCollection& fields = *runtime(plugin).getFieldsToSerialize();
  for (int i = 0; i < fields.nbFields; ++i) {
    values[fields.fields[i].name] = *static_cast<const int32_t*>(fields.fields[i].data);
  }
  return values;
}

TEST(SplitAttentionPlugin, IsFoundUnderItsName) {
  EXPECT_STREQ(creator().getPluginName(), "SplitAttention");
  EXPECT_STREQ(creator().getPluginVersion(), "1");
  EXPECT_STREQ(creator().getPluginNamespace(), "resrt");
  const auto plugin = create(kBlock);
  ASSERT_NE(plugin, nullptr);
  const auto& core = as<nvinfer1::IPluginV3OneCore>(*plugin, nvinfer1::PluginCapabilityType::kCORE);
  EXPECT_STREQ(core.getPluginName(), creator().getPluginName());
  EXPECT_STREQ(core.getPluginVersion(), creator().getPluginVersion());
  EXPECT_STREQ(core.getPluginNamespace(), creator().getPluginNamespace());
  EXPECT_EQ(creator().getFieldNames()->nbFields, 5);
}

TEST(SplitAttentionPlugin, IsRecreatedFromItsSerialisedFields) {
  const auto plugin = create(kBlock);
  EXPECT_EQ(fields_of(*plugin), kBlock);
  const std::unique_ptr<nvinfer1::IPluginV3> again(creator().createPlugin(
      "block", runtime(*plugin).getFieldsToSerialize(), nvinfer1::TensorRTPhase::kRUNTIME));
  EXPECT_EQ(fields_of(*again), kBlock);
  const std::unique_ptr<nvinfer1::IPluginV3> clone(plugin->clone());
  EXPECT_EQ(fields_of(*clone), kBlock);
  const std::unique_ptr<nvinfer1::IPluginV3> attached(runtime(*plugin).attachToContext(nullptr));
  EXPECT_EQ(fields_of(*attached), kBlock);
}

TEST(SplitAttentionPlugin, RejectsInvalidFields) {
  for (const auto& [name, value] :
       {std::pair{"channels", 0}, std::pair{"radix", -1}, std::pair{"cardinality", 3},
        std::pair{"hidden", 1 << 20}, std::pair{"pooling", 3}, std::pair{"pooling", -1}}) {
    auto values = kBlock;
    values[name] = value;
    EXPECT_EQ(create(values), nullptr) << name;
  }
  for (const auto& [name, value] : kBlock) {
    if (name == "pooling") continue;  // none if it is missing
    auto values = kBlock;
    values.erase(name);
    EXPECT_EQ(create(values), nullptr) << name;
  }
  EXPECT_EQ(create(kBlock, 2), nullptr);
  EXPECT_EQ(creator().createPlugin("block", nullptr, nvinfer1::TensorRTPhase::kBUILD), nullptr);
}

// Whether the plugin supports this type for all tensors and these formats for U and y.
bool supports(nvinfer1::IPluginV3& plugin, DataType type, TensorFormat x, TensorFormat y,
              TensorFormat parameter = TensorFormat::kLINEAR) {
  std::array<nvinfer1::DynamicPluginTensorDesc, 6> tensors{};
  for (auto& tensor : tensors) tensor.desc = {{}, type, parameter, 1.0F};
  tensors.front().desc.format = x;
  tensors.back().desc.format = y;
  for (int i = 0; i < 6; ++i) {
    if (!build(plugin).supportsFormatCombination(i, tensors.data(), 5, 1)) return false;
  }
  return true;
}

TEST(SplitAttentionPlugin, SupportsPlanesAndChannelsLast) {
  constexpr TensorFormat planes = TensorFormat::kLINEAR;
  const auto plugin = create(kBlock);
  const auto pooled = create(pooled_block());
  for (const DataType type : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16}) {
    const bool is_wide = type == DataType::kFLOAT;
    const TensorFormat last = is_wide ? TensorFormat::kHWC : TensorFormat::kHWC8;
    const TensorFormat other = is_wide ? TensorFormat::kHWC8 : TensorFormat::kHWC;
    EXPECT_TRUE(supports(*plugin, type, planes, planes));
    EXPECT_TRUE(supports(*plugin, type, last, last));
    EXPECT_FALSE(supports(*plugin, type, other, other));
    EXPECT_TRUE(supports(*pooled, type, last, last));
    EXPECT_FALSE(supports(*pooled, type, planes, planes));
    EXPECT_FALSE(supports(*plugin, type, planes, last));
    EXPECT_FALSE(supports(*plugin, type, last, planes));
    EXPECT_FALSE(supports(*plugin, type, planes, planes, last));
    EXPECT_FALSE(supports(*plugin, type, TensorFormat::kCHW32, TensorFormat::kCHW32));
  }
  EXPECT_FALSE(supports(*plugin, DataType::kINT8, planes, planes));
  auto odd = kBlock;
  odd["channels"] = 60;
  EXPECT_FALSE(supports(*create(odd), DataType::kHALF, TensorFormat::kHWC8, TensorFormat::kHWC8));
  EXPECT_TRUE(supports(*create(odd), DataType::kFLOAT, TensorFormat::kHWC, TensorFormat::kHWC));
  EXPECT_TRUE(supports(*create(odd), DataType::kHALF, planes, planes));
}

TEST(SplitAttentionPlugin, HasOneOutputOfTheInputsType) {
  const auto plugin = create(kBlock);
  EXPECT_EQ(build(*plugin).getNbOutputs(), 1);
  const std::array types = {DataType::kBF16, DataType::kBF16, DataType::kBF16, DataType::kBF16,
                            DataType::kBF16};
  DataType output{};
  EXPECT_EQ(build(*plugin).getOutputDataTypes(&output, 1, types.data(), 5), 0);
  EXPECT_EQ(output, DataType::kBF16);
}

// A dimension as TensorRT passes it: a constant, or unknown, as for the batch.
struct Size : nvinfer1::apiv::VDimensionExpr, nvinfer1::IDimensionExpr {
  explicit Size(int64_t size) : value(size) { mImpl = this; }
  bool isConstant() const override { return value >= 0; }
  int64_t getConstantValue() const override { return value; }
  bool isSizeTensor() const override { return false; }
  int64_t value;
};

struct Sizes : nvinfer1::apiv::VExprBuilder, nvinfer1::IExprBuilder {
  Sizes() { mImpl = this; }
  const nvinfer1::IDimensionExpr* constant(int64_t value) override {
    return all.emplace_back(std::make_unique<Size>(value)).get();
  }
  const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation operation,
                                            const nvinfer1::IDimensionExpr& first,
                                            const nvinfer1::IDimensionExpr& second) override {
    const int64_t left = first.getConstantValue();
    const int64_t right = second.getConstantValue();
    if (operation == nvinfer1::DimensionOperation::kSUM) return constant(left + right);
    EXPECT_EQ(operation, nvinfer1::DimensionOperation::kFLOOR_DIV);
    return constant(left / right);
  }
  const nvinfer1::IDimensionExpr* declareSizeTensor(int32_t, const nvinfer1::IDimensionExpr&,
                                                    const nvinfer1::IDimensionExpr&) override {
    return nullptr;
  }
  nvinfer1::DimsExprs shape(const std::vector<int64_t>& sizes) {
    nvinfer1::DimsExprs result{};
    for (const int64_t size : sizes)
      result.d[result.nbDims++] = nvinfer1::IExprBuilder::constant(size);
    return result;
  }
  std::vector<std::unique_ptr<Size>> all;
};

// Returns the output shape for inputs of these shapes, or an empty one if the plugin rejects them.
std::vector<int64_t> output_shape(const std::vector<std::vector<int64_t>>& shapes,
                                  const std::map<std::string, int32_t>& block = kBlock) {
  Sizes sizes;
  std::vector<nvinfer1::DimsExprs> inputs;
  for (const auto& shape : shapes) inputs.push_back(sizes.shape(shape));
  nvinfer1::DimsExprs output{};
  const auto count = static_cast<int32_t>(inputs.size());
  if (build(*create(block)).getOutputShapes(inputs.data(), count, nullptr, 0, &output, 1, sizes) !=
      0) {
    return {};
  }
  std::vector<int64_t> shape;
  for (int i = 0; i < output.nbDims; ++i) shape.push_back(output.d[i]->getConstantValue());
  return shape;
}

TEST(SplitAttentionPlugin, RejectsInputsThatDoNotMatchItsFields) {
  const std::vector<std::vector<int64_t>> inputs = {
      {-1, 128, 7, 9}, {32, 64, 1, 1}, {32}, {128, 32, 1, 1}, {128}};
  EXPECT_EQ(output_shape(inputs), (std::vector<int64_t>{-1, 64, 7, 9}));
  EXPECT_EQ(output_shape(inputs, pooled_block()), (std::vector<int64_t>{-1, 64, 4, 5}));
  auto missing = inputs;
  missing.pop_back();
  EXPECT_TRUE(output_shape(missing).empty());
  const std::vector<std::vector<int64_t>> wrong = {
      {-1, 64, 7, 9}, {32, 63, 1, 1}, {-1}, {64, 32, 1, 1}, {64}};
  for (size_t i = 0; i < wrong.size(); ++i) {
    auto changed = inputs;
    changed[i] = wrong[i];
    EXPECT_TRUE(output_shape(changed).empty()) << i;
  }
  auto flat = inputs;
  flat[0] = {-1, 128};
  EXPECT_TRUE(output_shape(flat).empty());
}

TEST(SplitAttentionPlugin, RequestsEnoughWorkspaceForEveryBatch) {
  for (const auto& [channels, side] : {std::pair{64, 56}, std::pair{512, 7}}) {
    auto values = kBlock;
    values["channels"] = channels;
    const auto plugin = create(values);
    const SplitAttentionSizes sizes{channels, 2, 1, 32};
    for (const TensorFormat format : {TensorFormat::kLINEAR, TensorFormat::kHWC8}) {
      std::array<nvinfer1::DynamicPluginTensorDesc, 6> tensors{};
      tensors[0].desc = {{4, {-1, 2 * channels, side, side}}, DataType::kHALF, format, 1.0F};
      tensors[0].max = {4, {32, 2 * channels, side, side}};
      const size_t asked = build(*plugin).getWorkspaceSize(tensors.data(), 5, &tensors[5], 1);
      const Layout layout = format == TensorFormat::kHWC8 ? Layout::channels_last : Layout::planes;
      for (int batch = 1; batch <= 32; ++batch) {
        const size_t needed =
            split_attention_workspace({sizes, Element::fp16, layout, batch, side, side});
        EXPECT_LE(needed, asked) << batch;
        EXPECT_GE(needed, sizeof(float) * static_cast<size_t>(batch * (2 * channels + 32)));
      }
    }
  }
}

// The tactics for U of these dimensions, on a machine without a GPU.
std::vector<int32_t> tactics_of(nvinfer1::IPluginV3& plugin, TensorFormat format) {
  nvinfer1::DynamicPluginTensorDesc x{};
  x.desc = {{4, {-1, 128, 56, 56}}, DataType::kHALF, format, 1.0F};
  x.max = {4, {8, 128, 56, 56}};
  EXPECT_EQ(build(plugin).configurePlugin(&x, 5, nullptr, 1), 0);
  std::vector<int32_t> tactics(static_cast<size_t>(build(plugin).getNbTactics()));
  EXPECT_EQ(build(plugin).getValidTactics(tactics.data(), build(plugin).getNbTactics()), 0);
  return tactics;
}

TEST(SplitAttentionPlugin, OffersItsVariantsAsTactics) {
  const auto plugin = create(kBlock);
  const auto last = tactics_of(*plugin, TensorFormat::kHWC8);
  const auto planes = tactics_of(*plugin, TensorFormat::kLINEAR);
  EXPECT_GE(last.size(), 2U);
  EXPECT_EQ(planes.size(), 1U);
  for (const int32_t tactic : last) EXPECT_GT(tactic, 0);  // 0 means the default
  EXPECT_EQ(std::set<int32_t>(last.begin(), last.end()).size(), last.size());
  EXPECT_EQ(runtime(*plugin).setTactic(last.back()), 0);
  EXPECT_EQ(runtime(*plugin).setTactic(0), 0);
}

TEST(SplitAttentionPlugin, HasATimingCacheIdOfItsFields) {
  const auto id = [](nvinfer1::IPluginV3& plugin) {
    return std::string(build(plugin).getTimingCacheID());
  };
  EXPECT_EQ(id(*create(kBlock)), id(*create(kBlock)));
  EXPECT_NE(id(*create(kBlock)), id(*create(pooled_block())));
}

}  // namespace
}  // namespace resrt::plugin
