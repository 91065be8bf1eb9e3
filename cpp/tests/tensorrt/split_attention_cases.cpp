#include "split_attention_cases.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <limits>
#include <set>
#include <stdexcept>
#include <tuple>

#include "resrt/models.h"

namespace resrt::plugin::test {
namespace {

size_t size_of(Element element) {
  return static_cast<size_t>(bytes_of(element));
}

template <class T>
double read_as(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return static_cast<float>(value);
}

double read(const uint8_t* from, Element element) {
  switch (element) {
    case Element::fp32: return read_as<float>(from);
    case Element::fp16: return read_as<__half>(from);
    case Element::bf16: return read_as<__nv_bfloat16>(from);
  }
  throw std::logic_error("invalid element type");
}

template <class T>
void write_as(T value, uint8_t* to) {
  std::memcpy(to, &value, sizeof value);
}

void write(float value, uint8_t* to, Element element) {
  switch (element) {
    case Element::fp32: return write_as(value, to);
    case Element::fp16: return write_as(__float2half_rn(value), to);
    case Element::bf16: return write_as(__float2bfloat16_rn(value), to);
  }
}

Numbers random_numbers(size_t count, double scale, Element element, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, static_cast<float>(scale));
  Numbers numbers{std::vector<uint8_t>(count * size_of(element)), std::vector<double>(count)};
  for (size_t i = 0; i < count; ++i) {
    uint8_t* at = numbers.bytes.data() + i * size_of(element);
    write(normal(random), at, element);
    numbers.values[i] = read(at, element);
  }
  return numbers;
}

// The sizes of a case as size_t, for index arithmetic.
struct Extents {
  explicit Extents(const Problem& problem)
      : batch(static_cast<size_t>(problem.batch)),
        pixels(static_cast<size_t>(problem.pixels())),
        channels(static_cast<size_t>(problem.sizes.channels)),
        radix(static_cast<size_t>(problem.sizes.radix)),
        all_channels(radix * channels),
        cardinality(static_cast<size_t>(problem.sizes.cardinality)),
        group_channels(channels / cardinality),
        hidden(static_cast<size_t>(problem.sizes.hidden)),
        group_hidden(hidden / cardinality) {}

