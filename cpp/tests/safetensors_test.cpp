#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>

#include "resrt/error.h"
#include "resrt/models.h"
#include "support.h"
#include "text.h"

namespace resrt::test {
namespace {

template <class... Numbers>
std::string bytes_of(Numbers... numbers) {
  std::string bytes;
  (bytes.append(reinterpret_cast<const char*>(&numbers), sizeof numbers), ...);
  return bytes;
}

std::string safetensors(const std::string& header, const std::string& arrays = "") {
  return bytes_of(uint64_t{header.size()}) + header + arrays;
}

class Safetensors : public testing::Test {
 protected:
  Weights read(const std::string& content) const {
    file_.write(content);
    return read_safetensors(file_.path());
  }

  enum class Length { exact, large };

  // Returns the error message for such a file.
  std::string error_for(const std::string& content, Length length = Length::exact) const {
    file_.write(content);
    file_.age();
    if (length == Length::large) file_.enlarge();
    try {
      read_safetensors(file_.path());
    } catch (const WeightsError& error) {
      return error.what();
    }
    return "no error";
  }

  void expect_error(const std::string& content, const std::string& why) const {
    const std::string text = error_for(content);
    EXPECT_NE(text.find(why), std::string::npos) << "'" << why << "' is not in: " << text;
    EXPECT_NE(text.find(file_.path()), std::string::npos) << text;
  }

 private:
  TemporaryFile file_{"weights.safetensors"};
};

TEST_F(Safetensors, ReadsAllFloatTypes) {
  const Weights weights = read(
      safetensors(R"({"__metadata__":{"format":"pt","labels":"[\"a\", \"b\\\\\"]"},)"
                  R"("single":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}, )"
                  R"("half" : {"shape" : [ 2, 2 ],"data_offsets": [8, 16],"dtype":"F16"},)"
                  R"("brain":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]},)"
                  R"("double":{"dtype":"F64","shape":[],"data_offsets":[18,26]},)"
                  R"("bn.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[26,34]},)"
                  R"("none":{"dtype":"F32","shape":[3,0],"data_offsets":[34,34]}}  )",
                  bytes_of(1.5F, -2.25F, uint16_t{0x3c00}, uint16_t{0xc100}, uint16_t{0x0001},
                           uint16_t{0x7bff}, uint16_t{0xc0a0}, 0.1, int64_t{7})));
  ASSERT_EQ(weights.size(), 5U);  // all except the counter
  const auto value = [&](const char* name, size_t i) { return weights.at(name).data.get()[i]; };
  EXPECT_EQ(value("single", 0), 1.5F);
  EXPECT_EQ(value("single", 1), -2.25F);
  EXPECT_EQ(weights.at("half").shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(value("half", 0), 1.0F);
  EXPECT_EQ(value("half", 1), -2.5F);
  EXPECT_EQ(value("half", 2), 0x1p-24F);
  EXPECT_EQ(value("half", 3), 65504.0F);
  EXPECT_EQ(value("brain", 0), -5.0F);
  EXPECT_EQ(value("double", 0), 0.1F);
  EXPECT_EQ(weights.at("double").size(), 1U);
  EXPECT_EQ(weights.at("none").size(), 0U);
}

TEST_F(Safetensors, ReadsNonFiniteFloat16) {
  const Weights weights =
      read(safetensors(R"({"x":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})",
                       bytes_of(uint16_t{0xfc00}, uint16_t{0x7e00})));
  EXPECT_EQ(weights.at("x").data.get()[0], -INFINITY);
  EXPECT_TRUE(std::isnan(weights.at("x").data.get()[1]));
}

TEST_F(Safetensors, ReadsUnalignedArrays) {
  for (size_t offset = 0; offset < 4; ++offset) {
    const std::string header = concat(
        R"({"before":{"dtype":"U8","shape":[)", offset, R"(],"data_offsets":[0,)", offset,
        R"(]},"x":{"dtype":"F32","shape":[2],"data_offsets":[)", offset, ",", offset + 8, "]}}");
    for (size_t spaces = 0; spaces < 4; ++spaces) {
      const std::string arrays = std::string(offset, 'x') + bytes_of(0.5F, 3.0F);
      const Weights weights = read(safetensors(header + std::string(spaces, ' '), arrays));
      EXPECT_EQ(weights.at("x").data.get()[1], 3.0F);
    }
  }
}

TEST_F(Safetensors, AreRejectedBeforeALargeFileIsRead) {
  const std::string entry = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  for (const std::string& begin :
       {std::string(), bytes_of(uint64_t{7} << 30U) + "{", safetensors("{"), safetensors(entry)}) {
    const uint64_t before = bytes_read();
    EXPECT_NE(error_for(begin, Length::large), "no error");
    EXPECT_LT(bytes_read() - before, 10000U);
  }
}

