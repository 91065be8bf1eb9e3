#pragma once

#include <string>

namespace resrt {

// Identifies the process in which an object was created. After a fork, the child has a copy of the
// object, but not the threads that work for it, and would wait for them without end.
class ProcessMark {
 public:
  ProcessMark();
  // Whether this process is the one in which the mark was created, and not a fork of it.
  bool is_here() const;

 private:
  unsigned forks_;
};

// Returns the message for an object that was used in the process from which this one was forked.
std::string forked_message(const std::string& what);

}  // namespace resrt
