#include <algorithm>
#include <array>
#include <iomanip>
#include <sstream>

#include "graph/overloaded.h"
#include "resrt/graph.h"
#include "text.h"

namespace resrt {
namespace {

std::string text(const Shape& shape) {
  if (shape.height == 1 && shape.width == 1) return std::to_string(shape.channels);
  return concat(shape.channels, "x", shape.height, "x", shape.width);
}

// "64, kernel=3, stride=2": the fields that differ from their defaults.
class Fields {
 public:
  Fields& required(const std::string& text) {
    parts_.push_back(text);
    return *this;
  }
  template <class Value>
  Fields& optional(const char* name, Value value, Value normal) {
    if (value != normal) parts_.push_back(concat(name, "=", value));
    return *this;
  }
  Fields& flag(const char* name, bool value) {
    if (value) parts_.emplace_back(name);
    return *this;
  }
  std::string text() const { return join(parts_); }

 private:
  std::vector<std::string> parts_;
};

std::string fields(const Definition& definition) {
  return std::visit(
      Overloaded{
          [](const Input& input) {
            return join(std::array{input.channels, input.height, input.width});
          },
          [](const Conv2d& conv) {
            return Fields()
                .required(std::to_string(conv.out_channels))
                .required(concat("kernel=", conv.kernel))
                .optional("stride", conv.stride, 1)
                .optional("padding", conv.padding, 0)
                .optional("groups", conv.groups, 1)
                .flag("bias", conv.bias)
                .flag("residual", conv.residual)
                .flag("relu", conv.relu)
                .optional("weight_bits", conv.weight_bits, 0)
                .text();
          },
          [](const BatchNorm2d& norm) {
            return Fields().optional("epsilon", norm.epsilon, BatchNorm2d().epsilon).text();
          },
          [](const MaxPool2d& pool) {
            return Fields()
                .required(concat("kernel=", pool.kernel, ", stride=", pool.stride))
                .optional("padding", pool.padding, 0)
                .text();
          },
          [](const AvgPool2d& pool) {
            return Fields()
                .required(concat("kernel=", pool.kernel, ", stride=", pool.stride))
                .optional("padding", pool.padding, 0)
                .flag("ceil_mode", pool.ceil_mode)
                .flag("count_include_pad", pool.count_include_pad && pool.padding > 0)
                .text();
          },
          [](const SplitAttention& block) {
            return Fields()
                .required(std::to_string(block.channels))
                .required(concat("radix=", block.radix))
                .optional("cardinality", block.cardinality, 1)
                .required(concat("hidden=", block.hidden))
                .optional("epsilon", block.epsilon, SplitAttention().epsilon)
                .text();
          },
          [](const BlurPool2d& pool) { return concat("stride=", pool.stride); },
          [](const PadChannels& pad) {
            return concat("before=", pad.before, ", after=", pad.after);
          },
          [](const SqueezeExcite& block) {
            return Fields()
                .required(concat("hidden=", block.hidden))
                .flag("silu", block.silu)
                .text();
          },
          [](const EfficientChannelAttention& block) { return concat("kernel=", block.kernel); },
          [](const Quantize& quantize) {
            return Fields()
                .required(concat("scale=", quantize.scale))
                .flag("signed", quantize.is_signed)
                .text();
          },
          [](const Linear& linear) { return std::to_string(linear.out_features); },
          [](const Relu&) { return std::string(); },
          [](const Silu&) { return std::string(); },
          [](const GlobalAvgPool2d&) { return std::string(); },
          [](const Add&) { return std::string(); },
      },
      definition);
}

// 25557032 -> "25,557,032"
std::string grouped(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto end = static_cast<std::ptrdiff_t>(digits.size()) - 3; end > 0; end -= 3) {
    digits.insert(static_cast<size_t>(end), 1, ',');
  }
  return digits;
}

std::string millions(int64_t number) {
  return concat(std::fixed, std::setprecision(2), static_cast<double>(number) / 1e6);
}

}  // namespace

const char* kind(const Definition& definition) {
  return std::visit(
      Overloaded{
          [](const Input&) { return "Input"; },
          [](const Conv2d&) { return "Conv2d"; },
          [](const BatchNorm2d&) { return "BatchNorm2d"; },
          [](const Relu&) { return "Relu"; },
          [](const Silu&) { return "Silu"; },
          [](const MaxPool2d&) { return "MaxPool2d"; },
          [](const AvgPool2d&) { return "AvgPool2d"; },
          [](const BlurPool2d&) { return "BlurPool2d"; },
          [](const PadChannels&) { return "PadChannels"; },
          [](const GlobalAvgPool2d&) { return "GlobalAvgPool2d"; },
          [](const Add&) { return "Add"; },
          [](const SplitAttention&) { return "SplitAttention"; },
          [](const SqueezeExcite&) { return "SqueezeExcite"; },
          [](const EfficientChannelAttention&) { return "EfficientChannelAttention"; },
          [](const Quantize&) { return "Quantize"; },
          [](const Linear&) { return "Linear"; },
      },
      definition);
}

std::string to_string(const Definition& definition) {
  return concat(kind(definition), "(", fields(definition), ")");
}

std::string Graph::table() const {
  using Row = std::array<std::string, 5>;
  std::vector<Row> rows = {{"layer", "definition", "output", "parameters", "mult-adds (M)"}};
  for (const Layer& layer : layers_) {
    const Cost one = cost(layer);
    rows.push_back({layer.name, to_string(layer.definition), text(layer.shape),
                    one.parameters == 0 ? "" : grouped(one.parameters),
                    one.multiply_adds == 0 ? "" : millions(one.multiply_adds)});
  }

  std::array<size_t, 5> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::ostringstream out;
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const bool is_number = i >= 3;
      out << (i == 0 ? "" : "  ") << (is_number ? std::right : std::left)
          << std::setw(static_cast<int>(widths[i])) << row[i];
    }
    out << '\n';
  }
  const Cost total = cost();
  out << name_ << ": " << layers_.size() << " layers, " << millions(total.parameters)
      << " M parameters, " << std::fixed << std::setprecision(3)
      << 2e-9 * static_cast<double>(total.multiply_adds) << " GFLOPs ("
      << millions(total.multiply_adds) << " M multiply-adds) for one image\n";
  return out.str();
}

}  // namespace resrt
