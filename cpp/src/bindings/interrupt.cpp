#include "bindings/interrupt.h"

#include <csignal>

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace resrt {
namespace {

std::atomic<int> running = 0;  // how many threads of start_thread there are

// Blocks all signals in this thread for its lifetime, and in the threads that are started
// meanwhile.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

bool in_main_thread() {
  const auto main = py::module_::import("threading").attr("main_thread")().attr("ident");
  return main.cast<unsigned long>() == PyThread_get_thread_ident();
}

void check_signals() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

std::thread start_thread(std::function<void()> work) {
  const BlockedSignals block;
  ++running;
  try {
    return std::thread([work = std::move(work)]() mutable {
      work();
      work = nullptr;  // releases what it owns
      --running;
    });
  } catch (...) {
    --running;
    throw;
  }
}

bool has_running_threads() {
  return running > 0;
}

}  // namespace resrt
