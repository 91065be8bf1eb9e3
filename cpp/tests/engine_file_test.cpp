#include <cstring>
#include <gtest/gtest.h>

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

// The file with a checksum that holds, so that what it says is read.
std::string sealed(std::string bytes) {
  bytes.resize(bytes.size() - sizeof(uint32_t));
  const uint32_t checksum = crc32(bytes);
  return bytes.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
}

class EngineFile : public testing::Test {
 protected:
  void SetUp() override {
    tiny_engine().save(file_.path());
    sound_ = file_.read();
  }

  void expect_refused(const std::string& bytes) const {
    file_.write(bytes);
    EXPECT_THROW(Engine::load(file_.path()), Error);
  }

  std::string sound_;
  TemporaryFile file_{"altered.engine"};
};

TEST_F(EngineFile, IsRefusedWhereverItIsCut) {
  for (size_t length = 0; length < sound_.size(); length += 1 + length / 16) {
    expect_refused(sound_.substr(0, length));
  }
}

TEST_F(EngineFile, IsRefusedWhereverItIsAltered) {
  std::mt19937 random(2);
  for (int i = 0; i < 500; ++i) {
    std::string altered = sound_;
    altered[random() % altered.size()] ^= static_cast<char>(1U << random() % 8);
    expect_refused(altered);
  }
}

// Lengths and counts are checked before they are trusted, even under a checksum that holds. Of the
// metadata's other bytes some may change with no harm, such as a letter of the network's name.
TEST_F(EngineFile, SurvivesMetadataThatLies) {
  std::mt19937 random(3);
  const uint64_t size = metadata_size(sound_);
  for (int i = 0; i < 2000; ++i) {
    std::string altered = sound_;
    const size_t place = 12 + random() % (sizeof(uint64_t) + size);
    altered[place] = static_cast<char>(random());
    file_.write(sealed(altered));
    try {
      inspect(file_.path());
    } catch (const Error&) {
      // Refused in words.
    }
  }
}

}  // namespace
}  // namespace resrt::test
