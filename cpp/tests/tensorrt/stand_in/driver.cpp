#include "driver.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <utility>

namespace resrt::stand_in {
namespace {

using Work = std::function<void()>;

struct Stream;

// A place in a stream: behind the first `count` of all that was ever put into it.
struct Point {
  std::shared_ptr<Stream> stream;
  size_t count = 0;
  bool reached() const;
};

struct Task {
  Work work;
  std::optional<Point> after;
};

struct Stream {
  int gpu = 0;
  std::deque<Task> tasks = {};
  size_t submitted = 0;
  size_t done = 0;
  std::optional<std::vector<Work>> recording = std::nullopt;
};

bool Point::reached() const {
  return stream->done >= count;
}

struct Memory {
  int gpu = 0;
  std::vector<std::byte> bytes;
};

struct Event {
  int gpu = 0;
  std::optional<Point> recorded;
};

struct Graph {
  int gpu = 0;
  std::vector<Work> works;
};

// What the driver made of one kind, by handle or address; none is used twice.
template <class Thing>
struct Table {
  const char* name;
  std::map<size_t, Thing> things;
};

constexpr size_t kHandles = 0x1000;
constexpr size_t kGap = 4096;  // between the memories of a GPU

struct State {
  // Work that runs within a call makes calls of its own.
  std::recursive_mutex mutex;
  std::minstd_rand random;
  int gpus = 2;
  size_t memory_limit = 0;
  std::vector<size_t> memory_used;
  size_t next_handle = kHandles;
  CUdeviceptr next_address = CUdeviceptr{1} << 62U;  // where no processor has memory

  int calls_to_failure = -1;
  CUresult failure = CUDA_SUCCESS;
  bool failure_stays = false;
  bool failed = false;
  CUresult lost = CUDA_SUCCESS;

  std::vector<std::string> faults;
  int graph_launches = 0;

