#include "engine/crc32.h"

#include <array>
#include <bit>
#include <cstring>

namespace resrt {
namespace {

// Slicing by eight: table[k][b] is the CRC of byte b followed by k zero bytes, so eight bytes take
// eight look-ups that do not depend on each other. A plan can have hundreds of megabytes.
constexpr auto kTables = [] {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? 0xedb88320U : 0U);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8U) ^ tables[0][before & 0xffU];
    }
  }
  return tables;
}();

static_assert(std::endian::native == std::endian::little, "engine files are little-endian");

}  // namespace

uint32_t crc32(std::string_view bytes, uint32_t crc) {
  crc = ~crc;
  const char* data = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; data += 8, left -= 8) {
    uint64_t word = 0;
    std::memcpy(&word, data, 8);
    word ^= crc;
    crc = 0;
    for (size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][(word >> (8 * k)) & 0xffU];
  }
  for (; left > 0; ++data, --left) {
    crc = (crc >> 8U) ^ kTables[0][(crc ^ static_cast<unsigned char>(*data)) & 0xffU];
  }
  return ~crc;
}

}  // namespace resrt
