#include <array>
#include <cstddef>
#include <memory>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <ucontext.h>
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
constexpr unsigned kMostBlocks = 65535;          // along y and z
constexpr size_t kMostSharedMemory = 48 * 1024;  // unless a launch opts in to more
constexpr size_t kStack = 64 * 1024;

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

enum class State { ready, at_barrier, at_shuffle, done };

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

// The threads of a block, along x. Runs the blocks of a grid one after another.
class Block {
 public:
  Block(size_t threads, size_t shared_memory, const std::function<void()>& kernel);

  // Runs the kernel to its end in every thread.
  void run();

  // Suspends or ends the running thread.
  void pause(State state);
  Thread& thread() { return *thread_; }
  float* shared_memory() { return reinterpret_cast<float*>(shared_memory_.data()); }

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
  Fiber scheduler_;
  std::span<Thread> warp_;    // the running warp
  size_t turn_ = 0;           // the number of its lanes that have had their turn
  size_t first_lane_ = 0;     // the lane that runs first
  Thread* thread_ = nullptr;  // the running thread
  Fiber* from_ = nullptr;     // the fiber that ran before
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

void Block::run() {
  std::ranges::fill(shared_memory_, std::byte{0xFF});
  for (Thread& thread : threads_) begin(thread);
  std::vector<size_t> warps(threads_.size() / kWarp);
  std::iota(warps.begin(), warps.end(), size_t{0});
  do {
    std::ranges::shuffle(warps, random_order);
    for (const size_t warp : warps) run_warp(std::span(threads_).subspan(warp * kWarp, kWarp));
  } while (pass_barrier());
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

// Runs a warp until each of its threads is at a barrier or done.
void Block::run_warp(std::span<Thread> warp) {
  warp_ = warp;
  do {
    turn_ = 0;
    first_lane_ = random_order() % kWarp;
    switch_to_next(scheduler_, false);
  } while (shuffle());
}

// Returns the next thread of the warp, whose threads are all ready, or the scheduler after the
// last.
Fiber& Block::next() {
  if (turn_ == kWarp) return scheduler_;
  thread_ = &warp_[turn_++ ^ first_lane_];
  threadIdx = thread_->index;
  return thread_->fiber;
}

void Block::switch_to_next(Fiber& from, bool for_good) {
  from_ = &from;
  leave(from, next(), for_good);
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

// Completes a barrier. Returns whether the block was at one.
bool Block::pass_barrier() {
  const size_t there = count(threads_, State::at_barrier);
  if (there == 0) return false;
  if (there < threads_.size()) {
    throw std::runtime_error("only " + std::to_string(there) + " threads of " +
                             std::to_string(threads_.size()) + " reach a barrier");
  }
  for (Thread& thread : threads_) thread.state = State::ready;
  return true;
}

void check_launch(dim3 grid, int threads, size_t shared_memory) {
  const auto check = [](bool holds, const char* what, size_t found) {
    if (!holds)
      throw std::runtime_error("invalid " + std::string(what) + ": " + std::to_string(found));
  };
  check(grid.x > 0, "blocks along x", grid.x);
  check(grid.y > 0 && grid.y <= kMostBlocks, "blocks along y", grid.y);
  check(grid.z > 0 && grid.z <= kMostBlocks, "blocks along z", grid.z);
  const auto size = static_cast<size_t>(threads);
  check(size > 0 && size <= kMostThreads && size % kWarp == 0, "threads per block", size);
  check(shared_memory <= kMostSharedMemory, "bytes of shared memory", shared_memory);
}

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
  return block->shared_memory();
}

void run_grid(dim3 grid, int threads, size_t shared_memory, const std::function<void()>& thread) {
  check_launch(grid, threads, shared_memory);
  Block one(static_cast<size_t>(threads), shared_memory, thread);
  block = &one;
  gridDim = grid;
  std::vector<unsigned> order(size_t{grid.x} * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::shuffle(order, random_order);
  for (const unsigned i : order) {
    blockIdx = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
    one.run();
  }
}

}  // namespace resrt::plugin

// A failed launch throws instead.
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