  size_t batch, pixels, channels, radix, all_channels, cardinality, group_channels, hidden,
      group_hidden;
};

Inputs random_inputs(const Case& c, std::mt19937& random) {
  const Extents e(c.problem);
  const auto numbers = [&](size_t count, double scale) {
    return random_numbers(count, scale, c.problem.element, random);
  };
  return {.x = numbers(e.batch * e.all_channels * e.pixels, 1.0),
          .fc1_weight = numbers(e.hidden * e.group_channels, 1.0),
          .fc1_bias = numbers(e.hidden, 0.5),
          .fc2_weight = numbers(e.all_channels * e.group_hidden, 0.3),
          .fc2_bias = numbers(e.all_channels, c.fc2_bias)};
}

// Computes the attention of an image, (radix, channels), from the means of the sum of its splits,
// (channels).
std::vector<double> attention_of(const Extents& e, const std::vector<double>& means,
                                 const Inputs& in) {
  std::vector<double> hidden(e.hidden);
  for (size_t h = 0; h < e.hidden; ++h) {
    double sum = in.fc1_bias.values[h];
    for (size_t i = 0; i < e.group_channels; ++i) {
      sum += in.fc1_weight.values[h * e.group_channels + i] *
             means[h / e.group_hidden * e.group_channels + i];
    }
    hidden[h] = std::max(sum, 0.0);
  }
  std::vector<double> logits(e.all_channels);  // cardinality-major
  for (size_t row = 0; row < e.all_channels; ++row) {
    logits[row] = in.fc2_bias.values[row];
    for (size_t i = 0; i < e.group_hidden; ++i) {
      logits[row] += in.fc2_weight.values[row * e.group_hidden + i] *
                     hidden[row / (e.all_channels / e.cardinality) * e.group_hidden + i];
    }
  }
  std::vector<double> attention(e.all_channels);
  for (size_t c = 0; c < e.channels; ++c) {
    const auto logit = [&](size_t r) {
      return logits[(c / e.group_channels * e.radix + r) * e.group_channels + c % e.group_channels];
    };
    double most = logit(0);
    for (size_t r = 1; r < e.radix; ++r) most = std::max(most, logit(r));
    double total = 0.0;
    for (size_t r = 0; r < e.radix; ++r) total += std::exp(logit(r) - most);
    for (size_t r = 0; r < e.radix; ++r) {
      attention[r * e.channels + c] =
          e.radix == 1 ? 1.0 / (1.0 + std::exp(-logit(r))) : std::exp(logit(r) - most) / total;
    }
  }
  return attention;
}

// Returns the averages over the windows of a pooling, of values of (height, width).
std::vector<double> pooled(const Problem& problem, const std::vector<double>& values) {
  if (problem.pooling == Pooling::none) return values;
  std::vector<double> averages;
  for (int row = 0; row < problem.height; row += 2) {
    for (int column = 0; column < problem.width; column += 2) {
      double sum = 0.0;
      int inside = 0;
      for (int y = row - 1; y <= row + 1; ++y) {
        for (int x = column - 1; x <= column + 1; ++x) {
          if (y < 0 || y >= problem.height || x < 0 || x >= problem.width) continue;
          sum += values[static_cast<size_t>(y * problem.width + x)];
          ++inside;
        }
      }
      averages.push_back(sum / (problem.pooling == Pooling::padded ? 9 : inside));
    }
  }
  return averages;
}

// Returns y, (batch, channels, output pixels) in the case's layout, computed as graph.h defines the
// block and the pooling.
std::vector<double> reference(const Case& c, const Inputs& in) {
  const Extents e(c.problem);
  const auto outputs = static_cast<size_t>(c.problem.output_pixels());
  const auto position = [&](size_t image, size_t channel, size_t pixel, size_t channels,
                            size_t pixels) {
    const size_t first = image * channels * pixels;
    return c.problem.layout == Layout::planes ? first + channel * pixels + pixel
                                              : first + pixel * channels + channel;
  };
  std::vector<double> y(e.batch * e.channels * outputs);
  for (size_t image = 0; image < e.batch; ++image) {
    const auto x = [&](size_t channel, size_t pixel) {
      return in.x.values[position(image, channel, pixel, e.all_channels, e.pixels)];
    };
    std::vector<double> means(e.channels);
    for (size_t channel = 0; channel < e.all_channels; ++channel) {
      double sum = 0.0;
      for (size_t pixel = 0; pixel < e.pixels; ++pixel) sum += x(channel, pixel);
      means[channel % e.channels] += sum / static_cast<double>(e.pixels);
    }
    const std::vector<double> attention = attention_of(e, means, in);
    for (size_t channel = 0; channel < e.channels; ++channel) {
      std::vector<double> weighted(e.pixels);
      for (size_t pixel = 0; pixel < e.pixels; ++pixel) {
        for (size_t r = 0; r < e.radix; ++r) {
          const size_t of_split = r * e.channels + channel;
          weighted[pixel] += attention[of_split] * x(of_split, pixel);
        }
      }
      const std::vector<double> values = pooled(c.problem, weighted);
      for (size_t pixel = 0; pixel < outputs; ++pixel) {
        y[position(image, channel, pixel, e.channels, outputs)] = values[pixel];
      }
    }
  }
  return y;
}

void add_cases(std::vector<Case>& cases, const Block& block, int batch, double fc2_bias,
               const Gpu& gpu) {
  if (!split_attention_fits(block.sizes)) throw std::runtime_error("unsupported block");
  for (const Element element : {Element::fp32, Element::fp16, Element::bf16}) {
    for (const Layout layout : {Layout::planes, Layout::channels_last}) {
      for (const Variant variant : {Variant::passes, Variant::tickets, Variant::cluster}) {
        const Problem problem = {block.sizes,  element,     layout,       batch,
                                 block.height, block.width, block.pooling};
        if (supports(problem, variant, gpu)) cases.push_back({problem, variant, fc2_bias});
      }
    }
  }
}

}  // namespace

std::string describe(const Case& c) {
  const auto& [channels, radix, cardinality, hidden] = c.problem.sizes;
  const char* const elements[] = {"fp32", "fp16", "bf16"};
  const char* const poolings[] = {"", ", pooled", ", pooled inside"};
  const char* const variants[] = {"passes", "tickets", "cluster"};
  char text[200];
  std::snprintf(text, sizeof text,
                "%d x %3d channels, cardinality %d, hidden %3d, %3d x %3d pixels%s, batch %2d, "
                "bias %5.1f, %s %s, %s",
                radix, channels, cardinality, hidden, c.problem.height, c.problem.width,
                poolings[static_cast<int>(c.problem.pooling)], c.problem.batch, c.fc2_bias,
                elements[static_cast<int>(c.problem.element)],
                c.problem.layout == Layout::planes ? "planes" : "channels last",
                variants[static_cast<int>(c.variant)]);
  return text;
}

