#pragma once

#include <cstdint>
#include <string_view>

namespace resrt {

// Returns the CRC-32 of the bytes, as in zlib and PNG. `crc` is the CRC of the bytes before them.
uint32_t crc32(std::string_view bytes, uint32_t crc = 0);

// Returns the CRC-32 of bytes that consist of a first part and a second one of that size, from
// those of the parts.
uint32_t crc32_of_both(uint32_t first, uint32_t second, uint64_t size_of_second);

}  // namespace resrt
