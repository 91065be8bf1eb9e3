#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <ucontext.h>
#include <utility>
#include <vector>

#include "backends/tensorrt/plugin/device.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace resrt::plugin {

dim3 gridDim;
uint3 blockIdx;
uint3 threadIdx;
std::mt19937 random_order;

namespace {

constexpr size_t kWarp = 32;
constexpr size_t kMostThreads = 1024;
constexpr unsigned kMostBlocks = 65535;           // along y and z
constexpr size_t kMostSharedMemory = 227 * 1024;  // of the largest GPUs
constexpr size_t kStack = 32 * 1024;
constexpr size_t kMostRunning = 8;      // blocks at the same time, unless a cluster has more
constexpr int kMostFruitless = 100000;  // turns in which only waiting blocks ran

// A call stack that can be suspended and resumed.
struct Fiber {
  ucontext_t context = {};
  const void* stack = nullptr;  // its lowest address
  size_t stack_size = 0;
  void* fake_stack = nullptr;  // where AddressSanitizer may keep local variables
};

// Switches to another fiber, possibly for good. AddressSanitizer must be notified on both sides.
void leave([[maybe_unused]] Fiber& from, Fiber& to, [[maybe_unused]] bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.stack, to.stack_size);
#endif
  ::swapcontext(&from.context, &to.context);
}

// Must be called first after a switch, by the fiber that resumes.
void arrive([[maybe_unused]] Fiber& from, [[maybe_unused]] Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(to.fake_stack, &from.stack, &from.stack_size);
#endif
}

enum class State { ready, at_barrier, at_cluster_barrier, at_shuffle, waiting, done };

struct Thread {
  Fiber fiber;
  uint3 index = {};
  State state = State::ready;
  float value = 0.0F;      // the shuffled value
  size_t lanes_apart = 0;  // the distance of the lane to exchange with
};

size_t count(std::span<const Thread> threads, State state) {
  return static_cast<size_t>(
      std::ranges::count(threads, state, [](const Thread& thread) { return thread.state; }));
}

class Cluster;

// The threads of a block, along x.
class Block {
 public:
  Block(size_t threads, size_t shared_memory, const std::function<void()>& kernel);

  void begin(uint3 index, Cluster& cluster, int rank);

  // Runs each warp until it must wait. Returns whether anything but waiting was done.
  bool run();

  // Suspends or ends the running thread.
  void pause(State state);
  Thread& thread() { return *thread_; }
  std::byte* shared_memory() { return shared_memory_.data(); }
  Cluster& cluster() { return *cluster_; }
  int rank() const { return rank_; }
  bool is_done() const { return count(threads_, State::done) == threads_.size(); }
  // Returns whether the block is at a barrier of its cluster.
  bool is_at_cluster_barrier() const;
  void pass(State barrier);
  void end() { std::ranges::fill(shared_memory_, std::byte{0xFF}); }

 private:
  static void run_thread();

  void begin(Thread& thread);
  void run_warp(std::span<Thread> warp);
  Fiber& next();
  void switch_to_next(Fiber& from, bool for_good);
  bool shuffle();
  bool pass_barrier();

  std::vector<Thread> threads_;
  std::unique_ptr<std::byte[]> stacks_;
  std::vector<std::byte> shared_memory_;  // exactly as long as requested, for AddressSanitizer
  const std::function<void()>& kernel_;
  uint3 index_ = {};
  Cluster* cluster_ = nullptr;
  int rank_ = 0;
  Fiber scheduler_;
  std::span<Thread> warp_;    // the running warp
  size_t turn_ = 0;           // the number of its lanes that have had their turn
  size_t first_lane_ = 0;     // the lane that runs first
  Thread* thread_ = nullptr;  // the running thread
  Fiber* from_ = nullptr;     // the fiber that ran before
};

