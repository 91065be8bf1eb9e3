#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>

#include "bindings/gil.h"

namespace resrt {

// Whether nobody waits for some work's result any more.
using Abandoned = std::atomic<bool>;

// Whether this is the thread that Python's signal handlers run in. The GIL must be held.
bool in_main_thread();

// Runs the signal handlers that are due. The GIL must be held. Throws what one of them raises, such
// as KeyboardInterrupt.
void check_signals();

// Starts a thread that receives no signals.
std::thread start_thread(std::function<void()> work);

// Whether a thread of start_thread still runs.
bool has_running_threads();

// Calls work(abandoned) without the GIL and returns its result or throws its exception. In Python's
// main thread, an interrupt ends the call within a twentieth of a second: the work continues in
// another thread, which can test whether it is abandoned, and its result is discarded. The work
// must therefore own everything that it uses, see shared_with_gil.
template <class Work>
auto interruptibly(Work work) {
  using Result = std::invoke_result_t<Work&, const Abandoned&>;
  const auto abandoned = std::make_shared<Abandoned>(false);
  if (!in_main_thread()) {
    const ReleasedGil release;
    return work(*abandoned);
  }
  const auto task = std::make_shared<std::packaged_task<Result()>>(
      [abandoned, work = std::move(work)]() mutable { return work(*abandoned); });
  std::future<Result> result = task->get_future();
  std::thread thread = start_thread([task] { (*task)(); });
  for (;;) {
    try {
      check_signals();
    } catch (...) {
      *abandoned = true;
      thread.detach();
      throw;
    }
    const ReleasedGil release;
    if (result.wait_for(std::chrono::milliseconds(50)) == std::future_status::ready) {
      thread.join();
      break;
    }
  }
  return result.get();
}

}  // namespace resrt
