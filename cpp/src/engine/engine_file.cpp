#include "engine/engine_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <future>
#include <locale>
#include <map>
#include <sstream>
#include <string_view>
#include <utility>

#include "bytes.h"
#include "cpus.h"
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
// Enough for the names of a million classes.
constexpr uint64_t kLongestMetadata = 64U << 20U;

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

// Checks that a part of an engine file is complete, before memory is allocated for it.
void require(uint64_t size, const char* what, uint64_t left, const std::string& path) {
  if (size <= left) return;
  throw EngineFileError(concat("the engine file '", path, "' is cut short: its ", what, " has ",
                               size, " bytes, but only ", left,
                               " are left; copy or build it again"));
}

template <class Number>
Number to_number(std::string_view bytes) {
  Number number{};
  std::memcpy(&number, bytes.data(), sizeof number);
  return number;
}

// Reads the parts of an engine file one after another, each only if it is complete.
class FileReader {
 public:
  explicit FileReader(const std::string& path) : path_(path), file_(path) {}

  uint64_t left() const { return file_.left(); }
  uint32_t checksum() const { return checksum_; }  // of what has been read

  std::string take(uint64_t size, const char* what) {
    require(size, what, file_.left(), path_);
    std::string bytes = file_.read(size);
    require(size, what, bytes.size(), path_);  // the file may have become shorter
    checksum_ = crc32(bytes, checksum_);
    return bytes;
  }

  // Reads and checks parts of the plan at the same time, which would otherwise take a large part of
  // the time to load an engine.
  Bytes take_plan(uint64_t size) {
    require(size, "plan", file_.left(), path_);
    constexpr uint64_t smallest_part = 4U << 20U;
    const auto cpus = static_cast<uint64_t>(usable_cpus());
    const uint64_t part = size / std::clamp<uint64_t>(size / smallest_part, 1, cpus) + 1;
    Bytes plan(size);
    std::vector<std::pair<uint64_t, std::future<uint32_t>>> parts;
    for (uint64_t begin = 0; begin < size; begin += part) {
      const uint64_t length = std::min(part, size - begin);
      const auto policy = part < size ? std::launch::async : std::launch::deferred;
      parts.emplace_back(length,
                         std::async(policy, [this, at = plan.data() + begin, length, begin] {
                           return read_part(at, length, begin);
                         }));
    }
    for (auto& [length, checksum] : parts) {
      checksum_ = crc32_of_both(checksum_, checksum.get(), length);
    }
    file_.skip(size);
    return plan;
  }

  template <class Number>
  Number number(const char* what) {
    return to_number<Number>(take(sizeof(Number), what));
  }

 private:
  // Returns the checksum of a part of the plan. It is read in pieces, so that the checksum is
  // computed from what is still in the processor's cache.
  uint32_t read_part(char* bytes, uint64_t size, uint64_t begin) const {
    constexpr uint64_t most = 256U << 10U;
    uint32_t checksum = 0;
    for (uint64_t done = 0; done < size; done += most) {
      const uint64_t piece = std::min(most, size - done);
      const uint64_t found = file_.peek(bytes + done, piece, begin + done);
      require(begin + done + piece, "plan", begin + done + found, path_);  // it may be shorter now
      checksum = crc32({bytes + done, piece}, checksum);
    }
    return checksum;
  }

  const std::string& path_;
  InputFile file_;
  uint32_t checksum_ = 0;
};

// Reads values from the front of the metadata, and checks that each of them is complete.
class MetadataReader {
 public:
  MetadataReader(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  uint32_t number() { return to_number<uint32_t>(take(sizeof(uint32_t))); }
  std::string_view text() { return take(number()); }

 private:
  std::string_view take(uint32_t size) {
    require(size, "metadata", bytes_.size(), path_);
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }

  std::string_view bytes_;
  const std::string& path_;
};

Metadata decode(std::string_view bytes, const std::string& path) {
  MetadataReader reader(bytes, path);
  Metadata metadata;
  const uint32_t count = reader.number();
  for (uint32_t i = 0; i < count; ++i) {
    const std::string key(reader.text());
    metadata[key] = reader.text();
  }
  return metadata;
}

template <class Float>
std::string number_text(Float number) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, number).ptr;
  return std::string(text, end);
}

std::string floats_text(const std::vector<float>& numbers) {
  std::vector<std::string> texts;
  for (const float number : numbers) texts.push_back(number_text(number));
  return join(texts, " ");
}

std::string resize_text(const Preprocessing& steps) {
  return steps.resize_height == 0 ? std::to_string(steps.resize)
                                  : concat(steps.resize_height, "x", steps.resize_width);
}

