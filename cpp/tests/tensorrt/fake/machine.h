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

// The state of the fake driver: streams of work, which runs only when it must, and tables of all
// objects. One mutex guards everything.
namespace resrt::fake {

using Work = std::function<void()>;

struct Stream;

// A position in a stream, after the first `count` tasks that were ever submitted to it.
struct Point {
  std::shared_ptr<Stream> stream;
  size_t count = 0;
  bool reached() const;
};

// Work, or a point in another stream to wait for.
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
  bool is_broken = false;  // the capture
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

// All objects of one kind, by handle or address.
template <class Item>
struct Table {
  const char* name;
  std::map<size_t, Item> items = {};
};

struct State {
  std::recursive_mutex mutex;  // recursive because work that runs in a call makes calls itself
  std::minstd_rand random;
  int gpus = 2;
  size_t memory_limit = 0;
  // Handles and addresses are never reused.
  size_t next_handle = 0x1000;
  CUdeviceptr next_address = CUdeviceptr{1} << 62U;  // never a valid host address

  int calls_to_failure = -1;
  CUresult failure = CUDA_SUCCESS;
  bool failure_stays = false;
  bool failed = false;
  CUresult lost = CUDA_SUCCESS;

  std::vector<std::string> faults;
  int graph_launches = 0;
  int captures_to_break = 0;
  int allocations = 0;
  int synchronisations = 0;

  Table<Memory> device_memory{"device memory"};
  Table<Memory> pinned_memory{"pinned memory"};
  Table<std::shared_ptr<Stream>> streams{"stream"};
  Table<Event> events{"event"};
  Table<Graph> graphs{"graph"};
  Table<Graph> executable_graphs{"executable graph"};
  std::map<int, std::shared_ptr<Stream>> default_streams;
  std::vector<std::shared_ptr<Stream>> busy;  // includes destroyed streams with work left
};

State& state();

// A thread's stack of GPUs, whose last is the current one, and whether the thread is capturing.
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
// Invalidates the captures on a GPU, as synchronising its context does. Returns whether there were
// any.
bool break_captures(int gpu);

// Thrown inside the fake by a call that the driver rejects.
struct DriverError {
  CUresult result;
};

// What a call does when it is made to fail.
enum class Kind {
  plain,     // nothing
  releases,  // its normal work
  loses,     // loses the GPU
};

// Counts a call and returns the result with which it must fail.
CUresult next_failure(Kind kind);

// A call that needs no current GPU.
template <class Act>
CUresult call(Kind kind, Act act) {
  const std::lock_guard lock(state().mutex);
  const CUresult failure = next_failure(kind);
  if (failure != CUDA_SUCCESS && kind != Kind::releases) return failure;
  try {
    act();
  } catch (const DriverError& error) {
    return error.result;
  }
  return failure;
}

// A call that needs a current GPU, whose index is passed to `act`.
template <class Act>
CUresult call_on_gpu(const char* name, Kind kind, Act act) {
  return call(kind, [&] {
    if (current_gpu() < 0 && state().lost == CUDA_SUCCESS) {
      report_fault(std::string(name) + " without a current GPU");
      throw DriverError{CUDA_ERROR_INVALID_CONTEXT};
    }
    act(current_gpu());
  });
}
template <class Act>
CUresult call_on_gpu(const char* name, Act act) {
  return call_on_gpu(name, Kind::plain, act);
}

// Converts a handle or an address to a number.
template <class Handle>
size_t number(Handle handle) {
  if constexpr (std::is_pointer_v<Handle>) {
    return reinterpret_cast<size_t>(handle);
  } else {
    return handle;
  }
}

template <class Handle, class Item>
Handle add(Table<Item>& table, Item item) {
  const size_t handle = state().next_handle++;
  table.items.emplace(handle, std::move(item));
  return reinterpret_cast<Handle>(handle);
}

template <class Item, class Handle>
Item& find(Table<Item>& table, Handle handle) {
  const auto found = table.items.find(number(handle));
  if (found != table.items.end()) return found->second;
  report_fault(std::string("used: invalid ") + table.name);
  throw DriverError{CUDA_ERROR_INVALID_HANDLE};
}

// The default streams are not in the table.
std::shared_ptr<Stream> find_stream(CUstream handle, int gpu);

inline int gpu_of(const std::shared_ptr<Stream>& stream) {
  return stream->gpu;
}
template <class Item>
int gpu_of(const Item& item) {
  return item.gpu;
}

// Removes an object, whose GPU must be the current one unless it is lost.
template <class Item, class Handle>
void remove(Table<Item>& table, Handle handle) {
  if (gpu_of(find(table, handle)) != current_gpu() && state().lost == CUDA_SUCCESS) {
    report_fault(std::string("freed while another GPU was current: ") + table.name);
  }
  table.items.erase(number(handle));
}

// Returns the memory of `bytes` from an address on, or null with a fault if not all of it is
// allocated.
std::byte* find_memory(Table<Memory>& table, size_t address, size_t bytes);

}  // namespace resrt::fake
