#include "engine/engine_file.h"

#include <charconv>
#include <cstring>
#include <map>
#include <sstream>
#include <string_view>

#include "engine/crc32.h"
#include "engine/notes.h"
#include "file_io.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

using Metadata = std::map<std::string, std::string>;

constexpr std::string_view kMagic("resrt\0\r\n", 8);
constexpr uint32_t kFormatVersion = 2;

template <class Number>
void append(std::string& bytes, Number number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void append_text(std::string& bytes, const std::string& text) {
  append(bytes, static_cast<uint32_t>(text.size()));
  bytes += text;
}

std::string encode(const Metadata& metadata) {
  std::string bytes;
  append(bytes, static_cast<uint32_t>(metadata.size()));
  for (const auto& [key, value] : metadata) {
    append_text(bytes, key);
    append_text(bytes, value);
  }
  return bytes;
}

// Reads values from the front of the bytes, and checks that each of them is complete.
class Reader {
 public:
  Reader(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  template <class Number>
  Number number(const char* what) {
    Number number{};
    std::memcpy(&number, take(sizeof number, what).data(), sizeof number);
    return number;
  }

  std::string_view take(uint64_t size, const char* what) {
    if (size > bytes_.size()) {
      throw EngineFileError(concat("the engine file '", path_, "' is cut short: its ", what,
                                   " has ", size, " bytes, but only ", bytes_.size(),
                                   " are left; copy or build it again"));
    }
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }

  size_t left() const { return bytes_.size(); }

 private:
  std::string_view bytes_;
  const std::string& path_;
};

Metadata decode(std::string_view bytes, const std::string& path) {
  Reader reader(bytes, path);
  Metadata metadata;
  const auto count = reader.number<uint32_t>("metadata");
  for (uint32_t i = 0; i < count; ++i) {
    const std::string key(reader.take(reader.number<uint32_t>("metadata"), "metadata"));
    metadata[key] = reader.take(reader.number<uint32_t>("metadata"), "metadata");
  }
  return metadata;
}

std::string number_text(float number) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, number).ptr;
  return std::string(text, end);
}

std::string floats_text(const std::vector<float>& numbers) {
  std::vector<std::string> texts;
  for (const float number : numbers) texts.push_back(number_text(number));
  return join(texts, " ");
}

// Splits a text into parts that end with `terminator`, which the last part may lack.
std::vector<std::string> split(const std::string& text, char terminator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, terminator);) parts.push_back(part);
  return parts;
}

Metadata to_metadata(const EngineInfo& info) {
  std::string labels;
  for (const std::string& label : info.notes.labels) labels += label + '\n';
  return {{"model", info.model},
          {"backend", info.backend},
          {"backend_version", info.backend_version},
          {"precision", to_string(info.precision)},
          {"channels", std::to_string(info.input.channels)},
          {"height", std::to_string(info.input.height)},
          {"width", std::to_string(info.input.width)},
          {"classes", std::to_string(info.classes)},
          {"max_batch", std::to_string(info.max_batch)},
          {"version_compatible", info.version_compatible ? "yes" : "no"},
          {"layers", info.layers},
          {"weights", info.notes.weights},
          {"weights_sha256", info.notes.weights_sha256},
          {"labels", labels},
          {"pipeline", to_string(info.notes.preprocessing.pipeline)},
          {"resize", std::to_string(info.notes.preprocessing.resize)},
          {"interpolation", info.notes.preprocessing.interpolation},
          {"mean", floats_text(info.notes.preprocessing.mean)},
          {"std", floats_text(info.notes.preprocessing.std)}};
}

// Reads typed values from the metadata. The checksum has been verified before, so a failure means
// that the file was written incorrectly.
class Fields {
 public:
  Fields(const Metadata& metadata, const std::string& path) : metadata_(metadata), path_(path) {}

  std::string text(const char* key) const {
    const auto found = metadata_.find(key);
    if (found == metadata_.end()) fail(concat("lacks the entry '", key, "'"));
    return found->second;
  }

  int positive(const char* key, int most) const {
    const auto value = parse<int>(text(key), key);
    if (value < 1 || value > most) {
      fail(concat("has '", key, "' = ", value, ", which must be from 1 to ", most));
    }
    return value;
  }

  Precision precision(const char* key) const {
    try {
      const Precision value = parse_precision(text(key));
      if (value != Precision::automatic) return value;
    } catch (const PrecisionError&) {
      // Reported below as an error in the file.
    }
    fail(concat("has '", key, "' = '", text(key), "', which is not a valid precision"));
  }

  std::vector<float> floats(const char* key) const {
    std::vector<float> numbers;
    for (const std::string& part : split(text(key), ' '))
      numbers.push_back(parse<float>(part, key));
    return numbers;
  }

