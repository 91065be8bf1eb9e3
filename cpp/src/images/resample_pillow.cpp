#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "images/resample.h"

namespace resrt {
namespace {

// Weights are integer multiples of 2^-22, so that 255 times their sum fits a signed 32-bit integer.
constexpr int kPrecision = 32 - 8 - 2;

double triangle(double x) {
  return std::max(0.0, 1.0 - std::abs(x));
}

// Keys' cubic convolution with a = -0.5.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos3(double x) {
  return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
}

struct Kernel {
  double (*weight)(double);
  double radius;
};

Kernel kernel_of(Filter filter) {
  switch (filter) {
    case Filter::bilinear: return {triangle, 1.0};
    case Filter::bicubic: return {cubic, 2.0};
    case Filter::lanczos: break;
  }
  return {lanczos3, 3.0};
}

// An output pixel along one axis: the weighted sum of the image's pixels from `first` on.
struct Taps {
  int64_t first;
  std::vector<int> weights;
};

Taps taps(const Kernel& kernel, int64_t index, int64_t from, int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double stretch = std::max(scale, 1.0);
  const double support = kernel.radius * stretch;
  const double center = (static_cast<double>(index) + 0.5) * scale;
  const double inverse = 1.0 / stretch;
  const auto first = static_cast<int64_t>(std::max(center - support + 0.5, 0.0));
  const auto end =
      static_cast<int64_t>(std::min(center + support + 0.5, static_cast<double>(from)));
  std::vector<double> weights;
  double sum = 0.0;
  for (int64_t i = 0; i < end - first; ++i) {
    weights.push_back(kernel.weight((static_cast<double>(i + first) - center + 0.5) * inverse));
    sum += weights.back();
  }
  Taps taps{first, {}};
  for (double weight : weights) {
    if (sum != 0.0) weight /= sum;
    weight *= 1 << kPrecision;
    taps.weights.push_back(static_cast<int>(weight < 0 ? weight - 0.5 : weight + 0.5));
  }
  return taps;
}

std::vector<Taps> taps_of(const Kernel& kernel, int64_t offset, int count, int64_t from,
                          int64_t to) {
  std::vector<Taps> all;
  for (int i = 0; i < count; ++i) all.push_back(taps(kernel, offset + i, from, to));
  return all;
}

uint8_t to_pixel(int sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kPrecision, 0, 255));
}

// The number of channels is a template parameter so that the compiler can unroll the loops over it.
template <size_t channels>
void filter_row(const uint8_t* row, const std::vector<Taps>& columns, uint8_t* out) {
  for (const Taps& column : columns) {
    std::array<int, channels> sums;
    sums.fill(1 << (kPrecision - 1));
    const uint8_t* pixel = row + static_cast<size_t>(column.first) * channels;
    for (const int weight : column.weights) {
      for (int& sum : sums) sum += *pixel++ * weight;
    }
    for (const int sum : sums) *out++ = to_pixel(sum);
  }
}

}  // namespace

std::vector<uint8_t> resize_like_pillow(const ImageView& image, Filter filter, Size size,
                                        const Crop& crop) {
  const Kernel kernel = kernel_of(filter);
  const auto columns = taps_of(kernel, crop.left, crop.width, image.width, size.width);
  const auto rows = taps_of(kernel, crop.top, crop.height, image.height, size.height);
  const int64_t first = rows.front().first;
  const int64_t end = rows.back().first + static_cast<int64_t>(rows.back().weights.size());

  const auto pitch = static_cast<size_t>(crop.width) * static_cast<size_t>(image.channels);
  std::vector<uint8_t> narrowed(static_cast<size_t>(end - first) * pitch);
  for (int64_t y = first; y < end; ++y) {
    const uint8_t* row = image.pixels + y * image.width * image.channels;
    uint8_t* out = narrowed.data() + static_cast<size_t>(y - first) * pitch;
    image.channels == 3 ? filter_row<3>(row, columns, out) : filter_row<1>(row, columns, out);
  }

  std::vector<uint8_t> resized(rows.size() * pitch);
  std::vector<int> sums(pitch);
  uint8_t* out = resized.data();
  for (const Taps& row : rows) {
    std::fill(sums.begin(), sums.end(), 1 << (kPrecision - 1));
    const uint8_t* pixel = narrowed.data() + static_cast<size_t>(row.first - first) * pitch;
    for (const int weight : row.weights) {
      for (size_t i = 0; i < pitch; ++i) sums[i] += *pixel++ * weight;
    }
    for (const int sum : sums) *out++ = to_pixel(sum);
  }
  return resized;
}

}  // namespace resrt
