// Shares one engine between several threads, as a server does. Each thread takes the next image,
// infers its logits and records the latency.
//
//   shared_engine resnest50.engine images.f32 logits.f32 [THREADS]
//
// images.f32 contains float32 images as the engine expects them, one after another, such as a
// prepared batch written by NumPy's tofile. NumPy's fromfile can read logits.f32.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <future>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <resrt/engine.h>

namespace {

std::vector<float> read_floats(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<float> values(static_cast<size_t>(file.tellg()) / sizeof(float));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(float)));
  return values;
}

void write_floats(const std::string& path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

// The threads' shared data. Engines are thread-safe, and no two threads write the same logits.
struct Work {
  const resrt::Engine& engine;
  std::span<const float> images;
  std::span<float> logits;
  size_t count;
  std::atomic<size_t> next = 0;
};

// Infers images until none is left and returns the latencies in milliseconds.
std::vector<double> infer_images(Work& work) {
  using Clock = std::chrono::steady_clock;
  const auto image = static_cast<size_t>(work.engine.info().input.size());
  const auto classes = static_cast<size_t>(work.engine.info().classes);
  std::vector<double> latencies;
  for (size_t i = work.next++; i < work.count; i = work.next++) {
    const Clock::time_point start = Clock::now();
    work.engine.infer(work.images.subspan(i * image, image),
                      work.logits.subspan(i * classes, classes));
    latencies.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  return latencies;
}

// Each bin spans a factor of the square root of two.
void print_histogram(const std::vector<double>& latencies) {
  std::map<int, size_t> bins;
  for (const double latency : latencies) {
    ++bins[static_cast<int>(std::floor(2 * std::log2(latency)))];
  }
  size_t most = 0;
  for (const auto& [bin, count] : bins) most = std::max(most, count);
  std::cout << std::fixed << std::setprecision(3);
  for (const auto& [bin, count] : bins) {
    std::cout << std::setw(10) << std::exp2(bin / 2.0) << " ms " << std::setw(7) << count << ' '
              << std::string((50 * count + most - 1) / most, '#') << '\n';
  }
}

void run(const std::string& engine_path, const std::string& images_path,
         const std::string& logits_path, int threads) {
  // One core per inference, so that as many run at once as there are cores.
  const resrt::Engine engine = resrt::Engine::load(engine_path, {.threads = 1});
  const std::vector<float> images = read_floats(images_path);
  const size_t count = images.size() / static_cast<size_t>(engine.info().input.size());
  if (count == 0) throw std::runtime_error("no images in " + images_path);
  std::vector<float> logits(count * static_cast<size_t>(engine.info().classes));

  Work work{engine, images, logits, count};
  std::vector<std::future<std::vector<double>>> workers;
  for (int i = 0; i < threads; ++i) {
    workers.push_back(std::async(std::launch::async, infer_images, std::ref(work)));
  }
  std::vector<double> latencies;
  for (auto& worker : workers) {
    const std::vector<double> its_latencies = worker.get();  // rethrows the worker's exception
    latencies.insert(latencies.end(), its_latencies.begin(), its_latencies.end());
  }
  write_floats(logits_path, logits);
  std::cout << count << " images on " << threads << " threads; latencies from\n";
  print_histogram(latencies);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc == 5 ? std::atoi(argv[4]) : 4;
  if (argc < 4 || argc > 5 || threads < 1) {
    std::cerr << "usage: shared_engine ENGINE IMAGES.f32 LOGITS.f32 [THREADS]\n";
    return EXIT_FAILURE;
  }
  try {
    run(argv[1], argv[2], argv[3], threads);
  } catch (const std::exception& error) {
    std::cerr << "shared_engine: " << error.what() << '\n';
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
