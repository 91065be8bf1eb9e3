// The driver's functions, under their names in cuda.h.

#include "driver.h"

#include <cstring>

#include "machine.h"

namespace resrt::fake {
namespace {

struct ErrorText {
  const char* name;
  const char* text;
};

ErrorText error_text(CUresult result) {
  static const std::map<CUresult, ErrorText> known = {
      {CUDA_ERROR_OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
      {CUDA_ERROR_DEINITIALIZED, {"CUDA_ERROR_DEINITIALIZED", "driver shutting down"}},
      {CUDA_ERROR_NO_DEVICE, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
      {CUDA_ERROR_ILLEGAL_ADDRESS, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access"}}};
  const auto found = known.find(result);
  return found == known.end() ? ErrorText{nullptr, nullptr} : found->second;
}

CUcontext context_of(int gpu) {
  return reinterpret_cast<CUcontext>(static_cast<size_t>(gpu) + 1);
}
int gpu_of_context(CUcontext context) {
  return static_cast<int>(number(context)) - 1;
}

// Returns an unused address, with a gap after that many bytes.
CUdeviceptr next_address(size_t bytes) {
  constexpr size_t gap = 4096;
  CUdeviceptr& next = state().next_address;
  return std::exchange(next, (next + bytes + gap) & ~(gap - 1));
}

// The memory is filled with NaN.
Memory make_memory(int gpu, size_t bytes) {
  return {gpu, std::vector<std::byte>(bytes, std::byte{0xff})};
}

void require_memory_left(int gpu, size_t bytes) {
  for (const auto& [begin, memory] : state().device_memory.items) {
    if (memory.gpu == gpu) bytes += memory.bytes.size();
  }
  if (bytes > state().memory_limit) throw DriverError{CUDA_ERROR_OUT_OF_MEMORY};
}

CUresult copy(const char* name, Table<Memory>& to_table, size_t to, Table<Memory>& from_table,
              size_t from, size_t bytes, CUstream stream) {
  return call_on_gpu(name, [&](int gpu) {
    put_or_record(find_stream(stream, gpu), [=, &to_table, &from_table] {
      std::byte* target = find_memory(to_table, to, bytes);
      const std::byte* source = find_memory(from_table, from, bytes);
      if (target != nullptr && source != nullptr) std::memcpy(target, source, bytes);
    });
  });
}

}  // namespace
}  // namespace resrt::fake

using namespace resrt::fake;

CUresult cuGetErrorName(CUresult result, const char** name) {
  *name = error_text(result).name;
  return *name == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult result, const char** text) {
  *text = error_text(result).text;
  return *text == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuInit(unsigned) {
  return call(Kind::plain, [] {});
}

CUresult cuDeviceGetCount(int* count) {
  return call(Kind::plain, [&] { *count = state().gpus; });
}

CUresult cuDeviceGet(CUdevice* device, int index) {
  return call(Kind::plain, [&] {
    if (index < 0 || index >= state().gpus) throw DriverError{CUDA_ERROR_INVALID_DEVICE};
    *device = index;
  });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  return call(Kind::plain,
              [&] { *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 8 : 6; });
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return call(Kind::plain, [&] { *context = context_of(device); });
}

CUresult cuCtxPushCurrent(CUcontext context) {
  return call(Kind::loses, [&] { this_thread().current.push_back(gpu_of_context(context)); });
}

CUresult cuCtxPopCurrent(CUcontext* context) {
  return call_on_gpu(__func__, Kind::releases, [&](int gpu) {
    if (gpu < 0) throw DriverError{CUDA_ERROR_INVALID_CONTEXT};
    *context = context_of(gpu);
    this_thread().current.pop_back();
  });
}

CUresult cuCtxSynchronize() {
  return call_on_gpu(__func__, Kind::loses, [](int gpu) {
    if (break_captures(gpu)) throw DriverError{CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED};
    run_all();
    ++state().synchronisations;
  });
}

CUresult cuPointerGetAttribute(void* value, CUpointer_attribute, CUdeviceptr address) {
  return call(Kind::plain, [&] {
    for (const auto& [begin, memory] : state().device_memory.items) {
      if (address < begin || address >= begin + memory.bytes.size()) continue;
      *static_cast<int*>(value) = memory.gpu;
      return;
    }
    throw DriverError{CUDA_ERROR_INVALID_VALUE};
  });
}

CUresult cuMemAlloc(CUdeviceptr* address, size_t bytes) {
  return call_on_gpu(__func__, [&](int gpu) {
    if (this_thread().recording) throw DriverError{CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED};
    if (bytes == 0) throw DriverError{CUDA_ERROR_INVALID_VALUE};
    require_memory_left(gpu, bytes);
    ++state().allocations;
    *address = next_address(bytes);
    state().device_memory.items[*address] = make_memory(gpu, bytes);
  });
}

// Does not wait for running work, as drivers are allowed to.
CUresult cuMemFree(CUdeviceptr address) {
  return call_on_gpu(__func__, Kind::releases,
                     [&](int) { remove(state().device_memory, address); });
}

CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
  return call_on_gpu(__func__, [&](int gpu) {
    Memory memory = make_memory(gpu, bytes);
    *pointer = memory.bytes.data();
    state().pinned_memory.items[number(*pointer)] = std::move(memory);
  });
}

CUresult cuMemFreeHost(void* pointer) {
  return call_on_gpu(__func__, Kind::releases, [&](int) {
    run_all();
    remove(state().pinned_memory, pointer);
  });
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return copy(__func__, state().device_memory, to, state().pinned_memory, number(from), bytes,
              stream);
}

CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copy(__func__, state().pinned_memory, number(to), state().device_memory, from, bytes,
              stream);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copy(__func__, state().device_memory, to, state().device_memory, from, bytes, stream);
}

CUresult cuStreamCreate(CUstream* stream, unsigned) {
  return call_on_gpu(__func__, [&](int gpu) {
    *stream = add<CUstream>(state().streams, std::make_shared<Stream>(Stream{gpu}));
  });
}

CUresult cuStreamDestroy(CUstream stream) {
  return call_on_gpu(__func__, Kind::releases, [&](int) { remove(state().streams, stream); });
}

CUresult cuStreamQuery(CUstream handle) {
  return call_on_gpu(__func__, Kind::loses, [&](int gpu) {
    if (!find_stream(handle, gpu)->tasks.empty()) throw DriverError{CUDA_ERROR_NOT_READY};
  });
}

CUresult cuStreamSynchronize(CUstream handle) {
  return call_on_gpu(__func__, Kind::loses, [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    wait_for({stream, stream->submitted});
  });
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
  return call_on_gpu(__func__, [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    const auto& recorded = find(state().events, event).recorded;
    if (!recorded) return;
    if (stream->recording) throw DriverError{CUDA_ERROR_STREAM_CAPTURE_ISOLATION};
    put(stream, {nullptr, recorded});
  });
}

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode) {
  return call_on_gpu(__func__, [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    if (stream->recording) throw DriverError{CUDA_ERROR_ILLEGAL_STATE};
    stream->recording.emplace();
    this_thread().recording = true;
    if (state().captures_to_break > 0) {
      --state().captures_to_break;
      break_captures(gpu);  // as if another thread synchronised the GPU now
    }
  });
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  return call_on_gpu(__func__, [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    *status = !stream->recording  ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->is_broken ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                  : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  });
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  std::optional<std::vector<Work>> works;
  const CUresult result = call_on_gpu(__func__, Kind::releases, [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    this_thread().recording = false;
    works = std::exchange(stream->recording, std::nullopt);
    if (std::exchange(stream->is_broken, false)) {
      throw DriverError{CUDA_ERROR_STREAM_CAPTURE_INVALIDATED};
    }
    if (!works) throw DriverError{CUDA_ERROR_ILLEGAL_STATE};
  });
  if (result != CUDA_SUCCESS) return result;
  const std::lock_guard lock(state().mutex);
  *graph = add<CUgraph>(state().graphs, Graph{current_gpu(), std::move(*works)});
  return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent* event, unsigned) {
  return call_on_gpu(__func__, [&](int gpu) {
    ++state().allocations;
    *event = add<CUevent>(state().events, Event{gpu});
  });
}

CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
  return call_on_gpu(__func__, [&](int gpu) {
    const auto stream = find_stream(stream_handle, gpu);
    Event& event = find(state().events, handle);
    if (stream->gpu != event.gpu) throw DriverError{CUDA_ERROR_INVALID_HANDLE};
    event.recorded = {stream, stream->submitted};
  });
}

CUresult cuEventSynchronize(CUevent event) {
  return call_on_gpu(__func__, Kind::loses, [&](int) {
    if (const auto recorded = find(state().events, event).recorded) wait_for(*recorded);
  });
}

CUresult cuEventDestroy(CUevent event) {
  return call_on_gpu(__func__, Kind::releases, [&](int) { remove(state().events, event); });
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
  return call_on_gpu(__func__, [&](int) {
    *executable = add<CUgraphExec>(state().executable_graphs, Graph(find(state().graphs, graph)));
  });
}

CUresult cuGraphLaunch(CUgraphExec graph, CUstream handle) {
  return call_on_gpu(__func__, [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    for (const Work& work : find(state().executable_graphs, graph).works) {
      put(stream, {work, std::nullopt});
    }
    ++state().graph_launches;
  });
}

CUresult cuGraphDestroy(CUgraph graph) {
  return call_on_gpu(__func__, Kind::releases, [&](int) { remove(state().graphs, graph); });
}

CUresult cuGraphExecDestroy(CUgraphExec graph) {
  return call_on_gpu(__func__, Kind::releases,
                     [&](int) { remove(state().executable_graphs, graph); });
}
