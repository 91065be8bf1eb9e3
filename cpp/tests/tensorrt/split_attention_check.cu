// Checks the plugin's kernels on a GPU against double precision. The cases are all split-attention
// blocks of the catalogue and every radix and cardinality from 1 to 4, in each type, layout and
// variant, for several batches, on new random numbers, and also logits whose exponentials overflow
// float32. Prints a line for each case and fails at the end if one was wrong. Prints the random
// seed and accepts it as an argument to repeat a failure. Run it under compute-sanitizer as well.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "backends/tensorrt/plugin/split_attention.h"
#include "resrt/models.h"
#include "split_attention_cases.h"

namespace resrt::plugin::test {
namespace {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

void* upload(const std::vector<uint8_t>& bytes) {
  void* pointer = nullptr;
  check(cudaMalloc(&pointer, bytes.size()), "cudaMalloc");
  check(cudaMemcpy(pointer, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
  return pointer;
}

Gpu gpu_of(const cudaDeviceProp& device) {
  const int capability = 10 * device.major + device.minor;
  return {capability, device.multiProcessorCount, device.sharedMemPerBlockOptin,
          capability < 90    ? 1
          : capability < 120 ? kLargestCluster
                             : 8};
}

Gpu current_gpu() {
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "no usable GPU");
  return gpu_of(device);
}

std::vector<uint8_t> compute(const Case& c, const Inputs& in, std::vector<uint8_t> y) {
  const size_t workspace = split_attention_workspace(c.problem);
  const SplitAttentionCall call = {
      .problem = c.problem,
      .variant = c.variant,
      .gpu = current_gpu(),
      .x = upload(in.x.bytes),
      .fc1_weight = upload(in.fc1_weight.bytes),
      .fc1_bias = upload(in.fc1_bias.bytes),
      .fc2_weight = upload(in.fc2_weight.bytes),
      .fc2_bias = upload(in.fc2_bias.bytes),
      .y = upload(y),
      .workspace = upload(std::vector<uint8_t>(workspace, 0xFF)),
  };
  check(split_attention(call, nullptr), "launch");
  check(cudaMemcpy(y.data(), call.y, y.size(), cudaMemcpyDeviceToHost), "run");
  for (const void* pointer :
       {call.x, call.fc1_weight, call.fc1_bias, call.fc2_weight, call.fc2_bias,
        const_cast<const void*>(call.y), const_cast<const void*>(call.workspace)}) {
    check(cudaFree(const_cast<void*>(pointer)), "cudaFree");
  }
  return y;
}

bool is_right(const Case& c, std::mt19937& random) {
  const double error = largest_error(c, random, compute);
  const bool right = error <= tolerance(c.problem.element);
  std::printf("%s %s: largest error %.1e\n", right ? "ok   " : "WRONG", describe(c).c_str(), error);
  return right;
}

std::vector<Case> all_cases(const Gpu& gpu) {
  std::vector<std::string> models;
  for (const Model& model : catalog()) models.push_back(model.name);
  std::vector<Case> cases = cases_of(small_blocks(), {1, 3}, gpu);
  for (const Case& c : cases_of(blocks_of(models), {1, 3}, gpu)) cases.push_back(c);
  for (const Case& c : cases_of_large_logits(gpu)) cases.push_back(c);
  return cases;
}

unsigned read_seed(int count, char** arguments) {
  if (count == 1) return std::random_device{}();
  char* end = nullptr;
  const unsigned long seed = std::strtoul(arguments[1], &end, 10);
  if (count > 2 || *end != '\0')
    throw std::runtime_error("expected one optional argument, the random seed as an integer");
  return static_cast<unsigned>(seed);
}

}  // namespace
}  // namespace resrt::plugin::test

int main(int count, char** arguments) try {
  using namespace resrt::plugin::test;
  const unsigned seed = read_seed(count, arguments);
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "no usable GPU");
  std::printf("%s, compute capability %d.%d, seed %u\n", device.name, device.major, device.minor,
              seed);
  std::mt19937 random(seed);
  const std::vector<Case> cases = all_cases(gpu_of(device));
  int wrong = 0;
  for (const Case& c : cases) wrong += !is_right(c, random);
  std::printf("%d of %zu wrong, seed %u\n", wrong, cases.size(), seed);
  return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return EXIT_FAILURE;
}