TEST_F(Safetensors, RejectsInvalidFiles) {
  EXPECT_THROW(read_safetensors("/nowhere/x.safetensors"), FileError);
  for (const char* content : {"", "PK\3\4", "12345678"}) {
    expect_error(content, "not a safetensors file");
  }
  expect_error(bytes_of(uint64_t{100}) + "{}", "header of 100 bytes, but has 2 bytes left");
  expect_error(bytes_of(~uint64_t{0}) + "{}", "but has 2 bytes left");
  expect_error(bytes_of(uint64_t{0}) + "{}", "expected '{'");
  const std::string long_header = "{" + std::string(3U << 20U, ' ') + "}";
  expect_error(safetensors(long_header), "reads up to 2097152");
}

// Headers of one array "x" with something wrong, and 8 bytes of data.
TEST_F(Safetensors, RejectsInvalidHeaders) {
  constexpr std::array<std::pair<const char*, const char*>, 22> kCases = {{
      {R"({)", "expected '\"'"},
      {R"({"x)", "ends inside a string"},
      {R"({"x\)", "ends inside a string"},
      {"{\"x\n\":", "control character"},
      {R"({"x":[]})", "expected '{'"},
      {R"({"x":{}})", "is missing its dtype, shape or data_offsets"},
      {R"({"x":{"shape":[2],"data_offsets":[0,8]}})", "is missing its dtype"},
      {R"({"x":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})", "dtype 'F8_E4M3'"},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "must have 2 values, got 1"},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})",
       "unknown key in the header: more"},
      {R"({"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "invalid number"},
      {R"({"x":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", "expected ']'"},
      {R"({"x":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}})",
       "invalid number"},
      {R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "cannot have 8 bytes"},
      {R"({"x":{"dtype":"F32","shape":[4611686018427387904,4,2],"data_offsets":[0,8]}})",
       "cannot have 8 bytes"},
      {R"({"x":{"dtype":"F32","shape":[0,4611686018427387904],"data_offsets":[0,8]}})",
       "cannot have 8 bytes"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "end at byte 4 of 8"},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "x is at bytes 4 to 8"},
      {R"({"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", "x is at bytes 0 to 16"},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "x is at bytes 8 to 0"},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}})",
       "extra text after the closing brace"},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "lists x twice"},
  }};
  for (const auto& [header, why] : kCases) expect_error(safetensors(header, "12345678"), why);
}

TEST_F(Safetensors, NamesAreShownWithoutControlCharacters) {
  const std::string name = "\x7f\xc2\x9b[2J\xe2\x80\xae";
  const std::string text = error_for(safetensors("{\"" + name + "\":{\"" + name + "\":\"\"}}"));
  EXPECT_NE(text.find("\\x7f\\xc2\\x9b[2J\\xe2\\x80\\xae has an unknown key"), std::string::npos)
      << text;
  EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c < 0x7f; }));
  const std::string dtype = R"({"x":{"dtype":")" + name + R"(","shape":[8],"data_offsets":[0,8]}})";
  EXPECT_NE(error_for(safetensors(dtype, "12345678")).find("dtype '\\x7f"), std::string::npos);
}

TEST(CheckWeights, NamesAreShownWithoutControlCharacters) {
  const Graph graph = build_graph("resnet18");
  Weights weights = random_weights(graph);
  weights["\x1b[2J" + std::string(300, 'x')] = weights["fc.bias"];
  try {
    check_weights(graph, weights);
    FAIL();
  } catch (const WeightsError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("\n    \\x1b[2Jxxx"), std::string::npos) << text;
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_EQ(text.find(std::string(250, 'x')), std::string::npos);
  }
}

// A corrupted file is either read or rejected with an error. The sanitizers find anything else.
TEST_F(Safetensors, SurvivesCorruptedFiles) {
  const std::string valid = safetensors(
      R"({"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("y":{"dtype":"F16","shape":[3],"data_offsets":[8,14]}})",
      "12345678123456");
  std::mt19937 random(1);
  const auto below = [&](size_t bound) { return random() % bound; };
  constexpr std::string_view kLikely = "{}[]\",:0123456789\\ -";
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string corrupted = valid;
    for (size_t changes = 1 + below(3); changes > 0 && !corrupted.empty(); --changes) {
      const size_t place = below(corrupted.size());
      const char byte =
          below(4) == 0 ? static_cast<char>(random()) : kLikely[below(kLikely.size())];
      switch (below(4)) {
        case 0: corrupted.resize(place); break;
        case 1: corrupted.insert(place, 1 + below(8), byte); break;
        case 2: corrupted.erase(place, 1 + below(8)); break;
        default: corrupted[place] = byte;
      }
    }
    if (error_for(corrupted) == "no error") ++accepted;
  }
  EXPECT_GT(accepted, 100);  // if only the arrays or names changed
  EXPECT_LT(accepted, 10000);
}

}  // namespace
}  // namespace resrt::test