// Blocks that run together.
class Cluster {
 public:
  Cluster(size_t blocks, size_t threads, size_t shared_memory,
          const std::function<void()>& kernel) {
    for (size_t i = 0; i < blocks; ++i) {
      blocks_.push_back(std::make_unique<Block>(threads, shared_memory, kernel));
    }
  }

  void begin(uint3 first) {
    for (size_t rank = 0; rank < blocks_.size(); ++rank) {
      blocks_[rank]->begin({first.x + static_cast<unsigned>(rank), first.y, first.z}, *this,
                           static_cast<int>(rank));
    }
  }

  // Runs its blocks until all must wait. Returns whether anything but waiting was done.
  bool run() {
    std::vector<Block*> order;
    for (const auto& block : blocks_) order.push_back(block.get());
    std::ranges::shuffle(order, random_order);
    bool did = false;
    for (Block* block : order) {
      if (block->is_done() || block->is_at_cluster_barrier()) continue;
      did |= block->run();
      if (block->is_done()) block->end();
    }
    return pass_barrier() || did;
  }

  bool is_done() const {
    return std::ranges::all_of(blocks_, [](const auto& block) { return block->is_done(); });
  }
  size_t size() const { return blocks_.size(); }
  Block& block(int rank) { return *blocks_.at(static_cast<size_t>(rank)); }

 private:
  bool pass_barrier() {
    const auto there = std::ranges::count_if(
        blocks_, [](const auto& block) { return block->is_at_cluster_barrier(); });
    if (there == 0) return false;
    const auto done =
        std::ranges::count_if(blocks_, [](const auto& block) { return block->is_done(); });
    if (done > 0) throw std::runtime_error("a block ends while its cluster is at a barrier");
    if (static_cast<size_t>(there) < blocks_.size()) return false;
    for (const auto& block : blocks_) block->pass(State::at_cluster_barrier);
    return true;
  }

  std::vector<std::unique_ptr<Block>> blocks_;
};

Block* block = nullptr;  // the running block

Block::Block(size_t threads, size_t shared_memory, const std::function<void()>& kernel)
    : threads_(threads),
      stacks_(std::make_unique_for_overwrite<std::byte[]>(threads * kStack)),
      shared_memory_(shared_memory),
      kernel_(kernel) {
  for (size_t i = 0; i < threads; ++i) {
    threads_[i].index = {static_cast<unsigned>(i), 0, 0};
    Fiber& fiber = threads_[i].fiber;
    std::byte* stack = stacks_.get() + i * kStack;
    fiber.stack = stack;
    fiber.stack_size = kStack;
    ::getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = kStack;
  }
}

void Block::begin(uint3 index, Cluster& cluster, int rank) {
  index_ = index;
  cluster_ = &cluster;
  rank_ = rank;
  std::ranges::fill(shared_memory_, std::byte{0xFF});
  for (Thread& thread : threads_) begin(thread);
}

bool Block::run() {
  block = this;
  blockIdx = index_;
  std::vector<size_t> warps(threads_.size() / kWarp);
  std::iota(warps.begin(), warps.end(), size_t{0});
  std::ranges::shuffle(warps, random_order);
  const size_t waited = count(threads_, State::waiting);
  bool did = false;
  for (Thread& thread : threads_) {
    did |= thread.state == State::ready;
    if (thread.state == State::waiting) thread.state = State::ready;
  }
  for (const size_t warp : warps) run_warp(std::span(threads_).subspan(warp * kWarp, kWarp));
  return pass_barrier() || did || count(threads_, State::waiting) != waited;
}

void Block::begin(Thread& thread) {
  thread.fiber.fake_stack = nullptr;
  ::makecontext(&thread.fiber.context, run_thread, 0);
  thread.state = State::ready;
}

// The entry point of a thread's fiber, in the running block.
void Block::run_thread() {
  arrive(*block->from_, block->thread_->fiber);
  block->kernel_();
  block->pause(State::done);
}

