#pragma once

#include <cstddef>
#include <cuda.h>
#include <functional>
#include <string>
#include <vector>

// A fake of NVIDIA's driver for machines without a GPU: libcuda.so.1 with the functions that resrt
// calls. The memory of its GPUs is host memory, at addresses that only the fake can translate. Work
// in a stream runs when somebody waits for it, in a random order that streams and events allow, so
// a missing wait shows as a wrong result.
//
// Synchronising a GPU fails while one of its streams captures a graph, and breaks that capture.
//
// It does not model speed, the implicit waits of the default stream, or undocumented behaviour.
namespace resrt::fake {

// Repairs all GPUs, clears the faults, sets two GPUs with 16 MiB each, and seeds the random order.
void reset(unsigned seed = 0);

void set_gpus(int count);
void set_memory(size_t bytes);  // of each GPU

// Makes the n-th call from now on fail, counted from 0. If that call makes a GPU current or waits,
// the GPU is lost. Calls that free something do so even when they fail.
void fail(int n, CUresult result);
// Loses all GPUs at the n-th call: all calls fail from then on.
void lose(int n, CUresult result);
// Whether that call was made.
bool has_failed();
bool is_lost();
// Makes all calls succeed again. Work in the streams of a lost GPU stays lost.
void repair();

// The kinds of all objects that have not been freed, one entry for each.
std::vector<std::string> alive();
// Invalid calls, including those that a real driver does not detect.
std::vector<std::string> faults();
int graph_launches();
void count_graph_launch();  // of a library that captures graphs itself

// Breaks the next captures, as if another thread synchronised the GPU while they last.
void break_next_captures(int count);

// Calls so far that allocate memory or create an event, and calls that wait for a whole GPU.
struct Counts {
  int allocations = 0;
  int synchronisations = 0;
};
Counts counts();

// Runs all work in all streams.
void finish();

// These act as kernels, for the fake of TensorRT and for tests. submit() puts work into a stream.
// at() returns the memory at an address, for work to use, or null with a fault if it is not
// allocated.
CUresult submit(CUstream stream, std::function<void()> work);
void* at(CUdeviceptr address, size_t bytes);

// The calling thread's current GPU, or -1 if there is none.
int current_gpu();
void report_fault(const std::string& what);

}  // namespace resrt::fake
