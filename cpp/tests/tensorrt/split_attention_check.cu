// Checks the plugin's kernels on a GPU against double precision: every size of split attention that
// the catalogue has, and every radix from 1 to 4 with every cardinality from 1 to 4, in each type
// and layout, for several batches, on fresh random numbers; and logits whose powers are beyond what
// float32 holds. Prints a line for each and fails at the end if one was wrong. Takes the random
// numbers' seed, which it prints, to repeat what failed. Run it under compute-sanitizer, too.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "backends/tensorrt/plugin/split_attention.h"
#include "resrt/models.h"

namespace {

using resrt::plugin::Element;
using resrt::plugin::Layout;
using resrt::plugin::SplitAttentionCall;
using resrt::plugin::SplitAttentionSizes;

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Numbers rounded to the type, as the GPU gets them and as the reference reads them.
struct Numbers {
  std::vector<uint8_t> bytes;
  std::vector<double> values;
};

size_t size_of(Element element) {
  return element == Element::fp32 ? 4 : 2;
}

Numbers random_numbers(size_t count, double scale, Element element, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0F, static_cast<float>(scale));
  Numbers numbers{std::vector<uint8_t>(count * size_of(element)), std::vector<double>(count)};
  for (size_t i = 0; i < count; ++i) {
    const float value = normal(random);
    uint8_t* to = numbers.bytes.data() + i * size_of(element);
    if (element == Element::fp32) {
      std::memcpy(to, &value, 4);
      numbers.values[i] = value;
    } else if (element == Element::fp16) {
      const __half rounded = __float2half_rn(value);
      std::memcpy(to, &rounded, 2);
      numbers.values[i] = __half2float(rounded);
    } else {
      const __nv_bfloat16 rounded = __float2bfloat16_rn(value);
      std::memcpy(to, &rounded, 2);
      numbers.values[i] = __bfloat162float(rounded);
    }
  }
  return numbers;
}

double read(const uint8_t* from, Element element) {
  if (element == Element::fp32) {
    float value;
    std::memcpy(&value, from, 4);
    return value;
  }
  if (element == Element::fp16) {
    __half value;
    std::memcpy(&value, from, 2);
    return __half2float(value);
  }
  __nv_bfloat16 value;
  std::memcpy(&value, from, 2);
  return __bfloat162float(value);
}

// A channel of a pixel, in memory.
size_t position(Layout layout, int channels, int pixels, int image, int channel, int pixel) {
  const size_t first = size_t(image) * channels * pixels;
  return layout == Layout::planes ? first + size_t(channel) * pixels + pixel
                                  : first + size_t(pixel) * channels + channel;
}

struct Case {
  SplitAttentionSizes sizes;
  int side;
  Element element;
  Layout layout;
  int batch;
  double fc2_bias;  // how large it is, and so the logits
};

struct Inputs {
  Numbers x, fc1_weight, fc1_bias, fc2_weight, fc2_bias;
};

