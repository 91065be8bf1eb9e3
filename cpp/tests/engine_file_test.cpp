#include "engine/engine_file.h"

#include <cstring>
#include <gtest/gtest.h>
#include <random>

#include "engine/crc32.h"
#include "resrt/error.h"
#include "support.h"

namespace resrt::test {
namespace {

constexpr size_t kHead = 8 + 4 + 8;  // magic, version, length of the metadata

uint64_t metadata_size(const std::string& bytes) {
  uint64_t size = 0;
  std::memcpy(&size, bytes.data() + kHead - sizeof size, sizeof size);
  return size;
}

// Returns the file with a valid checksum, so that its metadata is read.
std::string with_checksum(std::string bytes) {
  bytes.resize(bytes.size() - sizeof(uint32_t));
  const uint32_t checksum = crc32(bytes);
  return bytes.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
}

TEST(Crc32, OfTwoPartsIsThatOfTheWhole) {
  std::string bytes(1000, '\0');
  std::mt19937 random(0);
  for (char& byte : bytes) byte = static_cast<char>(random());
  const std::string_view whole = bytes;
  for (size_t first : {0UL, 1UL, 7UL, 500UL, 999UL, 1000UL}) {
    const std::string_view second = whole.substr(first);
    EXPECT_EQ(crc32_of_both(crc32(whole.substr(0, first)), crc32(second), second.size()),
              crc32(whole))
        << first;
  }
}

// Large plans are read in several parts.
TEST(LargeEngineFile, IsReadWholeAndCheckedEverywhere) {
  const TemporaryFile file("large.engine");
  std::string content((25U << 20U) + 3, '\0');
  std::mt19937 random(0);
  for (char& byte : content) byte = static_cast<char>(random());
  write_engine_file(file.path(), tiny_engine().info(), {Bytes(content)});
  EXPECT_TRUE(read_engine_file(file.path()).plan.bytes.view() == content);
  const std::string valid = file.read();
  const size_t head = valid.size() - content.size() - sizeof(uint32_t);
  for (const size_t at : {size_t{0}, content.size() / 3, content.size() / 2, content.size() - 1}) {
    std::string damaged = valid;
    damaged[head + at] ^= 1;
    file.write(damaged);
    EXPECT_THROW(read_engine_file(file.path()), EngineFileError) << at;
  }
}

class EngineFile : public testing::Test {
 protected:
  void SetUp() override {
    tiny_engine().save(file_.path());
    valid_ = file_.read();
  }

  void expect_rejected(const std::string& bytes) const {
    file_.write(bytes);
    EXPECT_THROW(Engine::load(file_.path()), Error);
  }

  std::string valid_;
  TemporaryFile file_{"corrupted.engine"};
};

TEST_F(EngineFile, IsRejectedIfTruncated) {
  for (size_t length = 0; length < valid_.size(); length += 1 + length / 16) {
    expect_rejected(valid_.substr(0, length));
  }
}

TEST_F(EngineFile, IsRejectedIfModified) {
  std::mt19937 random(2);
  for (int i = 0; i < 500; ++i) {
    std::string corrupted = valid_;
    corrupted[random() % corrupted.size()] ^= static_cast<char>(1U << random() % 8);
    expect_rejected(corrupted);
  }
}

TEST_F(EngineFile, IsRejectedBeforeALargeFileIsRead) {
  const std::string magic_only = valid_.substr(0, 8);
  const std::string up_to_version = valid_.substr(0, 12);
  const uint64_t long_metadata = uint64_t{7} << 30U;
  const std::string announces_metadata =
      up_to_version + std::string(reinterpret_cast<const char*>(&long_metadata), 8);
  for (const std::string& begin :
       {std::string(), magic_only, up_to_version, announces_metadata, valid_}) {
    file_.write(begin);
    file_.enlarge();
    const uint64_t before = bytes_read();
    EXPECT_THROW(Engine::load(file_.path()), EngineFileError);
    EXPECT_THROW(inspect(file_.path()), EngineFileError);
    EXPECT_LT(bytes_read() - before, 3 * valid_.size()) << begin.size();
  }
}

TEST_F(EngineFile, IsNotWrittenWithMoreMetadataThanIsRead) {
  const Graph graph = tiny_graph();
  const std::vector<std::string> labels(5, std::string(14U << 20U, 'x'));
  const Engine engine = Engine::build(graph, random_weights(graph), {.notes = {.labels = labels}});
  EXPECT_THROW(engine.save(file_.path()), InputError);
  EXPECT_TRUE(file_.read() == valid_);
}

// Lengths and counts are checked before they are trusted, even with a valid checksum. Some other
// bytes of the metadata, such as a letter of the network's name, can change without an error.
TEST_F(EngineFile, SurvivesCorruptedMetadata) {
  std::mt19937 random(3);
  const uint64_t size = metadata_size(valid_);
  for (int i = 0; i < 2000; ++i) {
    std::string corrupted = valid_;
    const size_t place = 12 + random() % (sizeof(uint64_t) + size);
    corrupted[place] = static_cast<char>(random());
    file_.write(with_checksum(corrupted));
    try {
      inspect(file_.path());
    } catch (const Error&) {
      // Rejected with an error, as expected.
    }
  }
}

}  // namespace
}  // namespace resrt::test
