#pragma once

#include <functional>
#include <string>

#include "backends/backend.h"
#include "resrt/engine.h"

namespace resrt {

struct EngineFile {
  EngineInfo info;
  Plan plan;
};

// The engine file, little-endian:
//
//   8 bytes  magic "resrt\0\r\n"
//   u32      format version
//   u64      length of the metadata
//   metadata: u32 number of entries, then for each: u32 length, key, u32 length, value
//   u64      length of the plan
//   plan
//   u32      CRC-32 (as in zlib) of everything before it
//
// The lengths must add up to the size of the file. Unknown metadata keys are ignored. `stop` is
// that of write_file_atomically.
void write_engine_file(const std::string& path, const EngineInfo& info, const Plan& plan,
                       const std::function<bool()>& stop = {});
EngineFile read_engine_file(const std::string& path);

}  // namespace resrt
