#pragma once

#include <optional>
#include <string>

#include "resrt/export.h"

namespace resrt {

// Returns how many logical CPUs this process may run on.
RESRT_API int allowed_cpus();

// Returns how many CPUs this process may keep busy over time, as set by a container's quota, or
// nothing if there is no quota. The arguments are where Linux reports control groups.
RESRT_API std::optional<double> cpu_quota(const std::string& proc = "/proc",
                                          const std::string& groups = "/sys/fs/cgroup");

// Returns how many threads this process can keep busy: its CPUs, within its quota. At least 1.
RESRT_API int usable_cpus();

// Returns the processor's name, its family, model and stepping, and its features as text: what the
// speed of a kernel depends on. A virtual machine may hide the name.
RESRT_API std::string processor();

}  // namespace resrt
