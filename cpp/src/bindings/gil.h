#pragma once

#include <memory>
#include <utility>

#include <pybind11/pybind11.h>

namespace resrt {

// Releases the interpreter lock (GIL) for its lifetime. The process exits only when no thread has
// released it here any more, see bind_gil.
class ReleasedGil {
 public:
  ReleasedGil();
  ~ReleasedGil();
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  PyThreadState* state_;
};

// Lets the process exit only after its lifetime, as ReleasedGil does, in a thread without the GIL.
class DelayedExit {
 public:
  DelayedExit();
  ~DelayedExit();
  DelayedExit(const DelayedExit&) = delete;
  DelayedExit& operator=(const DelayedExit&) = delete;
};

// Holds the GIL for its lifetime, in any thread. The thread may hold it already.
class HeldGil {
 public:
  HeldGil();
  ~HeldGil();
  HeldGil(const HeldGil&) = delete;
  HeldGil& operator=(const HeldGil&) = delete;

 private:
  PyGILState_STATE state_{};
};

// Returns a shared copy of a Python object that any thread may release, without the GIL.
template <class Object>
std::shared_ptr<Object> shared_with_gil(Object object) {
  return {new Object(std::move(object)), [](Object* owned) {
            const HeldGil gil;
            delete owned;
          }};
}

// Lets daemon threads use engines while the interpreter exits: the process waits for what they
// compute before the libraries of the backends are finalised. If that takes long, or a thread of
// start_thread still runs, the process ends without finalising them.
void bind_gil();

}  // namespace resrt
