#include "backends/tensorrt/logger.h"

#include <exception>

#include "backends/tensorrt/flavour.h"
#include "resrt/log.h"
#include "text.h"

namespace resrt::tensorrt {
namespace {

constexpr size_t kKept = 16;

LogLevel to_level(nvinfer1::ILogger::Severity severity) {
  switch (severity) {
    case nvinfer1::ILogger::Severity::kINTERNAL_ERROR:
    case nvinfer1::ILogger::Severity::kERROR: return LogLevel::error;
    case nvinfer1::ILogger::Severity::kWARNING: return LogLevel::warning;
    case nvinfer1::ILogger::Severity::kINFO: return LogLevel::info;
    case nvinfer1::ILogger::Severity::kVERBOSE: break;
  }
  return LogLevel::debug;
}

}  // namespace

void Logger::log(Severity severity, const char* message) noexcept {
  try {
    const LogLevel level = to_level(severity);
    if (level == LogLevel::error) {
      const std::lock_guard lock(mutex_);
      errors_.emplace_back(message);
      if (errors_.size() > kKept) errors_.pop_front();
      ++count_;
    }
    resrt::log(level, kBackend, message);
  } catch (const std::exception&) {
    // Out of memory. The exception must not unwind TensorRT's code.
  }
}

uint64_t Logger::mark() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

std::string Logger::errors_since(uint64_t mark) const {
  const std::lock_guard lock(mutex_);
  const auto recent = static_cast<std::ptrdiff_t>(
      std::min<uint64_t>(count_ - mark, static_cast<uint64_t>(errors_.size())));
  if (recent == 0) return concat(kProduct, " gave no reason");
  return join(std::vector<std::string>(errors_.end() - recent, errors_.end()), "; ");
}

}  // namespace resrt::tensorrt
