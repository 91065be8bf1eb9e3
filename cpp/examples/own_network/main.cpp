// Builds a custom network, from layer definitions to an engine file. It distinguishes vertical from
// horizontal stripes, with weights that are set by hand.
//
//   own_network stripes.engine

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <vector>

#include <resrt/engine.h>
#include <resrt/graph.h>
#include <resrt/weights.h>

namespace {

constexpr int kSide = 32;

// Computes edge strengths with one channel per direction and sign, averages them over the image and
// sums them for each class.
resrt::Graph stripes_graph() {
  resrt::Graph graph("stripes");
  resrt::Tensor x =
      graph.add("images", resrt::Input{.channels = 1, .height = kSide, .width = kSide});
  x = graph.add("edges", resrt::Conv2d{.out_channels = 4, .kernel = 3}, {x});
  x = graph.add("relu", resrt::Relu{}, {x});
  x = graph.add("pool", resrt::GlobalAvgPool2d{}, {x});
  graph.add("sum", resrt::Linear{.out_features = 2}, {x});
  return graph;
}

resrt::Array array(std::vector<int64_t> shape, const std::vector<float>& values) {
  auto [made, memory] = resrt::make_array(std::move(shape));
  std::copy(values.begin(), values.end(), memory);
  return made;
}

// The names are those that graph.parameters() lists.
resrt::Weights stripes_weights() {
  const std::vector<float> sobel = {-1, 0, 1, -2, 0, 2, -1, 0, 1};  // left to right
  std::vector<float> edges(4 * 9);
  for (size_t y = 0; y < 3; ++y) {
    for (size_t x = 0; x < 3; ++x) {
      const size_t place = 3 * y + x;
      edges[place] = sobel[place];
      edges[9 + place] = -sobel[place];
      edges[18 + place] = sobel[3 * x + y];  // top to bottom
      edges[27 + place] = -sobel[3 * x + y];
    }
  }
  return {{"edges.weight", array({4, 1, 3, 3}, edges)},
          {"sum.weight", array({2, 4}, {1, 1, 0, 0, 0, 0, 1, 1})},
          {"sum.bias", array({2}, {0, 0})}};
}

// Two images with stripes of 4 pixels, vertical in the first and horizontal in the second.
std::vector<float> stripes() {
  std::vector<float> images;
  for (const bool is_vertical : {true, false}) {
    for (int y = 0; y < kSide; ++y) {
      for (int x = 0; x < kSide; ++x) {
        images.push_back((is_vertical ? x : y) / 4 % 2 == 0 ? 0.0F : 1.0F);
      }
    }
  }
  return images;
}

void run(const char* path) {
  const resrt::Graph graph = stripes_graph();
  std::cout << graph.table() << '\n';
  resrt::BuildOptions options;
  options.precision = resrt::Precision::fp32;
  options.notes.weights = "set by hand";
  options.notes.labels = {"vertical", "horizontal"};
  resrt::Engine::build(graph, stripes_weights(), options).save(path);

  const resrt::Engine engine = resrt::Engine::load(path);
  const std::vector<float> logits = engine.infer(stripes());
  std::cout.precision(9);  // enough to distinguish all float32 values
  for (size_t image = 0; image < 2; ++image) {
    const float* const row = &logits[2 * image];
    const std::ptrdiff_t best = std::max_element(row, row + 2) - row;
    std::cout << engine.info().notes.labels[static_cast<size_t>(best)] << ": " << row[0] << ' '
              << row[1] << '\n';
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: own_network OUT.engine\n";
    return EXIT_FAILURE;
  }
  try {
    run(argv[1]);
  } catch (const std::exception& error) {
    std::cerr << "own_network: " << error.what() << '\n';
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
