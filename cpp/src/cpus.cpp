#include "cpus.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <thread>
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "text.h"

namespace resrt {
namespace {

namespace fs = std::filesystem;

// Returns the quota of one control group. Version 2 has quota and period, in microseconds, in one
// file, and "max" for no quota; version 1 has two files, and -1 for no quota.
std::optional<double> quota_of(const fs::path& group) {
  double quota = 0;
  double period = 0;
  if (std::ifstream(group / "cpu.max") >> quota >> period && quota > 0 && period > 0) {
    return quota / period;
  }
  if (std::ifstream(group / "cpu.cfs_quota_us") >> quota && quota > 0 &&
      std::ifstream(group / "cpu.cfs_period_us") >> period && period > 0) {
    return quota / period;
  }
  return std::nullopt;
}

bool lists_cpu(std::string_view controllers) {
  while (!controllers.empty()) {
    const size_t end = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, end) == "cpu") return true;
    controllers.remove_prefix(std::min(end + 1, controllers.size()));
  }
  return false;
}

}  // namespace

int allowed_cpus() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

std::optional<double> cpu_quota(const std::string& proc, const std::string& groups) {
  std::optional<double> strictest;
  const auto consider = [&](const fs::path& group) {
    const std::optional<double> quota = quota_of(group);
    if (quota && (!strictest || *quota < *strictest)) strictest = quota;
  };
  // Version 2 has a single hierarchy, "0::/path", and version 1 one per controller,
  // "4:cpu,cpuacct:/path". In a container, the path may be that of the host, and only the root
  // exists. The quotas of all groups around that of this process apply.
  std::ifstream lines(fs::path(proc) / "self/cgroup");
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && !lists_cpu(controllers)) continue;
    fs::path group = fs::path(groups) / (controllers.empty() ? "" : "cpu");
    consider(group);
    for (const fs::path& part : fs::path(line.substr(second + 1)).relative_path()) {
      consider(group /= part);
    }
  }
  return strictest;
}

int usable_cpus() {
  const int allowed = allowed_cpus();
  const std::optional<double> quota = cpu_quota();
  return quota ? std::clamp(static_cast<int>(*quota), 1, allowed) : allowed;
}

std::string processor() {
#if defined(__x86_64__)
  std::array<unsigned, 12> brand{};
  for (unsigned i = 0; i < 3; ++i) {
    __get_cpuid(0x80000002U + i, &brand[4 * i], &brand[4 * i + 1], &brand[4 * i + 2],
                &brand[4 * i + 3]);
  }
  char name[sizeof brand + 1] = {};
  std::memcpy(name, brand.data(), sizeof brand);
  unsigned signature = 0;  // family, model and stepping: a virtual machine hides the name
  unsigned unused = 0;
  unsigned features = 0;
  unsigned extensions = 0;
  unsigned more_extensions = 0;
  __get_cpuid(1, &signature, &unused, &unused, &features);
  __get_cpuid_count(7, 0, &unused, &features, &unused, &extensions);
  __get_cpuid_count(7, 1, &more_extensions, &unused, &unused, &unused);
  return concat(name, std::hex, " ", signature, " ", features, " ", extensions, " ",
                more_extensions);
#else
  return "not x86";
#endif
}

}  // namespace resrt
