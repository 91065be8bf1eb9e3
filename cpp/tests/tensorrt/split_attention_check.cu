// Checks the plugin's kernels on a GPU against double precision. The cases are all split-attention
// blocks of the catalogue and every radix and cardinality from 1 to 4, in each type, layout and
// variant, for several batches, on new random numbers, and also logits whose exponentials overflow
// float32. Prints a line for each case and fails at the end if one was wrong. Prints the random
// seed and accepts it as an argument to repeat a failure. Run it under compute-sanitizer as well.

#include <algorithm>
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

// A kernel that writes U, as the convolution before the block does.
__global__ void produce(uint4* u, size_t count) {
  const size_t step = size_t{gridDim.x} * blockDim.x;
  for (size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const auto low = static_cast<unsigned>(i);
    u[i] = {low & 0x3BFF3BFF, low * 3 & 0x3BFF3BFF, low * 5 & 0x3BFF3BFF, low * 7 & 0x3BFF3BFF};
  }
}

// Returns the median µs of launches of a graph of what `enqueue` enqueues.
template <class Enqueue>
double time_graph(Enqueue enqueue) {
  constexpr int runs = 50;
  constexpr int launches = 20;  // of a run
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaStreamCreate(&stream), "cudaStreamCreate");
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  enqueue(stream);
  check(cudaStreamEndCapture(stream, &graph), "capture");
  check(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  std::vector<float> times;
  for (int run = -3; run < runs; ++run) {
    check(cudaEventRecord(begin, stream), "record");
    for (int i = 0; i < launches; ++i) check(cudaGraphLaunch(executable, stream), "launch");
    check(cudaEventRecord(end, stream), "record");
    check(cudaEventSynchronize(end), "run");
    float milliseconds = 0.0F;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "measure");
    if (run >= 0) times.push_back(1000.0F * milliseconds / launches);
  }
  check(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  check(cudaEventDestroy(begin), "cudaEventDestroy");
  check(cudaEventDestroy(end), "cudaEventDestroy");
  check(cudaStreamDestroy(stream), "cudaStreamDestroy");
  std::ranges::nth_element(times, times.begin() + runs / 2);
  return times[runs / 2];
}

// Prints µs, GB/s of U and y, and the time that U and y alone take at the bandwidth of a copy.
void time_case(const Case& c, const Gpu& gpu, double copied_per_us) {
  const Problem& problem = c.problem;
  const auto& [channels, radix, cardinality, hidden] = problem.sizes;
  const auto element = static_cast<size_t>(bytes_of(problem.element));
  const auto images = static_cast<size_t>(problem.batch);
  const size_t u = images * radix * channels * problem.pixels() * element;
  const size_t y = images * channels * problem.output_pixels() * element;
  const auto zeros = [](size_t bytes) { return upload(std::vector<uint8_t>(bytes)); };
  void* x = zeros(u);
  const std::vector<void*> memory = {x,
                                     zeros(element * hidden * (channels / cardinality)),
                                     zeros(element * hidden),
                                     zeros(element * radix * channels * (hidden / cardinality)),
                                     zeros(element * radix * channels),
                                     zeros(y),
                                     zeros(split_attention_workspace(problem))};
  const SplitAttentionCall call = {problem,   c.variant, gpu,       memory[0], memory[1],
                                   memory[2], memory[3], memory[4], memory[5], memory[6]};
  const auto write_u = [&](cudaStream_t stream) {
    produce<<<2 * gpu.processors, 256, 0, stream>>>(static_cast<uint4*>(x), u / sizeof(uint4));
    check(cudaGetLastError(), "launch");
  };
  const double alone = time_graph(write_u);
  const double both = time_graph([&](cudaStream_t stream) {
    write_u(stream);
    check(split_attention(call, stream), "launch");
  });
  const double time = std::max(both - alone, 1e-3);
  const auto bytes = static_cast<double>(u + y);
  std::printf("%s: %.2f us, %.0f GB/s, %.0f %% of a copy's bandwidth\n", describe(c).c_str(), time,
              bytes / time / 1e3, 100.0 * bytes / time / copied_per_us);
  for (void* pointer : memory) check(cudaFree(pointer), "cudaFree");
}

// Returns the bytes that a large copy on the GPU reads and writes in a µs.
double measure_copy() {
  constexpr size_t bytes = size_t{1} << 28U;
  void* from = nullptr;
  void* to = nullptr;
  check(cudaMalloc(&from, bytes), "cudaMalloc");
  check(cudaMalloc(&to, bytes), "cudaMalloc");
  const double time = time_graph([&](cudaStream_t stream) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "copy");
  });
  check(cudaFree(from), "cudaFree");
  check(cudaFree(to), "cudaFree");
  return 2.0 * static_cast<double>(bytes) / time;
}

void time_all(const Gpu& gpu) {
  const double copied = measure_copy();
  std::printf("a copy: %.0f GB/s\n", copied / 1e3);
  for (const Case& c : cases_of(blocks_of({"ResNeSt50"}), {1, 8, 32}, gpu)) {
    if (c.problem.element == Element::bf16) continue;  // as fp16
    time_case(c, gpu, copied);
  }
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
    throw std::runtime_error(
        "expected one optional argument, `time` or the random seed as an integer");
  return static_cast<unsigned>(seed);
}

}  // namespace
}  // namespace resrt::plugin::test

int main(int count, char** arguments) try {
  using namespace resrt::plugin::test;
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "no usable GPU");
  if (count == 2 && std::string(arguments[1]) == "time") {
    std::printf("%s, compute capability %d.%d\n", device.name, device.major, device.minor);
    time_all(gpu_of(device));
    return EXIT_SUCCESS;
  }
  const unsigned seed = read_seed(count, arguments);
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
