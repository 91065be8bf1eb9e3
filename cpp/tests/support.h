#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include "resrt/engine.h"
#include "resrt/graph.h"
#include "resrt/weights.h"

namespace resrt::test {

// A temporary path, unique to a test. Its file is removed by the destructor.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& name)
      : path_(std::filesystem::temp_directory_path() /
              ("resrt-" + std::to_string(::getpid()) + "-" + name)) {}
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  std::string path() const { return path_.string(); }

  // Makes the file as long as a machine's memory, with a hole at its end.
  void enlarge() const { std::filesystem::resize_file(path_, uint64_t{8} << 30U); }

  // Makes the file look older, because a reader waits until a file is 10 ms old.
  void age() const {
    std::filesystem::last_write_time(
        path_, std::filesystem::file_time_type::clock::now() - std::chrono::seconds(1));
  }

  void write(std::string_view bytes) const {
    std::ofstream(path_, std::ios::binary).write(bytes.data(), std::ssize(bytes));
  }
  std::string read() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::filesystem::path path_;
};

// Returns how many bytes this process has read from files.
inline uint64_t bytes_read() {
  std::ifstream counters("/proc/self/io");
  std::string name;
  uint64_t count = 0;
  counters >> name >> count;  // "rchar: 123"
  return count;
}

// A network that builds quickly and has most kinds of layers, for 3x12x12 images and 5 classes.
inline Graph tiny_graph() {
  Graph graph("tiny");
  Tensor x = graph.add("input", Input{.channels = 3, .height = 12, .width = 12});
  x = graph.add("conv", Conv2d{.out_channels = 16, .kernel = 3, .padding = 1}, {x});
  x = graph.add("bn", BatchNorm2d{}, {x});
  x = graph.add("act", Relu{}, {x});
  x = graph.add("attention",
                SplitAttention{.channels = 8, .radix = 2, .cardinality = 1, .hidden = 8}, {x});
  x = graph.add("pool", GlobalAvgPool2d{}, {x});
  graph.add("fc", Linear{.out_features = 5}, {x});
  return graph;
}

inline Engine tiny_engine(const LoadOptions& load = {}) {
  const Graph graph = tiny_graph();
  return Engine::build(graph, random_weights(graph), {.precision = Precision::fp32, .max_batch = 2},
                       load);
}

// Returns images of noise for an engine, the same for the same seed.
inline std::vector<float> noise(const Engine& engine, int64_t batch, unsigned seed = 0) {
  std::mt19937 random(seed);
  std::vector<float> images(static_cast<size_t>(batch * engine.info().input.size()));
  for (float& value : images) value = static_cast<float>(random()) * 0x1p-31F - 1;
  return images;
}

}  // namespace resrt::test