void Block::pause(State state) {
  thread_->state = state;
  switch_to_next(thread_->fiber, state == State::done);
}

// Runs a warp until each of its threads must wait or is done.
void Block::run_warp(std::span<Thread> warp) {
  warp_ = warp;
  do {
    turn_ = 0;
    first_lane_ = random_order() % kWarp;
    switch_to_next(scheduler_, false);
  } while (shuffle());
}

// Returns the next thread of the warp that is ready, or the scheduler after the last.
Fiber& Block::next() {
  while (turn_ < kWarp) {
    thread_ = &warp_[turn_++ ^ first_lane_];
    if (thread_->state != State::ready) continue;
    threadIdx = thread_->index;
    return thread_->fiber;
  }
  return scheduler_;
}

void Block::switch_to_next(Fiber& from, bool for_good) {
  from_ = &from;
  Fiber& to = next();
  if (&to == &from) return;
  leave(from, to, for_good);
  arrive(*from_, from);
}

// Completes a shuffle. Returns whether the warp was at one.
bool Block::shuffle() {
  const size_t there = count(warp_, State::at_shuffle);
  if (there == 0) return false;
  if (there < kWarp) {
    throw std::runtime_error("only " + std::to_string(there) + " lanes of a warp shuffle");
  }
  std::array<float, kWarp> values;
  std::ranges::transform(warp_, values.begin(), &Thread::value);
  for (size_t lane = 0; lane < kWarp; ++lane) {
    if (warp_[lane].lanes_apart != warp_[0].lanes_apart) {
      throw std::runtime_error("the lanes of a warp shuffle over different distances");
    }
    warp_[lane].value = values.at(lane ^ warp_[lane].lanes_apart);
    warp_[lane].state = State::ready;
  }
  return true;
}

bool Block::is_at_cluster_barrier() const {
  const size_t there = count(threads_, State::at_cluster_barrier);
  if (there > 0 && there < threads_.size()) {
    throw std::runtime_error("only " + std::to_string(there) + " threads of " +
                             std::to_string(threads_.size()) + " reach a cluster's barrier");
  }
  return there > 0;
}

void Block::pass(State barrier) {
  for (Thread& thread : threads_) {
    if (thread.state == barrier) thread.state = State::ready;
  }
}

// Completes a barrier. Returns whether the block was at one.
bool Block::pass_barrier() {
  const size_t there = count(threads_, State::at_barrier);
  if (there == 0 || count(threads_, State::waiting) > 0) return false;
  if (there < threads_.size()) {
    throw std::runtime_error("only " + std::to_string(there) + " threads of " +
                             std::to_string(threads_.size()) + " reach a barrier");
  }
  pass(State::at_barrier);
  return true;
}

void check_launch(const LaunchShape& shape) {
  const auto check = [](bool holds, const char* what, size_t found) {
    if (!holds)
      throw std::runtime_error("invalid " + std::string(what) + ": " + std::to_string(found));
  };
  const auto x = static_cast<size_t>(shape.grid.x);
  const auto y = static_cast<size_t>(shape.grid.y);
  const auto z = static_cast<size_t>(shape.grid.z);
  check(x > 0, "blocks along x", x);
  check(y > 0 && y <= kMostBlocks, "blocks along y", y);
  check(z > 0 && z <= kMostBlocks, "blocks along z", z);
  const auto threads = static_cast<size_t>(shape.threads);
  check(threads > 0 && threads <= kMostThreads && threads % kWarp == 0, "threads per block",
        threads);
  check(shape.shared_memory <= kMostSharedMemory, "bytes of shared memory", shape.shared_memory);
  const auto cluster = static_cast<size_t>(shape.cluster);
  check(cluster > 0 && cluster <= 16 && x % cluster == 0, "blocks per cluster", cluster);
}