  Table<Memory> device{"device memory", {}};
  Table<std::unique_ptr<std::vector<std::byte>>> pinned{"pinned memory", {}};
  Table<std::shared_ptr<Stream>> streams{"stream", {}};
  Table<Event> events{"event", {}};
  Table<Graph> graphs{"graph", {}};
  Table<Graph> executables{"executable graph", {}};
  std::map<int, std::shared_ptr<Stream>> default_streams;
  std::vector<std::shared_ptr<Stream>> busy;  // also those that were destroyed since
};

// Never destroyed: engines in static storage call at the process's end.
State& state() {
  static auto& only = *new State();
  return only;
}

struct Thread {
  std::vector<int> current;
  bool recording = false;
  ~Thread() {
    if (!current.empty()) report_fault("a thread ended with a GPU still current");
  }
};
thread_local Thread thread;

// How a call fails, where it is made to.
enum class Kind {
  plain,     // and does nothing
  releases,  // after it has done what it should
  loses,     // because the GPU is lost
};

void lose_gpus(CUresult result) {
  State& s = state();
  s.lost = result;
  for (const auto& stream : s.busy) {
    stream->tasks.clear();
    stream->done = stream->submitted;
  }
  s.busy.clear();
}

CUresult next_failure(Kind kind) {
  State& s = state();
  if (s.lost == CUDA_SUCCESS && s.calls_to_failure >= 0 && s.calls_to_failure-- == 0) {
    s.failed = true;
    if (!s.failure_stays && kind != Kind::loses) return s.failure;
    lose_gpus(s.failure);
  }
  return s.lost;
}

// A call that needs no current GPU.
template <class Do>
CUresult call(Kind kind, Do act) {
  const std::lock_guard lock(state().mutex);
  const CUresult failure = next_failure(kind);
  if (failure != CUDA_SUCCESS && kind != Kind::releases) return failure;
  const CUresult result = act();
  return failure != CUDA_SUCCESS ? failure : result;
}

// One that needs a current GPU, and has its number.
template <class Do>
CUresult call_on_gpu(Kind kind, const char* name, Do act) {
  return call(kind, [&] {
    const bool lost = state().lost != CUDA_SUCCESS;
    if (current_gpu() >= 0 || lost) return act(current_gpu());
    report_fault(std::string(name) + " without a current GPU");
    return CUDA_ERROR_INVALID_CONTEXT;
  });
}

template <class Handle>
size_t number(Handle handle) {
  return reinterpret_cast<size_t>(handle);
}

template <class Handle, class Thing>
Handle add(Table<Thing>& table, Thing thing) {
  const size_t handle = state().next_handle++;
  table.things.emplace(handle, std::move(thing));
  return reinterpret_cast<Handle>(handle);
}

template <class Thing>
Thing* find(Table<Thing>& table, size_t handle) {
  const auto found = table.things.find(handle);
  if (found != table.things.end()) return &found->second;
  report_fault(std::string("used: a ") + table.name + " that is not there");
  return nullptr;
}

// Of what lies on a GPU, which must be the current one, unless it is lost.
template <class Thing>
CUresult remove(Table<Thing>& table, size_t handle, int owner) {
  if (state().lost == CUDA_SUCCESS && owner != current_gpu()) {
    report_fault(std::string("freed while another GPU was current: ") + table.name);
  }
  table.things.erase(handle);
  return CUDA_SUCCESS;
}

template <class Thing>
CUresult remove(Table<Thing>& table, size_t handle) {
  const Thing* thing = find(table, handle);
  return thing == nullptr ? CUDA_ERROR_INVALID_HANDLE : remove(table, handle, thing->gpu);
}

std::shared_ptr<Stream> find_stream(CUstream handle, int gpu) {
  State& s = state();
  if (handle == nullptr || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
    auto& stream = s.default_streams[gpu];
    if (stream == nullptr) stream = std::make_shared<Stream>(Stream{gpu});
    return stream;
  }
  const auto* found = find(s.streams, number(handle));
  return found == nullptr ? nullptr : *found;
}

void put(const std::shared_ptr<Stream>& stream, Task task) {
  if (stream->tasks.empty()) state().busy.push_back(stream);
  stream->tasks.push_back(std::move(task));
  ++stream->submitted;
}

CUresult put_or_record(const std::shared_ptr<Stream>& stream, Work work) {
  if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->recording) {
    stream->recording->push_back(std::move(work));
  } else {
    put(stream, {std::move(work), std::nullopt});
  }
  return CUDA_SUCCESS;
}

// Runs the first task of a stream, any of those that wait for nothing.
void run_one() {
  State& s = state();
  std::vector<std::shared_ptr<Stream>> ready;
  for (const auto& stream : s.busy) {
    const auto& after = stream->tasks.front().after;
    if (!after || after->reached()) ready.push_back(stream);
  }
  const auto& stream = ready.at(s.random() % ready.size());
  const Task task = std::move(stream->tasks.front());
  stream->tasks.pop_front();
  if (stream->tasks.empty()) std::erase(s.busy, stream);
  if (task.work) task.work();
  ++stream->done;
}

CUresult wait_for(const Point& point) {
  if (thread.recording || point.stream->recording) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  while (!point.reached()) run_one();
  return CUDA_SUCCESS;
}

// As allocating does, freeing memory waits for all that uses the GPU.
void run_all() {
  while (!state().busy.empty()) run_one();
}

void* at_pinned(const void* address, size_t bytes) {
  for (const auto& [begin, block] : state().pinned.things) {
    if (number(address) >= begin && number(address) + bytes <= begin + block->size()) {
      return reinterpret_cast<void*>(number(address));
    }
  }
  report_fault("used: pinned memory that is not there");
  return nullptr;
}

void copy(void* to, const void* from, size_t bytes) {
  if (to != nullptr && from != nullptr) std::memcpy(to, from, bytes);
}

template <class Thing>
void list(const Table<Thing>& table, std::vector<std::string>& names) {
  names.insert(names.end(), table.things.size(), table.name);
}

void set_failure(int n, CUresult result, bool stays) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.calls_to_failure = n;
  s.failure = result;
  s.failure_stays = stays;
  s.failed = false;
}

}  // namespace

void start_anew(unsigned seed) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  mend();
  run_all();
  s.faults.clear();
  s.random.seed(seed);
  s.gpus = 2;
  s.memory_limit = size_t{16} << 20U;
  s.graph_launches = 0;
}

void set_gpus(int count) {
  state().gpus = count;
}

void set_memory(size_t bytes) {
  state().memory_limit = bytes;
}

void fail(int n, CUresult result) {
  set_failure(n, result, false);
}

void lose(int n, CUresult result) {
  set_failure(n, result, true);
}

bool has_failed() {
  const std::lock_guard lock(state().mutex);
  return state().failed;
}

bool is_lost() {
  const std::lock_guard lock(state().mutex);
  return state().lost != CUDA_SUCCESS;
}

void mend() {
  const std::lock_guard lock(state().mutex);
  state().lost = CUDA_SUCCESS;
  set_failure(-1, CUDA_SUCCESS, false);
}

std::vector<std::string> alive() {
  const State& s = state();
  std::vector<std::string> names;
  list(s.device, names);
  list(s.pinned, names);
  list(s.streams, names);
  list(s.events, names);
  list(s.graphs, names);
  list(s.executables, names);
  return names;
}

std::vector<std::string> faults() {
  return state().faults;
}

int graph_launches() {
  return state().graph_launches;
}

void finish() {
  const std::lock_guard lock(state().mutex);
  run_all();
}

