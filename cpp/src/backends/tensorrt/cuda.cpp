#include "backends/tensorrt/cuda.h"

#include <algorithm>
#include <dlfcn.h>

#include "resrt/error.h"
#include "text.h"

namespace resrt::tensorrt {
namespace {

std::string describe(const Driver& driver, CUresult result) {
  const char* name = nullptr;
  const char* text = nullptr;
  driver.get_error_name(result, &name);
  driver.get_error_string(result, &text);
  return name == nullptr ? concat("error ", static_cast<int>(result)) : concat(name, ", ", text);
}

[[noreturn]] void no_gpu(const std::string& why) {
  throw BackendError(concat("no NVIDIA GPU can be used here: ", why,
                            "; run this on a machine with an NVIDIA GPU and its driver"));
}

Driver open() {
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) no_gpu("NVIDIA's driver, libcuda.so.1, is not installed");
  Driver driver{};
  // cuda.h defines these functions as macros for the _v2 names.
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) no_gpu(concat("NVIDIA's driver is too old (it has no ", name, ")"));
  };
  find(driver.get_error_name, "cuGetErrorName");
  find(driver.get_error_string, "cuGetErrorString");
  find(driver.init, "cuInit");
  find(driver.device_get_count, "cuDeviceGetCount");
  find(driver.device_get, "cuDeviceGet");
  find(driver.device_get_attribute, "cuDeviceGetAttribute");
  find(driver.primary_context_retain, "cuDevicePrimaryCtxRetain");
  find(driver.context_push, "cuCtxPushCurrent_v2");
  find(driver.context_pop, "cuCtxPopCurrent_v2");
  find(driver.context_synchronize, "cuCtxSynchronize");
  find(driver.pointer_get_attribute, "cuPointerGetAttribute");
  find(driver.memory_allocate, "cuMemAlloc_v2");
  find(driver.memory_free, "cuMemFree_v2");
  find(driver.host_allocate, "cuMemHostAlloc");
  find(driver.host_free, "cuMemFreeHost");
  find(driver.copy_to_device, "cuMemcpyHtoDAsync_v2");
  find(driver.copy_to_host, "cuMemcpyDtoHAsync_v2");
  find(driver.copy_on_device, "cuMemcpyDtoDAsync_v2");
  find(driver.stream_create, "cuStreamCreate");
  find(driver.stream_destroy, "cuStreamDestroy_v2");
  find(driver.stream_query, "cuStreamQuery");
  find(driver.stream_synchronize, "cuStreamSynchronize");
  find(driver.stream_wait_event, "cuStreamWaitEvent");
  find(driver.stream_is_capturing, "cuStreamIsCapturing");
  find(driver.stream_begin_capture, "cuStreamBeginCapture_v2");
  find(driver.stream_end_capture, "cuStreamEndCapture");
  find(driver.event_create, "cuEventCreate");
  find(driver.event_record, "cuEventRecord");
  find(driver.event_synchronize, "cuEventSynchronize");
  find(driver.event_destroy, "cuEventDestroy_v2");
  find(driver.graph_instantiate, "cuGraphInstantiateWithFlags");
  find(driver.graph_launch, "cuGraphLaunch");
  find(driver.graph_destroy, "cuGraphDestroy");
  find(driver.graph_exec_destroy, "cuGraphExecDestroy");
  if (const CUresult result = driver.init(0); result != CUDA_SUCCESS) {
    no_gpu(concat("NVIDIA's driver does not start (", describe(driver, result), ")"));
  }
  int count = 0;
  if (const CUresult result = driver.device_get_count(&count); result != CUDA_SUCCESS) {
    no_gpu(concat("NVIDIA's driver cannot count the GPUs (", describe(driver, result), ")"));
  }
  if (count == 0) no_gpu("NVIDIA's driver finds no GPU");
  return driver;
}

// Whether every later call will fail in the same way.
bool is_lost(CUresult result) {
  switch (result) {
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_EXTERNAL_DEVICE: return true;
    default: return false;
  }
}

}  // namespace

const Driver& Driver::get() {
  static const Driver driver = open();
  return driver;
}

