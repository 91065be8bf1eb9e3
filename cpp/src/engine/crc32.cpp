#include "engine/crc32.h"

#include <array>
#include <bit>
#include <cstring>

namespace resrt {
namespace {

constexpr uint32_t kPolynomial = 0xedb88320U;

// Slicing by eight: table[k][b] is the CRC of byte b followed by k zero bytes, so eight bytes take
// eight look-ups that do not depend on each other. A plan can have hundreds of megabytes.
constexpr auto kTables = [] {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? kPolynomial : 0U);
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

// The product of two polynomials over GF(2), modulo that of the CRC. The highest bit is the
// coefficient of x^0, as in the CRC.
constexpr uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (; a != 0; a <<= 1U) {
    if ((a & 0x80000000U) != 0) product ^= b;
    b = (b >> 1U) ^ ((b & 1U) != 0 ? kPolynomial : 0U);
  }
  return product;
}

}  // namespace

// Each byte after the first part multiplies its polynomial by x^8.
uint32_t crc32_of_both(uint32_t first, uint32_t second, uint64_t size_of_second) {
  uint32_t power = 0x00800000U;  // x^8, then its square, and so on
  for (uint64_t left = size_of_second; left != 0; left >>= 1U) {
    if ((left & 1U) != 0) first = multiply(first, power);
    power = multiply(power, power);
  }
  return first ^ second;
}

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