// graph.h's definition of the block, to the letter; (batch, channels, pixels) in the layout.
std::vector<double> reference(const SplitAttentionSizes& s, Layout layout, int batch, int pixels,
                              const Inputs& in) {
  const int all = s.radix * s.channels;
  const int group_channels = s.channels / s.cardinality;
  const int group_hidden = s.hidden / s.cardinality;
  std::vector<double> y(size_t(batch) * s.channels * pixels);
  for (int n = 0; n < batch; ++n) {
    std::vector<double> gap(s.channels), hidden(s.hidden), z(all), attention(all);
    for (int c = 0; c < all; ++c) {
      for (int p = 0; p < pixels; ++p) {
        gap[c % s.channels] += in.x.values[position(layout, all, pixels, n, c, p)] / pixels;
      }
    }
    for (int h = 0; h < s.hidden; ++h) {
      double sum = in.fc1_bias.values[h];
      for (int i = 0; i < group_channels; ++i) {
        sum += in.fc1_weight.values[size_t(h) * group_channels + i] *
               gap[h / group_hidden * group_channels + i];
      }
      hidden[h] = std::max(sum, 0.0);
    }
    for (int row = 0; row < all; ++row) {
      z[row] = in.fc2_bias.values[row];
      for (int i = 0; i < group_hidden; ++i) {
        z[row] += in.fc2_weight.values[size_t(row) * group_hidden + i] *
                  hidden[row / (all / s.cardinality) * group_hidden + i];
      }
    }
    for (int c = 0; c < s.channels; ++c) {
      const auto logit = [&](int r) {
        return z[(c / group_channels * s.radix + r) * group_channels + c % group_channels];
      };
      double most = logit(0);
      for (int r = 1; r < s.radix; ++r) most = std::max(most, logit(r));
      double total = 0.0;
      for (int r = 0; r < s.radix; ++r) total += std::exp(logit(r) - most);
      for (int r = 0; r < s.radix; ++r) {
        attention[r * s.channels + c] =
            s.radix == 1 ? 1.0 / (1.0 + std::exp(-logit(r))) : std::exp(logit(r) - most) / total;
      }
    }
    for (int c = 0; c < s.channels; ++c) {
      for (int p = 0; p < pixels; ++p) {
        double sum = 0.0;
        for (int r = 0; r < s.radix; ++r) {
          const int channel = r * s.channels + c;
          sum += attention[channel] * in.x.values[position(layout, all, pixels, n, channel, p)];
        }
        y[position(layout, s.channels, pixels, n, c, p)] = sum;
      }
    }
  }
  return y;
}