std::optional<std::string> why_no_gpu() {
  try {
    Driver::get();
    return std::nullopt;
  } catch (const BackendError& error) {
    return error.what();
  }
}

void check(CUresult result, const char* what) {
  if (result == CUDA_SUCCESS) return;
  const std::string reason = describe(Driver::get(), result);
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    throw BackendError(
        concat("out of GPU memory: CUDA could not ", what, " (", reason,
               "); stop other programs on the GPU or build with a smaller max_batch"));
  }
  if (result == CUDA_ERROR_NOT_INITIALIZED) {
    throw BackendError(
        concat("NVIDIA's driver was started in another process, from which this one was forked: "
               "CUDA could not ",
               what, " (", reason,
               "); use the GPU only after the fork, or start processes with multiprocessing's "
               "'spawn' method"));
  }
  if (result == CUDA_ERROR_DEINITIALIZED) {
    throw BackendError(
        concat("NVIDIA's driver has shut down because the process is exiting: CUDA could not ",
               what, " (", reason, "); use engines only before the process exits"));
  }
  if (is_lost(result)) {
    throw BackendError(
        concat("the GPU is lost to this process: CUDA could not ", what, " (", reason,
               "); restart the process, and if that does not help, check nvidia-smi and dmesg"));
  }
  throw BackendError(concat("CUDA could not ", what, ": ", reason));
}

void check_not_lost(const char* what) {
  const CUresult result = Driver::get().stream_query(nullptr);
  if (is_lost(result)) check(result, what);
}

Device::Device(int index) {
  const Driver& driver = Driver::get();
  int count = 0;
  check(driver.device_get_count(&count), "count the GPUs");
  if (index < 0 || index >= count) {
    throw BackendError(
        concat("there is no GPU ", index, " here; choose one from 0 to ", count - 1));
  }
  check(driver.device_get(&device_, index), "open the GPU");
  check(driver.primary_context_retain(&context_, device_), "open the GPU");
}

int Device::compute_capability() const {
  int major = 0;
  int minor = 0;
  const Driver& driver = Driver::get();
  check(driver.device_get_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device_),
        "read the compute capability");
  check(driver.device_get_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device_),
        "read the compute capability");
  return 10 * major + minor;
}

int Device::of(const void* pointer) {
  int index = 0;
  const auto address = reinterpret_cast<CUdeviceptr>(pointer);
  const CUresult result =
      Driver::get().pointer_get_attribute(&index, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address);
  if (result != CUDA_ERROR_INVALID_VALUE) {
    check(result, "find the GPU that the batch is on");
    return index;
  }
  throw InputError("the batch claims to be on a GPU, but it is not in the memory of any GPU here");
}

Device::Current::Current(const Device& device) : Current(device, std::nothrow) {
  check(pushed_, "make the GPU current");
}

Device::Current::Current(const Device& device, std::nothrow_t) noexcept
    : pushed_(Driver::get().context_push(device.context_)) {}

Device::Current::~Current() {
  if (pushed_ != CUDA_SUCCESS) return;
  CUcontext popped = nullptr;
  Driver::get().context_pop(&popped);
}

DeviceMemory allocate_on_device(size_t bytes) {
  CUdeviceptr pointer = 0;
  check(Driver::get().memory_allocate(&pointer, std::max<size_t>(bytes, 1)),
        "allocate device memory");
  return DeviceMemory(pointer);
}

PinnedMemory allocate_pinned(size_t bytes) {
  void* pointer = nullptr;
  const CUresult result = Driver::get().host_allocate(&pointer, bytes, 0);
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    throw BackendError(
        concat("out of host memory: CUDA could not allocate ", bytes,
               " bytes of pinned memory; stop other programs or build with a smaller max_batch"));
  }
  check(result, "allocate pinned memory");
  return PinnedMemory(pointer);
}

Stream create_stream() {
  CUstream stream = nullptr;
  check(Driver::get().stream_create(&stream, CU_STREAM_NON_BLOCKING), "create a stream");
  return Stream(stream);
}

Event create_event() {
  CUevent event = nullptr;
  check(Driver::get().event_create(&event, CU_EVENT_DISABLE_TIMING), "create an event");
  return Event(event);
}

}  // namespace resrt::tensorrt
