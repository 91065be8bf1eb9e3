#pragma once

#include <cstddef>
#include <cuda.h>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "driver.h"

// What the stand-in for the driver is made of: streams of work that runs when it must, and tables
// of all that there is. Everything happens under one mutex.
namespace resrt::stand_in {

using Work = std::function<void()>;

struct Stream;

// A place in a stream: behind the first `count` of all that was ever put into it.
struct Point {
  std::shared_ptr<Stream> stream;
  size_t count = 0;
  bool reached() const;
};

// Work, or none and a place in another stream that must be reached first.
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

struct Memory {
  int gpu = 0;
  std::vector<std::byte> bytes;
};

struct Event {
  int gpu = 0;
  std::optional<Point> recorded = std::nullopt;
};

struct Graph {
  int gpu = 0;
  std::vector<Work> works;
};

// All of one kind, by handle or address.
template <class Thing>
struct Table {
  const char* name;
  std::map<size_t, Thing> things = {};
};

struct State {
  std::recursive_mutex mutex;  // work that runs within a call makes calls of its own
  std::minstd_rand random;
  int gpus = 2;
  size_t memory_limit = 0;
  // None is used twice.
  size_t next_handle = 0x1000;
  CUdeviceptr next_address = CUdeviceptr{1} << 62U;  // where no processor has memory

  int calls_to_failure = -1;
  CUresult failure = CUDA_SUCCESS;
  bool failure_stays = false;
  bool failed = false;
  CUresult lost = CUDA_SUCCESS;

  std::vector<std::string> faults;
  int graph_launches = 0;

  Table<Memory> device_memory{"device memory"};
  Table<Memory> pinned_memory{"pinned memory"};
  Table<std::shared_ptr<Stream>> streams{"stream"};
  Table<Event> events{"event"};
  Table<Graph> graphs{"graph"};
  Table<Graph> executable_graphs{"executable graph"};
  std::map<int, std::shared_ptr<Stream>> default_streams;
  std::vector<std::shared_ptr<Stream>> busy;  // also those that were destroyed since
};

State& state();

// A thread's GPUs, the current one last, and whether a stream records what the thread does.
struct Thread {
  std::vector<int> current;
  bool recording = false;
  ~Thread();
};
Thread& this_thread();

void put(const std::shared_ptr<Stream>& stream, Task task);
void put_or_record(const std::shared_ptr<Stream>& stream, Work work);
void wait_for(const Point& point);
void run_all();

// What a call that the driver refuses throws within the stand-in.
struct Refusal {
  CUresult result;
};

// How a call fails that is made to.
enum class Kind {
  plain,     // and does nothing
  releases,  // after it has done what it should
  loses,     // because the GPU is lost
};

// Counts a call, and returns how it is to fail.
CUresult next_failure(Kind kind);

// A call that needs no current GPU.
template <class Act>
CUresult call(Kind kind, Act act) {
  const std::lock_guard lock(state().mutex);
  const CUresult failure = next_failure(kind);
  if (failure != CUDA_SUCCESS && kind != Kind::releases) return failure;
  try {
    act();
  } catch (const Refusal& refusal) {
    return refusal.result;
  }
  return failure;
}

// One that needs a current GPU, and is told its number.
template <class Act>
CUresult call_on_gpu(const char* name, Kind kind, Act act) {
  return call(kind, [&] {
    if (current_gpu() < 0 && state().lost == CUDA_SUCCESS) {
      report_fault(std::string(name) + " without a current GPU");
      throw Refusal{CUDA_ERROR_INVALID_CONTEXT};
    }
    act(current_gpu());
  });
}
template <class Act>
CUresult call_on_gpu(const char* name, Act act) {
  return call_on_gpu(name, Kind::plain, act);
}

// A handle or an address as a number.
template <class Handle>
size_t number(Handle handle) {
  if constexpr (std::is_pointer_v<Handle>) {
    return reinterpret_cast<size_t>(handle);
  } else {
    return handle;
  }
}

template <class Handle, class Thing>
Handle add(Table<Thing>& table, Thing thing) {
  const size_t handle = state().next_handle++;
  table.things.emplace(handle, std::move(thing));
  return reinterpret_cast<Handle>(handle);
}

template <class Thing, class Handle>
Thing& find(Table<Thing>& table, Handle handle) {
  const auto found = table.things.find(number(handle));
  if (found != table.things.end()) return found->second;
  report_fault(std::string("used: a ") + table.name + " that is not there");
  throw Refusal{CUDA_ERROR_INVALID_HANDLE};
}

// The default stream has none.
std::shared_ptr<Stream> find_stream(CUstream handle, int gpu);

inline int gpu_of(const std::shared_ptr<Stream>& stream) {
  return stream->gpu;
}
template <class Thing>
int gpu_of(const Thing& thing) {
  return thing.gpu;
}

// Whose GPU must be the current one, unless it is lost.
template <class Thing, class Handle>
void remove(Table<Thing>& table, Handle handle) {
  if (gpu_of(find(table, handle)) != current_gpu() && state().lost == CUDA_SUCCESS) {
    report_fault(std::string("freed while another GPU was current: ") + table.name);
  }
  table.things.erase(number(handle));
}

// The memory of `bytes` from an address on; null and a fault where it is not all there.
std::byte* find_memory(Table<Memory>& table, size_t address, size_t bytes);

}  // namespace resrt::stand_in
