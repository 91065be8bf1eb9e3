#pragma once

#include <cstdint>
#include <string_view>

namespace resrt {

// CRC-32 as in zlib and PNG. `crc`: of what came before, to go on from.
uint32_t crc32(std::string_view bytes, uint32_t crc = 0);

}  // namespace resrt