std::vector<Block> small_blocks() {
  std::vector<Block> blocks;
  const auto add = [&](int radix, int cardinality, int height, int width) {
    blocks.push_back({{24 * cardinality, radix, cardinality, 8 * cardinality}, height, width});
    blocks.push_back({{5 * cardinality, radix, cardinality, 3 * cardinality}, height, width});
  };
  for (int radix = 1; radix <= 4; ++radix) {
    for (int cardinality = 1; cardinality <= 4; ++cardinality) {
      add(radix, cardinality, 2, 3);
      add(radix, cardinality, 5, 5);
    }
    add(radix, 2, 1, 1);
    add(radix, 2, 3, 4);
    add(radix, 2, 20, 26);
  }
  for (const Pooling pooling : {Pooling::padded, Pooling::inside}) {
    for (const int radix : {1, 2, 3}) {
      blocks.push_back({{24, radix, 1, 8}, 9, 7, pooling});
      blocks.push_back({{16, radix, 2, 8}, 34, 6, pooling});
      blocks.push_back({{8, radix, 1, 4}, 1, 2, pooling});
    }
  }
  return blocks;
}

std::vector<Block> blocks_of(const std::vector<std::string>& models) {
  std::set<std::tuple<int, int, int, int, int, int, Pooling>> blocks;
  for (const std::string& model : models) {
    const Graph graph = build_graph(model);
    const auto block_of = [&](Tensor tensor) {
      return std::get_if<SplitAttention>(&graph.layer(tensor).definition);
    };
    const auto insert = [&](const SplitAttention& block, const Shape& shape, Pooling pooling) {
      blocks.insert({block.channels, block.radix, block.cardinality, block.hidden, shape.height,
                     shape.width, pooling});
    };
    for (const Layer& layer : graph.layers()) {
      if (const auto* block = std::get_if<SplitAttention>(&layer.definition)) {
        insert(*block, layer.shape, Pooling::none);
      }
      const auto* pool = std::get_if<AvgPool2d>(&layer.definition);
      if (pool == nullptr) continue;
      if (const SplitAttention* block = block_of(layer.inputs.front())) {
        insert(*block, graph.shape(layer.inputs.front()),
               pool->count_include_pad ? Pooling::padded : Pooling::inside);
      }
    }
  }
  std::vector<Block> result;
  for (const auto& [channels, radix, cardinality, hidden, height, width, pooling] : blocks) {
    result.push_back({{channels, radix, cardinality, hidden}, height, width, pooling});
  }
  return result;
}

std::vector<Case> cases_of(const std::vector<Block>& blocks, const std::vector<int>& batches,
                           const Gpu& gpu) {
  std::vector<Case> cases;
  for (const Block& block : blocks) {
    for (const int batch : batches) add_cases(cases, block, batch, 0.5, gpu);
  }
  return cases;
}

std::vector<Case> cases_of_large_logits(const Gpu& gpu) {
  std::vector<Case> cases;
  for (const int radix : {1, 2, 3}) add_cases(cases, {{64, radix, 1, 32}, 8, 8}, 2, 100.0, gpu);
  return cases;
}

double largest_error(const Case& c, std::mt19937& random, const Compute& compute) {
  const Inputs in = random_inputs(c, random);
  const std::vector<double> expected = reference(c, in);
  // Initialised to NaN, to find elements that the kernels do not write.
  const std::vector<uint8_t> y =
      compute(c, in, std::vector<uint8_t>(expected.size() * size_of(c.problem.element), 0xFF));
  double most = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double found = read(y.data() + i * size_of(c.problem.element), c.problem.element);
    const double error = std::abs(found - expected[i]) / std::max(1.0, std::abs(expected[i]));
    if (std::isnan(error)) return std::numeric_limits<double>::infinity();
    most = std::max(most, error);
  }
  return most;
}

// Half a unit in the last place of the output. The computation itself is in float32, with a GPU's
// approximate exponential function.
double tolerance(Element element) {
  return element == Element::fp32 ? 5e-5 : element == Element::fp16 ? 6e-4 : 5e-3;
}

}  // namespace resrt::plugin::test
