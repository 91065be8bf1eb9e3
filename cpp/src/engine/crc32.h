#pragma once

#include <cstdint>
#include <string_view>

namespace resrt {

// Returns the CRC-32 of the bytes, as in zlib and PNG. `crc` is the CRC of the bytes before them.
uint32_t crc32(std::string_view bytes, uint32_t crc = 0);

}  // namespace resrt
