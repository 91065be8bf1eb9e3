#pragma once

#include <functional>
#include <string>

#include "resrt/export.h"

namespace resrt {

// The level of a message from an inference library. Failures are also thrown, never only logged.
enum class LogLevel { error, warning, info, debug };

// `source` is the backend whose library logs the message. Called from any thread, possibly several
// at once. Must not throw.
using LogSink =
    std::function<void(LogLevel level, const std::string& source, const std::string& message)>;

// Sends the messages of all backends, of level `finest` or more severe, to the sink. An empty sink,
// the default, drops them.
RESRT_API void set_log(LogSink sink, LogLevel finest = LogLevel::info);

// Passes a message to the sink.
RESRT_API void log(LogLevel level, const std::string& source, const std::string& message);

}  // namespace resrt
