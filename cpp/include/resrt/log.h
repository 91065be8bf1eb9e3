#pragma once

#include <functional>
#include <string>

#include "resrt/export.h"

namespace resrt {

// What an inference library says while it works. What fails is thrown besides, never only logged.
enum class LogLevel { error, warning, info, debug };

// `source` is the backend whose library says it. Called from any thread, several at once; must not
// throw.
using LogSink =
    std::function<void(LogLevel level, const std::string& source, const std::string& message)>;

// Sends messages of that level and graver ones to the sink, those of all backends alike; an empty
// sink, as it is at first, drops them.
RESRT_API void set_log(LogSink sink, LogLevel finest = LogLevel::info);

// Hands a message to the sink.
RESRT_API void log(LogLevel level, const std::string& source, const std::string& message);

}  // namespace resrt
