#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <set>
#include <string_view>

#include "file_io.h"
#include "resrt/error.h"
#include "resrt/weights.h"
#include "text.h"

// A safetensors file consists of the length of its header (u64), the header in JSON, and the
// arrays' bytes, little-endian and in row-major order, one array after another:
//
//   {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [64, 3], "data_offsets":
//   [begin, end]}, ...}
namespace resrt {
namespace {

// Enough for more arrays than any network has. The Python package's reader has the same limit.
constexpr uint64_t kLongestHeader = 2U << 20U;

struct Entry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // offset into the arrays' bytes
  uint64_t end = 0;
};

float from_float16(const char* bytes) {
  uint16_t bits = 0;
  std::memcpy(&bits, bytes, sizeof bits);
  const bool is_negative = (bits >> 15U) != 0;
  const int exponent = (bits >> 10U) & 0x1f;
  const auto fraction = static_cast<float>(bits & 0x3ffU);
  float magnitude = 0;
  if (exponent == 0x1f) {
    magnitude = fraction == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(fraction, -24);
  } else {
    magnitude = std::ldexp(fraction + 1024, exponent - 25);
  }
  return is_negative ? -magnitude : magnitude;
}

float from_bfloat16(const char* bytes) {
  uint16_t bits = 0;
  std::memcpy(&bits, bytes, sizeof bits);
  return std::bit_cast<float>(uint32_t{bits} << 16U);
}

float from_float32(const char* bytes) {
  float value = 0;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

float from_float64(const char* bytes) {
  double value = 0;
  std::memcpy(&value, bytes, sizeof value);
  return static_cast<float>(value);
}

struct Dtype {
  const char* name;
  uint64_t size;
  float (*to_float)(const char*);  // null for integers, which are skipped
};

constexpr Dtype kDtypes[] = {
    {"F32", 4, from_float32}, {"F16", 2, from_float16}, {"BF16", 2, from_bfloat16},
    {"F64", 8, from_float64}, {"I64", 8, nullptr},      {"I32", 4, nullptr},
    {"I16", 2, nullptr},      {"I8", 1, nullptr},       {"U64", 8, nullptr},
    {"U32", 4, nullptr},      {"U16", 2, nullptr},      {"U8", 1, nullptr},
    {"BOOL", 1, nullptr},
};

// Parses the subset of JSON that a header uses: objects, strings, and arrays of integers.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& path)
      : text_(text), length_(text.size()), path_(path) {}

  std::vector<Entry> entries() {
    std::vector<Entry> all;
    members([&](const std::string& name) {
      if (name == "__metadata__") {
        members([&](const std::string&) { string(); });
      } else {
        all.push_back(entry(name));
      }
    });
    skip_space();
    if (!text_.empty()) fail("its header has extra text after the closing brace");
    return all;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw WeightsError(concat("'", path_, "' is not a valid safetensors file: ", what,
                              "; copy, download or convert it again"));
  }

 private:
  Entry entry(const std::string& name) {
    Entry entry{.name = name};
    int count = 0;
    members([&](const std::string& key) {
      ++count;
      if (key == "dtype") {
        entry.dtype = string();
      } else if (key == "shape") {
        entry.shape = numbers();
      } else if (key == "data_offsets") {
        const std::vector<int64_t> offsets = numbers();
        if (offsets.size() != 2) {
          fail(
              concat("data_offsets of ", shown(name), " must have 2 values, got ", offsets.size()));
        }
        entry.begin = static_cast<uint64_t>(offsets[0]);
        entry.end = static_cast<uint64_t>(offsets[1]);
      } else {
        fail(concat(shown(name), " has an unknown key in the header: ", shown(key)));
      }
    });
    if (count != 3) fail(concat(shown(name), " is missing its dtype, shape or data_offsets"));
    return entry;
  }

  // {"name": value, ...}; `read_value` parses each value.
  template <class ReadValue>
  void members(const ReadValue& read_value) {
    std::set<std::string> names;
    expect('{');
    if (take('}')) return;
    do {
      const std::string name = string();
      if (!names.insert(name).second) fail(concat("its header lists ", shown(name), " twice"));
      expect(':');
      read_value(name);
    } while (take(','));
    expect('}');
  }

  // [1, 2, ...]
  std::vector<int64_t> numbers() {
    std::vector<int64_t> all;
    expect('[');
    if (take(']')) return all;
    do {
      skip_space();
      int64_t number = -1;
      const char* const stop = text_.data() + text_.size();
      const auto [end, error] = std::from_chars(text_.data(), stop, number);
      if (error != std::errc() || number < 0) {
        fail("its header has an invalid number; expected a non-negative integer");
      }
      text_.remove_prefix(static_cast<size_t>(end - text_.data()));
      all.push_back(number);
    } while (take(','));
    expect(']');
    return all;
  }

  // Escapes are not decoded: parameter names have none, and metadata is skipped.
  std::string string() {
    expect('"');
    size_t end = 0;
    while (end < text_.size() && text_[end] != '"') end += text_[end] == '\\' ? 2U : 1U;
    if (end >= text_.size()) fail("its header ends inside a string");
    std::string taken(text_.substr(0, end));
    if (std::any_of(taken.begin(), taken.end(),
                    [](char c) { return static_cast<unsigned char>(c) < ' '; })) {
      fail("its header has a control character in a string");
    }
    text_.remove_prefix(end + 1);
    return taken;
  }

  void skip_space() {
    text_.remove_prefix(std::min(text_.find_first_not_of(" \t\r\n"), text_.size()));
  }

  bool take(char wanted) {
    skip_space();
    if (text_.empty() || text_.front() != wanted) return false;
    text_.remove_prefix(1);
    return true;
  }

  void expect(char wanted) {
    if (take(wanted)) return;
    fail(concat("expected '", wanted, "' at byte ", length_ - text_.size(), " of its header"));
  }

  std::string_view text_;  // the part not parsed yet
  const size_t length_;
  const std::string& path_;
};

const Dtype& find_dtype(const Entry& entry, const std::string& path) {
  std::vector<std::string> names;
  for (const Dtype& dtype : kDtypes) {
    if (entry.dtype == dtype.name) return dtype;
    names.emplace_back(dtype.name);
  }
  throw WeightsError(concat("'", path, "': ", shown(entry.name), " has the unsupported dtype '",
                            shown(entry.dtype), "'; resrt reads ", join(names)));
}

// Returns the size of an array of that shape in bytes, or `most` + 1 if it is larger than `most`.
uint64_t bytes_of(const std::vector<int64_t>& shape, uint64_t item, uint64_t most) {
  uint64_t bytes = item;
  for (const int64_t side : shape) {
    if (side != 0 && bytes > most / static_cast<uint64_t>(side)) return most + 1;
    bytes *= static_cast<uint64_t>(side);
  }
  return bytes;
}

// Checks that the arrays follow one another without gaps or overlaps and fill the file.
void check_places(std::vector<Entry> entries, uint64_t total, const std::string& path,
                  const HeaderReader& header) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t place = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != place || entry.end < entry.begin || entry.end > total) {
      header.fail(concat(shown(entry.name), " is at bytes ", entry.begin, " to ", entry.end,
                         "; expected it to begin at ", place, " and end by ", total));
    }
    const uint64_t size = entry.end - entry.begin;
    if (bytes_of(entry.shape, find_dtype(entry, path).size, total) != size) {
      header.fail(concat(shown(entry.name), " of shape ", shape_text(entry.shape), " in ",
                         entry.dtype, " cannot have ", size, " bytes"));
    }
    place = entry.end;
  }
  if (place != total) {
    header.fail(concat("its arrays end at byte ", place, " of ", total));
  }
}