// Splits a text into parts that end with `terminator`, which the last part may lack.
std::vector<std::string> split(const std::string& text, char terminator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, terminator);) parts.push_back(part);
  return parts;
}

// An output per line: its name, and its shape in parentheses, "features (2048)".
std::string outputs_text(const std::vector<EngineOutput>& outputs) {
  std::string text;
  for (const EngineOutput& output : outputs) {
    text += concat(output.name, " (", join(output.shape, " "), ")\n");
  }
  return text;
}

// A kind of convolution per line: its name, kernel and priorities, the layers, and each time, with
// tabs between them.
std::string kernels_text(const std::vector<KernelChoice>& kernels) {
  std::string text;
  for (const KernelChoice& choice : kernels) {
    text += concat(choice.kind, '\t', choice.kernel, '\t', choice.priorities, '\t',
                   join(choice.layers, " "));
    for (const KernelTime& time : choice.times) {
      text +=
          concat('\t', time.batch, ' ', number_text(time.ms), ' ', number_text(time.default_ms));
    }
    text += '\n';
  }
  return text;
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
          {"outputs", outputs_text(info.outputs)},
          {"max_batch", std::to_string(info.max_batch)},
          {"version_compatible", info.version_compatible ? "yes" : "no"},
          {"kernels", kernels_text(info.kernels)},
          {"kernels_processor", info.kernels_processor},
          {"layers", info.layers},
          {"weights", info.notes.weights},
          {"weights_sha256", info.notes.weights_sha256},
          {"labels", labels},
          {"pipeline", to_string(info.notes.preprocessing.pipeline)},
          {"resize", resize_text(info.notes.preprocessing)},
          {"interpolation", info.notes.preprocessing.interpolation},
          {"mean", floats_text(info.notes.preprocessing.mean)},
          {"std", floats_text(info.notes.preprocessing.std)},
          {"preprocessing_source", info.notes.preprocessing_source},
          {"build_key", info.notes.build_key}};
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

  // Files of earlier versions of resrt lack the entry.
  std::string text_or_empty(const char* key) const {
    const auto found = metadata_.find(key);
    return found == metadata_.end() ? std::string() : found->second;
  }

  int positive(const char* key, int most) const { return positive(key, text(key), most); }

  // Returns the short side, and the height and width if the text has those.
  std::array<int, 3> resize(const char* key) const {
    const std::vector<std::string> sides = split(text(key), 'x');
    if (sides.size() != 2) return {positive(key, kLargestSide), 0, 0};
    const int height = positive(key, sides[0], kLargestSide);
    const int width = positive(key, sides[1], kLargestSide);
    return {std::min(height, width), height, width};
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

  std::vector<EngineOutput> outputs(const char* key) const {
    std::vector<EngineOutput> outputs;
    for (const std::string& line : split(text_or_empty(key), '\n')) {
      const size_t open = line.rfind(" (");
      if (open == std::string::npos || !line.ends_with(')')) {
        fail(concat("has '", key, "' = '", line, "', which is not an output and its shape"));
      }
      EngineOutput output{line.substr(0, open), {}};
      for (const std::string& part : split(line.substr(open + 2, line.size() - open - 3), ' ')) {
        output.shape.push_back(parse<int>(part, key));
        if (output.shape.back() < 1 || output.shape.back() > kMostChannels) {
          fail(concat("has an output '", line, "', whose shape is out of range"));
        }
      }
      outputs.push_back(std::move(output));
    }
    return outputs;
  }

  std::vector<KernelChoice> kernels(const char* key) const {
    std::vector<KernelChoice> kernels;
    for (const std::string& line : split(text_or_empty(key), '\n')) {
      const std::vector<std::string> parts = split(line, '\t');
      constexpr size_t fixed = 4;
      if (parts.size() < fixed) fail(concat("has '", key, "' with an incomplete line"));
      KernelChoice choice{parts[0], split(parts[3], ' '), parts[1], parts[2], {}};
      for (size_t i = fixed; i < parts.size(); ++i) {
        const std::vector<std::string> numbers = split(parts[i], ' ');
        if (numbers.size() != 3) fail(concat("has '", key, "' with an incomplete time"));
        choice.times.push_back({parse<int>(numbers[0], key), parse<double>(numbers[1], key),
                                parse<double>(numbers[2], key)});
      }
      kernels.push_back(std::move(choice));
    }
    return kernels;
  }

  std::vector<float> floats(const char* key) const {
    std::vector<float> numbers;
    for (const std::string& part : split(text(key), ' ')) {
      // Not all standard libraries have from_chars for floats.
      std::istringstream stream(part);
      stream.imbue(std::locale::classic());
      float number = 0;
      if (!(stream >> number) || stream.peek() != EOF) fail_number(key, part);
      numbers.push_back(number);
    }
    return numbers;
  }

 private:
  int positive(const char* key, const std::string& text, int most) const {
    const auto value = parse<int>(text, key);
    if (value < 1 || value > most) {
      fail(concat("has '", key, "' = ", value, ", which must be from 1 to ", most));
    }
    return value;
  }

  template <class Number>
  Number parse(const std::string& text, const char* key) const {
    Number number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) fail_number(key, text);
    return number;
  }

  [[noreturn]] void fail_number(const char* key, const std::string& text) const {
    fail(concat("has '", key, "' = '", text, "', which is not a number"));
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
  info.outputs = fields.outputs("outputs");
  if (info.outputs.empty()) info.outputs = {{kLogits, {info.classes}}};  // of an earlier version
  info.max_batch = fields.positive("max_batch", kLargestBatch);
  info.version_compatible = fields.text("version_compatible") == "yes";
  info.kernels = fields.kernels("kernels");
  info.kernels_processor = fields.text_or_empty("kernels_processor");
  info.layers = fields.text("layers");
  info.notes.weights = fields.text("weights");
  info.notes.weights_sha256 = fields.text("weights_sha256");
  info.notes.labels = split(fields.text("labels"), '\n');
  try {
    const auto [resize, resize_height, resize_width] = fields.resize("resize");
    info.notes.preprocessing = {resize,
                                fields.text("interpolation"),
                                fields.floats("mean"),
                                fields.floats("std"),
                                parse_pipeline(fields.text("pipeline")),
                                info.input.height,
                                info.input.width,
                                resize_height,
                                resize_width};
    info.notes.preprocessing_source = fields.text_or_empty("preprocessing_source");
    info.notes.build_key = fields.text_or_empty("build_key");
    check_notes(info.notes, info.input, info.classes);
  } catch (const InputError& error) {
    throw EngineFileError(concat("the metadata of the engine file '", path,
                                 "' is inconsistent: ", error.what(), "; build it again"));
  }
  return info;
}

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