void* upload(const std::vector<uint8_t>& bytes) {
  void* pointer = nullptr;
  check(cudaMalloc(&pointer, bytes.size()), "cudaMalloc");
  check(cudaMemcpy(pointer, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
  return pointer;
}

bool is_right(const Case& c, std::mt19937& random) {
  const auto& [s, side, element, layout, batch, fc2_bias] = c;
  const int pixels = side * side;
  const int all = s.radix * s.channels;
  const auto numbers = [&](size_t count, double scale) {
    return random_numbers(count, scale, c.element, random);
  };
  const Inputs in = {numbers(size_t(batch) * all * pixels, 1.0),
                     numbers(size_t(s.hidden) * s.channels / s.cardinality, 1.0),
                     numbers(s.hidden, 0.5), numbers(size_t(all) * s.hidden / s.cardinality, 0.3),
                     numbers(all, fc2_bias)};
  std::vector<uint8_t> y(size_t(batch) * s.channels * pixels * size_of(element), 0xFF);
  const size_t workspace = resrt::plugin::split_attention_workspace(s, batch, pixels, layout);
  const SplitAttentionCall call = {
      s,
      element,
      layout,
      batch,
      pixels,
      upload(in.x.bytes),
      upload(in.fc1_weight.bytes),
      upload(in.fc1_bias.bytes),
      upload(in.fc2_weight.bytes),
      upload(in.fc2_bias.bytes),
      upload(y),
      upload(std::vector<uint8_t>(workspace, 0xFF)),
  };
  check(resrt::plugin::split_attention(call, nullptr), "launch");
  check(cudaMemcpy(y.data(), call.y, y.size(), cudaMemcpyDeviceToHost), "run");
  for (const void* pointer :
       {call.x, call.fc1_weight, call.fc1_bias, call.fc2_weight, call.fc2_bias,
        const_cast<const void*>(call.y), const_cast<const void*>(call.workspace)}) {
    check(cudaFree(const_cast<void*>(pointer)), "cudaFree");
  }

  const std::vector<double> expected = reference(s, layout, batch, pixels, in);
  double most = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double found = read(y.data() + i * size_of(element), element);
    const double error = std::abs(found - expected[i]) / std::max(1.0, std::abs(expected[i]));
    most = std::isnan(found) ? INFINITY : std::max(most, error);
  }
  // Half of the last digit of the output; the computation itself is in float32, with powers whose
  // last digits are the GPU's own.
  const double tolerance = element == Element::fp32 ? 5e-5 : element == Element::fp16 ? 6e-4 : 5e-3;
  const char* const names[] = {"fp32", "fp16", "bf16"};
  std::printf(
      "%s %d x %3d channels, cardinality %d, hidden %3d, %3d x %3d, batch %2d, bias %5.1f, "
      "%s %s: largest error %.1e\n",
      most <= tolerance ? "ok   " : "WRONG", s.radix, s.channels, s.cardinality, s.hidden, side,
      side, batch, fc2_bias, names[static_cast<int>(element)],
      layout == Layout::planes ? "planes" : "channels last", most);
  return most <= tolerance;
}

// (channels, radix, cardinality, hidden, side) of every split attention of the catalogue, and more.
std::set<std::tuple<int, int, int, int, int>> all_sizes() {
  std::set<std::tuple<int, int, int, int, int>> sizes;
  for (const resrt::Model& model : resrt::catalog()) {
    const resrt::Graph graph = resrt::build_graph(model.name);
    for (const resrt::Layer& layer : graph.layers()) {
      if (const auto* block = std::get_if<resrt::SplitAttention>(&layer.definition)) {
        sizes.insert(
            {block->channels, block->radix, block->cardinality, block->hidden, layer.shape.height});
      }
    }
  }
  for (int radix = 1; radix <= 4; ++radix) {
    for (int cardinality = 1; cardinality <= 4; ++cardinality) {
      for (const int side : {1, 5, 14}) {
        sizes.insert({24 * cardinality, radix, cardinality, 8 * cardinality, side});
        sizes.insert({5 * cardinality, radix, cardinality, 3 * cardinality, side});
      }
    }
  }
  return sizes;
}

// Every type and layout that there is for the sizes.
void add_cases(std::vector<Case>& cases, const SplitAttentionSizes& sizes, int side,
               const std::vector<int>& batches, double fc2_bias) {
  if (!resrt::plugin::split_attention_fits(sizes))
    throw std::runtime_error("a size that does not fit");
  for (const Element element : {Element::fp32, Element::fp16, Element::bf16}) {
    for (const Layout layout : {Layout::planes, Layout::channels_last}) {
      if (layout == Layout::channels_last &&
          (element == Element::fp32 || sizes.channels % 8 != 0)) {
        continue;
      }
      for (const int batch : batches) {
        cases.push_back({sizes, side, element, layout, batch, fc2_bias});
      }
    }
  }
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto& [channels, radix, cardinality, hidden, side] : all_sizes()) {
    add_cases(cases, {channels, radix, cardinality, hidden}, side, {1, 3}, 0.5);
  }
  // A power of more than 88 is infinite in float32, and so the softmax must not take it.
  for (const int radix : {1, 2, 3}) add_cases(cases, {64, radix, 1, 32}, 8, {2}, 100.0);
  return cases;
}

unsigned read_seed(int count, char** arguments) {
  if (count == 1) return std::random_device{}();
  char* end = nullptr;
  const unsigned long seed = std::strtoul(arguments[1], &end, 10);
  if (count > 2 || *end != '\0')
    throw std::runtime_error("the only argument is the random numbers' seed, a whole number");
  return static_cast<unsigned>(seed);
}

}  // namespace

int main(int count, char** arguments) try {
  const unsigned seed = read_seed(count, arguments);
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "no GPU can be used");
  std::printf("%s, compute capability %d.%d, seed %u\n", device.name, device.major, device.minor,
              seed);
  std::mt19937 random(seed);
  const std::vector<Case> cases = all_cases();
  int wrong = 0;
  for (const Case& c : cases) wrong += !is_right(c, random);
  std::printf("%d of %zu wrong, seed %u\n", wrong, cases.size(), seed);
  return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return EXIT_FAILURE;
}