// float32 data is used in place if it is aligned, which holds for files of all known writers.
Array to_array(const Entry& entry, const Dtype& dtype, const std::shared_ptr<const char[]>& bytes) {
  const char* const source = bytes.get() + entry.begin;
  const bool is_aligned = std::bit_cast<uintptr_t>(source) % alignof(float) == 0;
  if (dtype.to_float == from_float32 && is_aligned) {
    return {entry.shape, {bytes, reinterpret_cast<const float*>(source)}};
  }
  auto [array, values] = make_array(entry.shape);
  for (size_t i = 0; i < array.size(); ++i) values[i] = dtype.to_float(source + i * dtype.size);
  return array;
}

}  // namespace

Weights read_safetensors(const std::string& path) {
  // Everything is checked before the arrays are read: a file of another format may be of any size.
  InputFile file(path);
  const std::string length_bytes = file.read(sizeof(uint64_t));
  const uint64_t left = file.left();
  std::string text = file.read(1);
  // No text file and no other format begins with a length and this brace.
  if (text != "{") {
    throw WeightsError(concat("'", path,
                              "' is not a safetensors file: its first bytes do not match the "
                              "format; create one with `resrt convert`"));
  }
  uint64_t length = 0;
  std::memcpy(&length, length_bytes.data(), sizeof length);
  if (length > std::min(left, kLongestHeader)) {
    throw WeightsError(concat("'", path, "' declares a header of ", length, " bytes, but has ",
                              left, " bytes left and resrt reads up to ", kLongestHeader,
                              ". Copy or download it again, or save only the network's weights"));
  }
  text.resize(std::min<uint64_t>(length, 1));
  text += file.read(length - text.size());
  HeaderReader header(text, path);
  const std::vector<Entry> entries = header.entries();
  check_places(entries, left - length, path, header);
  const auto content = std::make_shared<const std::string>(file.read(left - length));
  if (content->size() != left - length || file.has_changed()) {
    throw FileError(concat("cannot read '", path, "': it changed while it was read; wait until it ",
                           "is complete, and replace a file by renaming another to its name"));
  }
  const std::shared_ptr<const char[]> arrays(content, content->data());
  Weights weights;
  for (const Entry& entry : entries) {
    const Dtype& dtype = find_dtype(entry, path);
    if (dtype.to_float != nullptr) weights.emplace(entry.name, to_array(entry, dtype, arrays));
  }
  return weights;
}

}  // namespace resrt
