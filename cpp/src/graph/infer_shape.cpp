#include "graph/infer_shape.h"

#include <cmath>

#include "graph/overloaded.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

std::string text(const Shape& shape) {
  return concat(shape.channels, "x", shape.height, "x", shape.width);
}

void require_positive(const char* what, int value, int most = kMostChannels) {
  if (value < 1 || value > most) {
    throw ModelError(concat(what, " must be at least 1 and at most ", most, ", not ", value));
  }
}

void require_divisible(const char* what, int value, const char* by_what, int by) {
  require_positive(what, value);
  require_positive(by_what, by);
  if (value % by != 0) {
    throw ModelError(concat(what, " (", value, ") must be a multiple of ", by_what, " (", by, ")"));
  }
}

void require_same(const Shape& left, const Shape& right) {
  if (left != right) {
    throw ModelError(
        concat("expected tensors of the same shape, got ", text(left), " and ", text(right)));
  }
}

// Returns the number of positions of a window of `kernel` along an axis, as PyTorch counts them.
int window_positions(int size, int kernel, int stride, int padding, bool ceil_mode = false) {
  require_positive("kernel", kernel, kLargestSide);
  require_positive("stride", stride, kLargestSide);
  if (padding < 0 || padding >= kernel) {
    throw ModelError(concat("padding must be at least 0 and less than the kernel (", kernel,
                            "), not ", padding));
  }
  // With ceil_mode the last window may extend beyond the end, but it must start before the end.
  const int slack = size + 2 * padding - kernel + (ceil_mode ? stride - 1 : 0);
  if (slack < 0) {
    throw ModelError(concat("the kernel (", kernel, ") is larger than the input (", size,
                            ") with padding ", padding, "; use a larger input size"));
  }
  const int positions = slack / stride + 1;
  return ceil_mode && (positions - 1) * stride >= size + padding ? positions - 1 : positions;
}

}  // namespace

Shape infer_shape(const Definition& definition, const std::vector<Shape>& inputs) {
  const auto require_inputs = [&](size_t count) {
    if (inputs.size() != count) {
      throw ModelError(
          concat(kind(definition), " requires ", count, " input(s), got ", inputs.size()));
    }
  };
  const auto one_input = [&]() -> const Shape& {
    require_inputs(1);
    return inputs.front();
  };
  const auto windows = [](const Shape& x, int channels, int kernel, int stride, int padding,
                          bool ceil_mode = false) {
    return Shape{channels, window_positions(x.height, kernel, stride, padding, ceil_mode),
                 window_positions(x.width, kernel, stride, padding, ceil_mode)};
  };

  return std::visit(
      Overloaded{
          [&](const Input& input) {
            require_inputs(0);
            require_positive("the number of input channels", input.channels);
            require_positive("the input's height", input.height, kLargestSide);
            require_positive("the input's width", input.width, kLargestSide);
            return Shape{input.channels, input.height, input.width};
          },
          [&](const Conv2d& conv) {
            require_inputs(conv.residual ? 2 : 1);
            const Shape& x = inputs.front();
            require_divisible("input channels", x.channels, "groups", conv.groups);
            require_divisible("output channels", conv.out_channels, "groups", conv.groups);
            const Shape y = windows(x, conv.out_channels, conv.kernel, conv.stride, conv.padding);
            if (conv.residual) require_same(y, inputs.back());
            if (conv.weight_bits != 0 && (conv.weight_bits < 2 || conv.weight_bits > 8)) {
              throw ModelError(
                  concat("weight_bits must be 0 or from 2 to 8, not ", conv.weight_bits));
            }
            return y;
          },
          [&](const BatchNorm2d&) { return one_input(); },
          [&](const Relu&) { return one_input(); },
          [&](const Silu&) { return one_input(); },
          [&](const MaxPool2d& pool) {
            const Shape& x = one_input();
            return windows(x, x.channels, pool.kernel, pool.stride, pool.padding);
          },
          [&](const AvgPool2d& pool) {
            const Shape& x = one_input();
            if (pool.ceil_mode && pool.count_include_pad) {
              throw ModelError("AvgPool2d does not support ceil_mode with count_include_pad");
            }
            return windows(x, x.channels, pool.kernel, pool.stride, pool.padding, pool.ceil_mode);
          },
          [&](const BlurPool2d& pool) {
            const Shape& x = one_input();
            if (x.height < 2 || x.width < 2) {
              throw ModelError(concat("BlurPool2d requires at least 2x2 pixels, got ", text(x),
                                      "; use a larger input size"));
            }
            return windows(x, x.channels, 3, pool.stride, 1);
          },
          [&](const PadChannels& pad) {
            const Shape& x = one_input();
            if (pad.before < 0 || pad.after < 0) {
              throw ModelError(concat("the numbers of added channels must be at least 0, not ",
                                      pad.before, " and ", pad.after));
            }
            const int64_t channels = int64_t{x.channels} + pad.before + pad.after;
            if (channels > kMostChannels) {
              throw ModelError(
                  concat("at most ", kMostChannels, " channels are supported, not ", channels));
            }
            return Shape{static_cast<int>(channels), x.height, x.width};
          },
          [&](const GlobalAvgPool2d&) { return Shape{one_input().channels, 1, 1}; },
          [&](const Add&) {
            require_inputs(2);
            require_same(inputs.front(), inputs.back());
            return inputs.front();
          },
          [&](const SplitAttention& block) {
            const Shape& x = one_input();
            require_positive("radix", block.radix);
            require_divisible("channels", block.channels, "cardinality", block.cardinality);
            require_divisible("hidden channels", block.hidden, "cardinality", block.cardinality);
            if (x.channels != int64_t{block.radix} * block.channels) {
              throw ModelError(concat("expected an input of radix (", block.radix,
                                      ") times channels (", block.channels, ") channels, got ",
                                      x.channels));
            }
            return Shape{block.channels, x.height, x.width};
          },
          [&](const SqueezeExcite& block) {
            require_positive("hidden channels", block.hidden);
            return one_input();
          },
          [&](const EfficientChannelAttention& block) {
            require_positive("kernel", block.kernel);
            if (block.kernel % 2 == 0) {
              throw ModelError(concat("the kernel must be odd, not ", block.kernel));
            }
            return one_input();
          },
          [&](const Quantize& quantize) {
            if (!std::isfinite(quantize.scale) || quantize.scale <= 0) {
              throw ModelError(
                  concat("the scale must be a positive, finite number, not ", quantize.scale));
            }
            return one_input();
          },
          [&](const Linear& linear) {
            const Shape& x = one_input();
            require_positive("out_features", linear.out_features);
            if (x.height != 1 || x.width != 1) {
              throw ModelError(concat("Linear requires a vector, got ", text(x)));
            }
            return Shape{linear.out_features, 1, 1};
          },
      },
      definition);
}

}  // namespace resrt
