#include "resrt/log.h"

#include <memory>
#include <mutex>
#include <utility>

namespace resrt {
namespace {

struct Target {
  LogSink sink;
  LogLevel finest = LogLevel::info;
};

std::mutex mutex;

// Never destroyed, because a library's threads may log while the process exits.
std::shared_ptr<const Target>& current() {
  static auto& target = *new std::shared_ptr<const Target>(std::make_shared<Target>());
  return target;
}

}  // namespace

void set_log(LogSink sink, LogLevel finest) {
  auto target = std::make_shared<const Target>(Target{std::move(sink), finest});
  const std::lock_guard lock(mutex);
  current() = std::move(target);
}

void log(LogLevel level, const std::string& source, const std::string& message) {
  std::shared_ptr<const Target> target;
  {
    const std::lock_guard lock(mutex);
    target = current();
  }
  if (target->sink && level <= target->finest) target->sink(level, source, message);
}

}  // namespace resrt
