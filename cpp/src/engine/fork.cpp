#include "engine/fork.h"

#include <atomic>
#include <pthread.h>

#include "text.h"

namespace resrt {
namespace {

// How many forks lead to this process. Not its ID, which a child in another namespace may share.
std::atomic<unsigned> forks = 0;

}  // namespace

ProcessMark::ProcessMark() {
  [[maybe_unused]] static const int registered =
      ::pthread_atfork(nullptr, nullptr, [] { ++forks; });
  forks_ = forks;
}

bool ProcessMark::is_here() const {
  return forks_ == forks;
}

std::string forked_message(const std::string& what) {
  return concat(what,
                " in another process, from which this one was forked, and its threads exist only "
                "there; load engines only after the fork, or start processes with "
                "multiprocessing's 'spawn' method");
}

}  // namespace resrt
