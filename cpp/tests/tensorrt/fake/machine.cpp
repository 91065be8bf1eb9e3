#include "machine.h"

#include <algorithm>

namespace resrt::fake {
namespace {

void set_failure(int n, CUresult result, bool stays) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.calls_to_failure = n;
  s.failure = result;
  s.failure_stays = stays;
  s.failed = false;
}

void lose_gpus(CUresult result) {
  State& s = state();
  s.lost = result;
  for (const auto& stream : s.busy) {
    stream->tasks.clear();
    stream->done = stream->submitted;
  }
  s.busy.clear();
}

// Runs the first task of a random stream whose first task waits for nothing.
void run_one() {
  State& s = state();
  std::vector<std::shared_ptr<Stream>> ready;
  std::copy_if(s.busy.begin(), s.busy.end(), std::back_inserter(ready), [](const auto& stream) {
    const auto& after = stream->tasks.front().after;
    return !after || after->reached();
  });
  const auto& stream = ready.at(s.random() % ready.size());
  const Task task = std::move(stream->tasks.front());
  stream->tasks.pop_front();
  if (stream->tasks.empty()) std::erase(s.busy, stream);
  if (task.work) task.work();
  ++stream->done;
}

template <class Item>
void list(const Table<Item>& table, std::vector<std::string>& names) {
  names.insert(names.end(), table.items.size(), table.name);
}

}  // namespace

bool Point::reached() const {
  return stream->done >= count;
}

Thread::~Thread() {
  if (!current.empty()) report_fault("a thread ended with a GPU still current");
}

Thread& this_thread() {
  thread_local Thread thread;
  return thread;
}

State& state() {
  // Never destroyed, because engines in static storage call the driver during process exit.
  static auto& only = *new State();
  return only;
}

void put(const std::shared_ptr<Stream>& stream, Task task) {
  if (stream->tasks.empty()) state().busy.push_back(stream);
  stream->tasks.push_back(std::move(task));
  ++stream->submitted;
}

void put_or_record(const std::shared_ptr<Stream>& stream, Work work) {
  if (stream->is_broken) throw DriverError{CUDA_ERROR_STREAM_CAPTURE_INVALIDATED};
  if (stream->recording) {
    stream->recording->push_back(std::move(work));
  } else {
    put(stream, {std::move(work), std::nullopt});
  }
}

void wait_for(const Point& point) {
  if (this_thread().recording) throw DriverError{CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED};
  while (!point.reached()) run_one();
}

void run_all() {
  while (!state().busy.empty()) run_one();
}

bool break_captures(int gpu) {
  bool any = false;
  for (const auto& [handle, stream] : state().streams.items) {
    if (stream->gpu != gpu || !stream->recording) continue;
    stream->is_broken = true;
    any = true;
  }
  return any;
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

std::shared_ptr<Stream> find_stream(CUstream handle, int gpu) {
  if (handle != nullptr && handle != CU_STREAM_LEGACY && handle != CU_STREAM_PER_THREAD) {
    return find(state().streams, handle);
  }
  auto& stream = state().default_streams[gpu];
  if (stream == nullptr) stream = std::make_shared<Stream>(Stream{gpu});
  return stream;
}

std::byte* find_memory(Table<Memory>& table, size_t address, size_t bytes) {
  const auto next = table.items.upper_bound(address);
  if (next != table.items.begin()) {
    auto& [begin, memory] = *std::prev(next);
    if (address + bytes <= begin + memory.bytes.size()) return &memory.bytes[address - begin];
  }
  report_fault(std::string("used: invalid ") + table.name);
  return nullptr;
}

// The functions for tests and for the fake of TensorRT.

void reset(unsigned seed) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  repair();
  run_all();
  s.faults.clear();
  s.random.seed(seed);
  s.gpus = 2;
  s.memory_limit = size_t{16} << 20U;
  s.graph_launches = 0;
  s.captures_to_break = 0;
}

void set_gpus(int count) {
  const std::lock_guard lock(state().mutex);
  state().gpus = count;
}

void set_memory(size_t bytes) {
  const std::lock_guard lock(state().mutex);
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

void repair() {
  const std::lock_guard lock(state().mutex);
  state().lost = CUDA_SUCCESS;
  set_failure(-1, CUDA_SUCCESS, false);
}

std::vector<std::string> alive() {
  const State& s = state();
  const std::lock_guard lock(state().mutex);
  std::vector<std::string> names;
  list(s.device_memory, names);
  list(s.pinned_memory, names);
  list(s.streams, names);
  list(s.events, names);
  list(s.graphs, names);
  list(s.executable_graphs, names);
  return names;
}

std::vector<std::string> faults() {
  const std::lock_guard lock(state().mutex);
  return state().faults;
}

int graph_launches() {
  const std::lock_guard lock(state().mutex);
  return state().graph_launches;
}

void count_graph_launch() {
  const std::lock_guard lock(state().mutex);
  ++state().graph_launches;
}

void break_next_captures(int count) {
  const std::lock_guard lock(state().mutex);
  state().captures_to_break = count;
}

Counts counts() {
  const std::lock_guard lock(state().mutex);
  return {state().allocations, state().synchronisations};
}

void finish() {
  const std::lock_guard lock(state().mutex);
  run_all();
}

CUresult submit(CUstream stream, Work work) {
  return call_on_gpu("a kernel",
                     [&](int gpu) { put_or_record(find_stream(stream, gpu), std::move(work)); });
}

void* at(CUdeviceptr address, size_t bytes) {
  const std::lock_guard lock(state().mutex);
  return find_memory(state().device_memory, address, bytes);
}

int current_gpu() {
  const auto& current = this_thread().current;
  return current.empty() ? -1 : current.back();
}

void report_fault(const std::string& what) {
  const std::lock_guard lock(state().mutex);
  state().faults.push_back(what);
}

}  // namespace resrt::fake