CUresult submit(CUstream handle, Work work) {
  return call_on_gpu(Kind::plain, "a kernel", [&](int gpu) {
    return put_or_record(find_stream(handle, gpu), std::move(work));
  });
}

void* at(CUdeviceptr address, size_t bytes) {
  const std::lock_guard lock(state().mutex);
  auto& blocks = state().device.things;
  const auto next = blocks.upper_bound(address);
  if (next != blocks.begin()) {
    auto& [begin, block] = *std::prev(next);
    if (address + bytes <= begin + block.bytes.size()) return &block.bytes[address - begin];
  }
  report_fault("used: device memory that is not there");
  return nullptr;
}

int current_gpu() {
  return thread.current.empty() ? -1 : thread.current.back();
}

void report_fault(const std::string& what) {
  const std::lock_guard lock(state().mutex);
  state().faults.push_back(what);
}

}  // namespace resrt::stand_in

using namespace resrt::stand_in;

// The driver's own functions, by the names that cuda.h gives them.

namespace {
struct Words {
  const char* name;
  const char* text;
};

Words words_of(CUresult result) {
  static const std::map<CUresult, Words> known = {
      {CUDA_ERROR_OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
      {CUDA_ERROR_NO_DEVICE, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
      {CUDA_ERROR_DEINITIALIZED, {"CUDA_ERROR_DEINITIALIZED", "driver shutting down"}},
      {CUDA_ERROR_ILLEGAL_ADDRESS, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access"}}};
  const auto found = known.find(result);
  return found == known.end() ? Words{nullptr, nullptr} : found->second;
}
}  // namespace

CUresult cuGetErrorName(CUresult result, const char** name) {
  *name = words_of(result).name;
  return *name == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult result, const char** text) {
  *text = words_of(result).text;
  return *text == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuInit(unsigned) {
  return call(Kind::plain, [] { return CUDA_SUCCESS; });
}

CUresult cuDeviceGetCount(int* count) {
  return call(Kind::plain, [&] {
    *count = state().gpus;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGet(CUdevice* device, int index) {
  return call(Kind::plain, [&] {
    *device = index;
    return index < state().gpus ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
  });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  return call(Kind::plain, [&] {
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 8 : 6;
    return CUDA_SUCCESS;
  });
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return call(Kind::plain, [&] {
    *context = reinterpret_cast<CUcontext>(static_cast<size_t>(device) + 1);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxPushCurrent(CUcontext context) {
  return call(Kind::loses, [&] {
    thread.current.push_back(static_cast<int>(number(context)) - 1);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxPopCurrent(CUcontext* context) {
  return call_on_gpu(Kind::releases, "cuCtxPopCurrent", [&](int gpu) {
    if (gpu < 0) return CUDA_ERROR_INVALID_CONTEXT;
    *context = reinterpret_cast<CUcontext>(static_cast<size_t>(gpu) + 1);
    thread.current.pop_back();
    return CUDA_SUCCESS;
  });
}

CUresult cuPointerGetAttribute(void* value, CUpointer_attribute, CUdeviceptr address) {
  return call(Kind::plain, [&] {
    for (const auto& [begin, block] : state().device.things) {
      if (address < begin || address >= begin + block.bytes.size()) continue;
      *static_cast<int*>(value) = block.gpu;
      return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
  });
}

CUresult cuMemAlloc(CUdeviceptr* address, size_t bytes) {
  return call_on_gpu(Kind::plain, "cuMemAlloc", [&](int gpu) {
    State& s = state();
    if (thread.recording) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    size_t used = bytes;
    for (const auto& [begin, block] : s.device.things) {
      if (block.gpu == gpu) used += block.bytes.size();
    }
    if (used > s.memory_limit) return CUDA_ERROR_OUT_OF_MEMORY;
    // Filled with what is no number.
    s.device.things[s.next_address] = {gpu, std::vector<std::byte>(bytes, std::byte{0xff})};
    *address = std::exchange(s.next_address, (s.next_address + bytes + kGap) & ~(kGap - 1));
    return CUDA_SUCCESS;
  });
}

CUresult cuMemFree(CUdeviceptr address) {
  return call_on_gpu(Kind::releases, "cuMemFree", [&](int) {
    run_all();
    return remove(state().device, address);
  });
}

CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
  return call_on_gpu(Kind::plain, "cuMemHostAlloc", [&](int) {
    auto block = std::make_unique<std::vector<std::byte>>(bytes, std::byte{0xff});
    *pointer = block->data();
    state().pinned.things[number(*pointer)] = std::move(block);
    return CUDA_SUCCESS;
  });
}

CUresult cuMemFreeHost(void* pointer) {
  return call_on_gpu(Kind::releases, "cuMemFreeHost", [&](int gpu) {
    run_all();
    auto& pinned = state().pinned;
    if (find(pinned, number(pointer)) == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return remove(pinned, number(pointer), gpu);
  });
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return call_on_gpu(Kind::plain, "cuMemcpyHtoDAsync", [&](int gpu) {
    return put_or_record(find_stream(stream, gpu),
                         [=] { copy(at(to, bytes), at_pinned(from, bytes), bytes); });
  });
}

CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return call_on_gpu(Kind::plain, "cuMemcpyDtoHAsync", [&](int gpu) {
    return put_or_record(find_stream(stream, gpu),
                         [=] { copy(at_pinned(to, bytes), at(from, bytes), bytes); });
  });
}

CUresult cuStreamCreate(CUstream* stream, unsigned) {
  return call_on_gpu(Kind::plain, "cuStreamCreate", [&](int gpu) {
    *stream = add<CUstream>(state().streams, std::make_shared<Stream>(Stream{gpu}));
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamDestroy(CUstream stream) {
  return call_on_gpu(Kind::releases, "cuStreamDestroy", [&](int) {
    const auto* found = find(state().streams, number(stream));
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return remove(state().streams, number(stream), (*found)->gpu);
  });
}

CUresult cuStreamQuery(CUstream handle) {
  return call_on_gpu(Kind::loses, "cuStreamQuery", [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return stream->tasks.empty() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  });
}

CUresult cuStreamSynchronize(CUstream handle) {
  return call_on_gpu(Kind::loses, "cuStreamSynchronize", [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return wait_for({stream, stream->submitted});
  });
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
  return call_on_gpu(Kind::plain, "cuStreamWaitEvent", [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    const Event* found = find(state().events, number(event));
    if (stream == nullptr || found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (!found->recorded) return CUDA_SUCCESS;
    if (stream->recording) return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    put(stream, {nullptr, found->recorded});
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode) {
  return call_on_gpu(Kind::plain, "cuStreamBeginCapture", [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    if (stream == nullptr || stream->recording) return CUDA_ERROR_ILLEGAL_STATE;
    stream->recording.emplace();
    thread.recording = true;
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  const CUresult result = call_on_gpu(Kind::releases, "cuStreamEndCapture", [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    thread.recording = false;
    if (stream == nullptr || !stream->recording) return CUDA_ERROR_ILLEGAL_STATE;
    auto works = *std::exchange(stream->recording, std::nullopt);
    *graph = add<CUgraph>(state().graphs, Graph{stream->gpu, std::move(works)});
    return CUDA_SUCCESS;
  });
  if (result != CUDA_SUCCESS && *graph != nullptr) {
    state().graphs.things.erase(number(std::exchange(*graph, nullptr)));
  }
  return result;
}

CUresult cuEventCreate(CUevent* event, unsigned) {
  return call_on_gpu(Kind::plain, "cuEventCreate", [&](int gpu) {
    *event = add<CUevent>(state().events, Event{gpu, std::nullopt});
    return CUDA_SUCCESS;
  });
}

CUresult cuEventRecord(CUevent event, CUstream handle) {
  return call_on_gpu(Kind::plain, "cuEventRecord", [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    Event* found = find(state().events, number(event));
    if (stream == nullptr || found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->gpu != found->gpu) return CUDA_ERROR_INVALID_HANDLE;
    found->recorded = {stream, stream->submitted};
    return CUDA_SUCCESS;
  });
}

CUresult cuEventSynchronize(CUevent event) {
  return call_on_gpu(Kind::loses, "cuEventSynchronize", [&](int) {
    const Event* found = find(state().events, number(event));
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return found->recorded ? wait_for(*found->recorded) : CUDA_SUCCESS;
  });
}

CUresult cuEventDestroy(CUevent event) {
  return call_on_gpu(Kind::releases, "cuEventDestroy",
                     [&](int) { return remove(state().events, number(event)); });
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
  return call_on_gpu(Kind::plain, "cuGraphInstantiate", [&](int) {
    const Graph* found = find(state().graphs, number(graph));
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *executable = add<CUgraphExec>(state().executables, *found);
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphLaunch(CUgraphExec graph, CUstream handle) {
  return call_on_gpu(Kind::plain, "cuGraphLaunch", [&](int gpu) {
    const auto stream = find_stream(handle, gpu);
    const Graph* found = find(state().executables, number(graph));
    if (stream == nullptr || found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    for (const Work& work : found->works) put(stream, {work, std::nullopt});
    ++state().graph_launches;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphDestroy(CUgraph graph) {
  return call_on_gpu(Kind::releases, "cuGraphDestroy",
                     [&](int) { return remove(state().graphs, number(graph)); });
}

CUresult cuGraphExecDestroy(CUgraphExec graph) {
  return call_on_gpu(Kind::releases, "cuGraphExecDestroy",
                     [&](int) { return remove(state().executables, number(graph)); });
}