struct Tensor {
  std::string name;
  const std::byte* begin;
  const std::byte* end;
};
std::vector<Tensor> tensors;
std::map<std::string, Counted> counts;
int launches = 0;

}  // namespace

void __syncthreads() {
  block->pause(State::at_barrier);
}

float __shfl_xor_sync(unsigned, float value, int lanes_apart) {
  Thread& thread = block->thread();
  thread.value = value;
  thread.lanes_apart = static_cast<size_t>(lanes_apart);
  block->pause(State::at_shuffle);
  return thread.value;
}

float* launched_shared_memory() {
  return reinterpret_cast<float*>(block->shared_memory());
}

int cluster_rank() {
  return block->rank();
}
int cluster_size() {
  return static_cast<int>(block->cluster().size());
}
void cluster_barrier() {
  block->pause(State::at_cluster_barrier);
}
void* address_in_block(const void* here, int rank) {
  const auto offset = static_cast<const std::byte*>(here) - block->shared_memory();
  return block->cluster().block(rank).shared_memory() + offset;
}

void wait_until(const unsigned* counter, unsigned value) {
  while (*counter < value) block->pause(State::waiting);
}

void count_bytes(const std::string& tensor, const void* begin, size_t size) {
  const auto* first = static_cast<const std::byte*>(begin);
  tensors.push_back({tensor, first, first + size});
}

std::map<std::string, Counted> take_counts() {
  tensors.clear();
  return std::exchange(counts, {});
}

void count_access(const void* address, size_t bytes, bool writes) {
  const auto* first = static_cast<const std::byte*>(address);
  for (const Tensor& tensor : tensors) {
    if (first < tensor.begin || first >= tensor.end) continue;
    Counted& counted = counts[tensor.name];
    (writes ? counted.written : counted.read) += static_cast<int64_t>(bytes);
    counted.narrowest = std::min(counted.narrowest, bytes);
    return;
  }
}

cudaError_t clear(void* memory, size_t bytes, cudaStream_t) {
  std::memset(memory, 0, bytes);
  ++launches;
  return cudaSuccess;
}

int take_launches() {
  return std::exchange(launches, 0);
}

void run_grid(const LaunchShape& shape, const std::function<void()>& thread) {
  check_launch(shape);
  ++launches;
  const auto& [x, y, z] = shape.grid;
  gridDim = dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
  const auto size = static_cast<size_t>(shape.cluster);
  const size_t clusters =
      static_cast<size_t>(x) * static_cast<size_t>(y) * static_cast<size_t>(z) / size;
  std::vector<size_t> order(clusters);
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::shuffle(order, random_order);

  // A place is where one cluster after another runs.
  const size_t most = std::max<size_t>(1, kMostRunning / size);
  const size_t places = std::min(clusters, 1 + random_order() % most);
  std::vector<std::unique_ptr<Cluster>> running;
  const auto begin_next = [&](Cluster& cluster) {
    const size_t first = order.back() * size;
    order.pop_back();
    const auto columns = static_cast<size_t>(x);
    const auto rows = static_cast<size_t>(y);
    cluster.begin({static_cast<unsigned>(first % columns),
                   static_cast<unsigned>(first / columns % rows),
                   static_cast<unsigned>(first / columns / rows)});
  };
  for (size_t i = 0; i < places; ++i) {
    running.push_back(std::make_unique<Cluster>(size, static_cast<size_t>(shape.threads),
                                                shape.shared_memory, thread));
    begin_next(*running.back());
  }
  int fruitless = 0;
  while (!running.empty()) {
    const size_t place = random_order() % running.size();
    Cluster& cluster = *running[place];
    fruitless = cluster.run() ? 0 : fruitless + 1;
    if (fruitless > kMostFruitless) throw std::runtime_error("all running blocks wait forever");
    if (!cluster.is_done()) continue;
    if (order.empty()) {
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(place));
    } else {
      begin_next(cluster);
    }
  }
}

}  // namespace resrt::plugin
