#include "bindings/gil.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <unistd.h>

#include "bindings/interrupt.h"

namespace resrt {
namespace {

// Without on_exit, as on macOS, what still runs afterwards may crash while libraries are finalised.
#ifdef __GLIBC__
constexpr std::chrono::milliseconds kLongestWait(500);
#else
constexpr std::chrono::milliseconds kLongestWait(10'000);
#endif

std::atomic<int> released = 0;            // how many ReleasedGil and DelayedExit exist
thread_local int released_by_thread = 0;  // of them in this thread

[[noreturn]] void sleep_until_exit() {
  released -= released_by_thread;
  for (;;) ::pause();
}

// Python before 3.14 calls pthread_exit in a thread that takes the GIL while the interpreter exits,
// as a daemon thread does. That would unwind the thread, and abort the process in the first
// noexcept function. Instead the thread sleeps until the process ends, as in Python 3.14.
template <class Take>
void take_gil(Take take) {
  try {
    take();
  } catch (...) {  // the only exception here is that of pthread_exit
    sleep_until_exit();
  }
}

// Python calls this when no other thread can take the GIL any more, and thus begin something new.
void wait_for_other_threads() {
  const auto end = std::chrono::steady_clock::now() + kLongestWait;
  while (released > 0 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
#ifdef __GLIBC__
  if (released == 0 && !has_running_threads()) return;
  // Of the functions that exit() calls, the last to be registered is called first.
  ::on_exit(
      [](int status, void*) {
        std::fflush(nullptr);
        ::_exit(status);
      },
      nullptr);
#endif
}

}  // namespace

ReleasedGil::ReleasedGil() {
  ++released;
  ++released_by_thread;
  state_ = PyEval_SaveThread();
}

ReleasedGil::~ReleasedGil() {
  --released_by_thread;
  --released;
  take_gil([this] { PyEval_RestoreThread(state_); });
}

DelayedExit::DelayedExit() {
  ++released;
}

DelayedExit::~DelayedExit() {
  --released;
}

// Python itself cannot be asked for the GIL in a thread that it does not know, such as one of
// start_thread, once the interpreter is gone.
HeldGil::HeldGil() {
  if (Py_IsInitialized() == 0 && PyGILState_GetThisThreadState() == nullptr) sleep_until_exit();
  take_gil([this] { state_ = PyGILState_Ensure(); });
}

HeldGil::~HeldGil() {
  PyGILState_Release(state_);
}

void bind_gil() {
  // If this fails, because too many modules have done so, the process exits without waiting.
  static_cast<void>(Py_AtExit(&wait_for_other_threads));
}

}  // namespace resrt