 private:
  template <class Number>
  Number parse(const std::string& text, const char* key) const {
    Number number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) {
      fail(concat("has '", key, "' = '", text, "', which is not a number"));
    }
    return number;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw EngineFileError(
        concat("the metadata of the engine file '", path_, "' ", what, "; build it again"));
  }

  const Metadata& metadata_;
  const std::string& path_;
};

EngineInfo to_info(const Metadata& metadata, const std::string& path) {
  const Fields fields(metadata, path);
  EngineInfo info;
  info.model = fields.text("model");
  info.backend = fields.text("backend");
  info.backend_version = fields.text("backend_version");
  info.precision = fields.precision("precision");
  info.input = {fields.positive("channels", kMostChannels), fields.positive("height", kLargestSide),
                fields.positive("width", kLargestSide)};
  info.classes = fields.positive("classes", kMostChannels);
  info.max_batch = fields.positive("max_batch", kLargestBatch);
  info.version_compatible = fields.text("version_compatible") == "yes";
  info.layers = fields.text("layers");
  info.notes.weights = fields.text("weights");
  info.notes.weights_sha256 = fields.text("weights_sha256");
  info.notes.labels = split(fields.text("labels"), '\n');
  try {
    info.notes.preprocessing = {fields.positive("resize", kLargestSide),
                                fields.text("interpolation"), fields.floats("mean"),
                                fields.floats("std"), parse_pipeline(fields.text("pipeline"))};
    check_notes(info.notes, info.input.channels, info.classes);
  } catch (const InputError& error) {
    throw EngineFileError(concat("the metadata of the engine file '", path,
                                 "' is inconsistent: ", error.what(), "; build it again"));
  }
  return info;
}

// Checks the first bytes, so that a large file of another format need not be read.
void check_magic(const std::string& head, const std::string& path) {
  if (head == kMagic) return;
  if (head.empty()) {
    throw EngineFileError(concat("'", path, "' is not a resrt engine file: it is empty"));
  }
  // A file that ends within the magic is a truncated engine file.
  if (kMagic.starts_with(head)) {
    throw EngineFileError(concat("the engine file '", path, "' is cut short: it has only ",
                                 head.size(), " bytes; copy or build it again"));
  }
  throw EngineFileError(
      concat("'", path,
             "' is not a resrt engine file: its first bytes differ; build one with "
             "resrt.build(...).save(...)"));
}

}  // namespace

void write_engine_file(const std::string& path, const EngineInfo& info, const Plan& plan) {
  const std::string metadata = encode(to_metadata(info));
  std::string head(kMagic);
  append(head, kFormatVersion);
  append(head, uint64_t{metadata.size()});
  head += metadata;
  append(head, uint64_t{plan.bytes.size()});
  std::string tail;
  append(tail, crc32(plan.bytes, crc32(head)));
  write_file_atomically(path, {head, plan.bytes, tail});
}

EngineFile read_engine_file(const std::string& path) {
  check_magic(read_file(path, kMagic.size()), path);
  std::string bytes = read_file(path);
  Reader reader(bytes, path);
  reader.take(kMagic.size(), "head");
  const auto version = reader.number<uint32_t>("head");
  if (version != kFormatVersion) {
    throw EngineFileError(concat("the engine file '", path, "' has format version ", version,
                                 "; this resrt reads version ", kFormatVersion,
                                 "; build the engine again"));
  }
  const std::string_view metadata = reader.take(reader.number<uint64_t>("metadata"), "metadata");
  const std::string_view plan = reader.take(reader.number<uint64_t>("plan"), "plan");
  const std::string_view covered(bytes.data(), bytes.size() - reader.left());
  const auto checksum = reader.number<uint32_t>("checksum");
  if (reader.left() != 0) {
    throw EngineFileError(concat("the engine file '", path, "' has ", reader.left(),
                                 " extra bytes at its end; copy or build it again"));
  }
  if (const uint32_t actual = crc32(covered); actual != checksum) {
    throw EngineFileError(
        concat("the engine file '", path, "' was altered or damaged: its checksum is ", std::hex,
               checksum, ", but that of its content is ", actual, "; copy or build it again"));
  }
  EngineFile file{to_info(decode(metadata, path), path), {}};
  // The plan is too large to copy, so it moves to the front of the buffer it was read into.
  const auto offset = static_cast<size_t>(plan.data() - bytes.data());
  const size_t size = plan.size();
  bytes.erase(0, offset);
  bytes.resize(size);
  file.plan.bytes = std::move(bytes);
  return file;
}

}  // namespace resrt
