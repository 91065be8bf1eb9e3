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

}  // namespace resrt
