#pragma once

#include <cstddef>
#include <cuda.h>
#include <new>
#include <optional>
#include <string>
#include <utility>

namespace resrt::tensorrt {

// The functions of NVIDIA's driver that resrt calls, from libcuda.so.1. It is opened at run time:
// its interface never changes, and without it there is no usable GPU.
struct Driver {
  decltype(&::cuGetErrorName) get_error_name;
  decltype(&::cuGetErrorString) get_error_string;
  decltype(&::cuInit) init;
  decltype(&::cuDeviceGetCount) device_get_count;
  decltype(&::cuDeviceGet) device_get;
  decltype(&::cuDeviceGetAttribute) device_get_attribute;
  decltype(&::cuDevicePrimaryCtxRetain) primary_context_retain;
  decltype(&::cuCtxPushCurrent) context_push;
  decltype(&::cuCtxPopCurrent) context_pop;
  decltype(&::cuCtxSynchronize) context_synchronize;
  decltype(&::cuPointerGetAttribute) pointer_get_attribute;
  decltype(&::cuMemAlloc) memory_allocate;
  decltype(&::cuMemFree) memory_free;
  decltype(&::cuMemHostAlloc) host_allocate;
  decltype(&::cuMemFreeHost) host_free;
  decltype(&::cuMemcpyHtoDAsync) copy_to_device;
  decltype(&::cuMemcpyDtoHAsync) copy_to_host;
  decltype(&::cuMemcpyDtoDAsync) copy_on_device;
  decltype(&::cuStreamCreate) stream_create;
  decltype(&::cuStreamDestroy) stream_destroy;
  decltype(&::cuStreamQuery) stream_query;
  decltype(&::cuStreamSynchronize) stream_synchronize;
  decltype(&::cuStreamWaitEvent) stream_wait_event;
  decltype(&::cuStreamIsCapturing) stream_is_capturing;
  decltype(&::cuStreamBeginCapture) stream_begin_capture;
  decltype(&::cuStreamEndCapture) stream_end_capture;
  decltype(&::cuEventCreate) event_create;
  decltype(&::cuEventRecord) event_record;
  decltype(&::cuEventSynchronize) event_synchronize;
  decltype(&::cuEventDestroy) event_destroy;
  decltype(&::cuGraphInstantiateWithFlags) graph_instantiate;
  decltype(&::cuGraphLaunch) graph_launch;
  decltype(&::cuGraphDestroy) graph_destroy;
  decltype(&::cuGraphExecDestroy) graph_exec_destroy;

  // Opens and initialises the driver on first use. Throws BackendError with the reason, in one
  // sentence, if there is no usable GPU.
  static const Driver& get();
};

// Returns the reason why there is no usable GPU, or nothing if there is one.
std::optional<std::string> why_no_gpu();

// Throws BackendError if a call of the driver failed. `what` completes "CUDA could not ...".
void check(CUresult result, const char* what);

// Throws BackendError if the current GPU is lost, for example to a faulty kernel. All later calls
// of this process then fail, and only a new process can use the GPU again.
void check_not_lost(const char* what);

// A GPU, given by its index, and its primary context, which TensorRT uses too.
class Device {
 public:
  // Throws BackendError if there is no such GPU.
  explicit Device(int index);

  // The compute capability times ten, such as 86.
  int compute_capability() const;

  // Returns the index of the GPU whose memory a pointer points to. Throws InputError if there is
  // none.
  static int of(const void* pointer);

  // Makes the GPU the calling thread's current one for its lifetime.
  class Current {
   public:
    explicit Current(const Device& device);
    // For destructors. If the GPU is lost, what they free is lost with it, and the driver's errors
    // are harmless.
    Current(const Device& device, std::nothrow_t) noexcept;
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

   private:
    CUresult pushed_;
  };

 private:
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;  // retained until the process exits, as by the CUDA runtime
};

// Owns a handle from the driver. The handle's device must be current when it is destroyed.
template <class Handle, class Destroy>
class Owned {
 public:
  Owned() = default;
  explicit Owned(Handle handle) : handle_(handle) {}
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_ != Handle{}) Destroy()(handle_);
  }
  Handle get() const { return handle_; }
  explicit operator bool() const { return handle_ != Handle{}; }

 private:
  Handle handle_{};
};

struct FreeDevice {
  void operator()(CUdeviceptr pointer) const { Driver::get().memory_free(pointer); }
};
struct FreeHost {
  void operator()(void* pointer) const { Driver::get().host_free(pointer); }
};
struct DestroyStream {
  void operator()(CUstream stream) const { Driver::get().stream_destroy(stream); }
};
struct DestroyEvent {
  void operator()(CUevent event) const { Driver::get().event_destroy(event); }
};
struct DestroyGraph {
  void operator()(CUgraph graph) const { Driver::get().graph_destroy(graph); }
};
struct DestroyGraphExec {
  void operator()(CUgraphExec graph) const { Driver::get().graph_exec_destroy(graph); }
};
using DeviceMemory = Owned<CUdeviceptr, FreeDevice>;
using PinnedMemory = Owned<void*, FreeHost>;
using Stream = Owned<CUstream, DestroyStream>;
using Event = Owned<CUevent, DestroyEvent>;
using CapturedGraph = Owned<CUgraph, DestroyGraph>;
using GraphExec = Owned<CUgraphExec, DestroyGraphExec>;

DeviceMemory allocate_on_device(size_t bytes);
PinnedMemory allocate_pinned(size_t bytes);
Stream create_stream();
Event create_event();

}  // namespace resrt::tensorrt