void write_engine_file(const std::string& path, const EngineInfo& info, const Plan& plan,
                       const std::function<bool()>& stop) {
  const std::string metadata = encode(to_metadata(info));
  if (metadata.size() > kLongestMetadata) {
    throw InputError(concat("the labels and other metadata of the engine have ", metadata.size(),
                            " bytes, but an engine file has room for ", kLongestMetadata,
                            "; use shorter labels"));
  }
  std::string head(kMagic);
  append(head, kFormatVersion);
  append(head, uint64_t{metadata.size()});
  head += metadata;
  append(head, uint64_t{plan.bytes.size()});
  std::string tail;
  append(tail, crc32(plan.bytes.view(), crc32(head)));
  write_file_atomically(path, {head, plan.bytes.view(), tail}, stop);
}

EngineFile read_engine_file(const std::string& path) {
  // The lengths are checked before what they announce is read: a file of another format, or one
  // that is damaged, may be of any size.
  FileReader reader(path);
  check_magic(reader.take(std::min<uint64_t>(kMagic.size(), reader.left()), "head"), path);
  const auto version = reader.number<uint32_t>("head");
  if (version != kFormatVersion) {
    throw EngineFileError(concat("the engine file '", path, "' has format version ", version,
                                 "; this resrt reads version ", kFormatVersion,
                                 "; build the engine again"));
  }
  const auto metadata_size = reader.number<uint64_t>("metadata");
  require(metadata_size, "metadata", reader.left(), path);
  if (metadata_size > kLongestMetadata) {
    throw EngineFileError(concat("the engine file '", path, "' is damaged: its metadata has ",
                                 metadata_size, " bytes, but at most ", kLongestMetadata,
                                 " are valid; copy or build it again"));
  }
  const std::string metadata = reader.take(metadata_size, "metadata");
  const auto plan_size = reader.number<uint64_t>("plan");
  require(plan_size, "plan", reader.left(), path);
  const uint64_t rest = reader.left() - plan_size;
  require(sizeof(uint32_t), "checksum", rest, path);
  if (rest > sizeof(uint32_t)) {
    throw EngineFileError(concat("the engine file '", path, "' has ", rest - sizeof(uint32_t),
                                 " extra bytes at its end; copy or build it again"));
  }
  EngineFile file;
  file.plan.bytes = reader.take_plan(plan_size);
  const uint32_t actual = reader.checksum();
  if (const auto checksum = reader.number<uint32_t>("checksum"); actual != checksum) {
    throw EngineFileError(
        concat("the engine file '", path, "' was altered or damaged: its checksum is ", std::hex,
               checksum, ", but that of its content is ", actual, "; copy or build it again"));
  }
  file.info = to_info(decode(metadata, path), path);
  return file;
}

}  // namespace resrt
