#pragma once

#include <cstddef>
#include <cuda.h>
#include <functional>
#include <string>
#include <vector>

// A stand-in for NVIDIA's driver where there is no GPU: libcuda.so.1 with the calls that resrt
// makes. A GPU's memory is the processor's, at addresses that only the stand-in knows. What is put
// into a stream runs when somebody waits for it, in one of the orders that streams and events
// allow, drawn by chance: a wait that is missing shows as a wrong result.
//
// It claims nothing about speed, the implicit waits of the default stream, or what a real driver
// does beyond its documentation.
namespace resrt::stand_in {

// Mends all, forgets faults, gives each of two GPUs 16 MiB, and draws other orders.
void start_anew(unsigned seed = 0);

void set_gpus(int count);
void set_memory(size_t bytes);  // of each GPU

// Has the n-th call from now on fail, counted from 0. A failure to make a GPU current or to wait is
// that of a lost one; what frees does so nevertheless.
void fail(int n, CUresult result);
// Loses all GPUs at the n-th call: all calls fail from then on.
void lose(int n, CUresult result);
// Whether that call came.
bool has_failed();
bool is_lost();
// All calls succeed again. What was in the streams of a lost GPU is lost.
void mend();

// What has not been freed, one word for each.
std::vector<std::string> alive();
// What no program may do, even where the driver does not notice.
std::vector<std::string> faults();
int graph_launches();

// Runs all that is in any stream.
void finish();

// For TensorRT's stand-in and for tests, as kernels: puts work into a stream; the memory at an
// address, for work to use; null and a fault where it is not allocated.
CUresult submit(CUstream stream, std::function<void()> work);
void* at(CUdeviceptr address, size_t bytes);

// The calling thread's current GPU, -1 where there is none.
int current_gpu();
void report_fault(const std::string& what);

}  // namespace resrt::stand_in
