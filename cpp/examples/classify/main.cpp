// Classifies photographs: decodes them with libjpeg, preprocesses them as the engine's weights
// expect, and prints the most probable classes.
//
//   classify resnest50.engine cat.jpg dog.jpg
//
// The orientation in the EXIF data is ignored, so photographs taken sideways are not rotated.

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iomanip>
#include <iostream>
#include <jpeglib.h>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <resrt/engine.h>
#include <resrt/images.h>

namespace {

struct Image {
  std::vector<uint8_t> pixels;
  int width = 0;
  int height = 0;
  int channels = 0;
};

// libjpeg reports errors through a function that must not return.
struct Errors : jpeg_error_mgr {
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void jump_back(j_common_ptr decoder) {
  auto* errors = static_cast<Errors*>(decoder->err);
  errors->format_message(decoder, errors->message);
  std::longjmp(errors->back, 1);
}

// Returns false on failure. It must have no locals with destructors, which longjmp would skip.
bool decode(jpeg_decompress_struct& decoder, Errors& errors, std::FILE* file, Image& image) {
  if (setjmp(errors.back) != 0) return false;
  jpeg_stdio_src(&decoder, file);
  jpeg_read_header(&decoder, TRUE);
  decoder.out_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&decoder);
  image.width = static_cast<int>(decoder.output_width);
  image.height = static_cast<int>(decoder.output_height);
  const size_t row = size_t{decoder.output_width} * static_cast<size_t>(image.channels);
  image.pixels.resize(row * decoder.output_height);
  while (decoder.output_scanline < decoder.output_height) {
    JSAMPROW line = image.pixels.data() + row * decoder.output_scanline;
    jpeg_read_scanlines(&decoder, &line, 1);
  }
  jpeg_finish_decompress(&decoder);
  return true;
}

Image read_jpeg(const std::string& path, int channels) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             std::fclose);
  if (file == nullptr) throw std::runtime_error("cannot read " + path);
  Image image;
  image.channels = channels;
  Errors errors;
  jpeg_decompress_struct decoder;
  decoder.err = jpeg_std_error(&errors);
  errors.error_exit = jump_back;
  jpeg_create_decompress(&decoder);
  const bool is_decoded = decode(decoder, errors, file.get(), image);
  jpeg_destroy_decompress(&decoder);
  if (!is_decoded) throw std::runtime_error(path + ": " + errors.message);
  return image;
}

void print_best(const std::vector<float>& logits, const std::vector<std::string>& labels) {
  double sum = 0;
  const float largest = *std::max_element(logits.begin(), logits.end());
  for (const float logit : logits) sum += std::exp(double{logit} - largest);
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  order.resize(std::min<size_t>(order.size(), 5));
  for (const size_t index : order) {
    std::cout << std::fixed << std::setprecision(1) << std::setw(7)
              << 100 * std::exp(double{logits[index]} - largest) / sum << "% "
              << (labels.empty() ? std::to_string(index) : labels[index]) << " (logit "
              << std::defaultfloat << std::setprecision(9) << logits[index] << ")\n";
  }
}

void run(const std::string& engine_path, const std::vector<std::string>& photographs) {
  const resrt::Engine engine = resrt::Engine::load(engine_path);
  const resrt::EngineInfo& info = engine.info();
  std::vector<float> input(static_cast<size_t>(info.input.size()));
  for (const std::string& path : photographs) {
    const Image image = read_jpeg(path, info.input.channels);
    resrt::preprocess({image.pixels.data(), image.width, image.height, image.channels},
                      info.notes.preprocessing, info.input, input.data());
    std::cout << path << ":\n";
    print_best(engine.infer(input), info.notes.labels);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: classify ENGINE PHOTOGRAPH.jpg...\n";
    return EXIT_FAILURE;
  }
  try {
    run(argv[1], {argv + 2, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "classify: " << error.what() << '\n';
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
