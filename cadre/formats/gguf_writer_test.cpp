#include "cadre/formats/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "cadre/base/random.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kF32 = 0, kQ8_0 = 8;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

GgufKeys keys_of_every_type() {
  GgufKeys keys;
  keys.add("u8", uint8_t{255});
  keys.add("i8", int8_t{-5});
  keys.add("u16", uint16_t{65535});
  keys.add("i16", int16_t{-300});
  keys.add("u32", uint32_t{4000000000});
  keys.add("i32", int32_t{-70000});
  keys.add("u64", uint64_t{1} << 62);
  keys.add("i64", int64_t{-5000000000});
  keys.add("f32", 0.1f);
  keys.add("f64", 0.1);
  keys.add("yes", true);
  keys.add("text", "word");
  keys.add("texts", std::vector<std::string>{"one", "", "three"});
  const std::vector<int32_t> types = {1, -3, 6};
  const std::vector<float> scores = {0.5f, -1.5f};
  keys.add("integers", std::span<const int32_t>(types));
  keys.add("numbers", std::span<const float>(scores));
  return keys;
}

TEST(GgufWriter, WhatIsWrittenIsRead) {
  const TestFolder folder;
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const std::string blocks(68, 'q');
  GgufWriter writer(
      folder / "a.gguf", keys_of_every_type(),
      {{"floats", {3, 2}, kF32}, {"empty", {0, 4}, kF32}, {"quants", {32, 2}, kQ8_0}});
  writer.write("floats", std::as_bytes(std::span(values)));
  writer.write("quants", bytes_of(blocks).first(10));
  writer.write("quants", bytes_of(blocks).subspan(10));
  writer.commit();

  const GgufReader gguf(folder / "a.gguf");
  EXPECT_EQ(gguf.version(), 3u);
  EXPECT_EQ(gguf.integer("u8"), 255);
  EXPECT_EQ(gguf.integer("i8"), -5);
  EXPECT_EQ(gguf.integer("u16"), 65535);
  EXPECT_EQ(gguf.integer("i16"), -300);
  EXPECT_EQ(gguf.integer("u32"), 4000000000);
  EXPECT_EQ(gguf.integer("i32"), -70000);
  EXPECT_EQ(gguf.integer("u64"), int64_t{1} << 62);
  EXPECT_EQ(gguf.integer("i64"), -5000000000);
  EXPECT_EQ(gguf.number("f32"), 0.1f);
  EXPECT_EQ(gguf.number("f64"), 0.1);
  EXPECT_TRUE(gguf.flag("yes"));
  EXPECT_EQ(gguf.text("text"), "word");
  EXPECT_THAT(gguf.strings("texts"), ElementsAre("one", "", "three"));
  EXPECT_THAT(gguf.integers("integers"), ElementsAre(1, -3, 6));
  EXPECT_THAT(gguf.numbers("numbers"), ElementsAre(0.5f, -1.5f));
  EXPECT_THROW(gguf.numbers("integers"), FormatError);
  EXPECT_EQ(gguf.raw_metadata().at("u16").type, GgufType::kU16);

  ASSERT_EQ(gguf.tensors().size(), 3u);
  EXPECT_EQ(std::memcmp(gguf.find_tensor("floats")->bytes.data(), values.data(), 24), 0);
  EXPECT_TRUE(gguf.find_tensor("empty")->bytes.empty());
  EXPECT_EQ(std::memcmp(gguf.find_tensor("quants")->bytes.data(), blocks.data(), 68), 0);
}

TEST(GgufWriter, CopiesAFileByteByByte) {
  const TestFolder folder;
  GgufKeys keys = keys_of_every_type();
  keys.add("general.alignment", uint32_t{256});
  {
    GgufWriter writer(folder / "a.gguf", keys, {{"t", {32}, kQ8_0}});
    writer.write("t", bytes_of(std::string(34, 'x')));
    writer.commit();
  }
  const GgufReader from(folder / "a.gguf");
  GgufKeys copied;  // the reader knows keys in alphabetical order: copy in the writer's
  for (const char* key : {"u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "yes",
                          "text", "texts", "integers", "numbers", "general.alignment"}) {
    copied.add(key, from.raw_metadata().at(key));
  }
  GgufWriter writer(folder / "b.gguf", copied, {{"t", {32}, kQ8_0}});
  writer.write("t", from.find_tensor("t")->bytes);
  writer.commit();
  EXPECT_EQ(read_file(folder / "a.gguf"), read_file(folder / "b.gguf"));
}

TEST(GgufWriter, RandomFilesComeBack) {
  const TestFolder folder;
  Random random(7);
  for (int round = 0; round < 50; ++round) {
    GgufKeys keys;
    keys.add("general.alignment", uint32_t{1} << random.below(12));
    std::vector<GgufTensorSpec> specs;
    std::vector<std::string> data;
    for (uint64_t i = 0, n = random.below(6); i < n; ++i) {
      specs.push_back(
          {fmt::format("t{}", i),
           {static_cast<int64_t>(random.below(9)), static_cast<int64_t>(random.below(5))},
           kF32});
      std::string& bytes = data.emplace_back(tensor_bytes(specs.back()), '\0');
      for (char& byte : bytes) byte = static_cast<char>(random.below(256));
    }
    GgufWriter writer(folder / "r.gguf", keys, specs);
    for (size_t i = 0; i < specs.size(); ++i)
      if (!data[i].empty()) writer.write(specs[i].name, bytes_of(data[i]));
    writer.commit();
    const GgufReader gguf(folder / "r.gguf");
    ASSERT_EQ(gguf.tensors().size(), specs.size());
    for (size_t i = 0; i < specs.size(); ++i) {
      const GgufTensor& tensor = gguf.tensors()[i];
      EXPECT_EQ(tensor.dims, specs[i].dims);
      const std::string back(reinterpret_cast<const char*>(tensor.bytes.data()),
                             tensor.bytes.size());
      EXPECT_EQ(back, data[i]);
    }
  }
}

TEST(GgufWriter, NothingAppearsBeforeCommit) {
  const TestFolder folder;
  {
    GgufWriter writer(folder / "a.gguf", {}, {{"t", {2}, kF32}});
    writer.write("t", bytes_of("1234"));
    EXPECT_THROW(writer.write("u", bytes_of("5678")), Error);
    EXPECT_THROW(writer.write("t", bytes_of("56789")), Error);
    EXPECT_THROW(writer.commit(), Error) << "4 bytes are missing";
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

template <typename Body>
std::string complaint(Body body) {
  try {
    body();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no complaint";
}

TEST(GgufWriter, RefusesWhatNoFileCanHold) {
  const TestFolder folder;
  const auto file = [&](std::vector<GgufTensorSpec> tensors) {
    return complaint([&] { GgufWriter(folder / "a.gguf", {}, std::move(tensors)); });
  };
  constexpr int64_t kHuge = int64_t{1} << 40;
  EXPECT_THAT(file({{"t", {2}, kF32}, {"t", {2}, kF32}}), HasSubstr("taken"));
  EXPECT_THAT(file({{"", {2}, kF32}}), HasSubstr("no name"));
  EXPECT_THAT(file({{"t", {2}, 999}}), HasSubstr("unknown type"));
  EXPECT_THAT(file({{"t", {}, kF32}}), HasSubstr("dimensions"));
  EXPECT_THAT(file({{"t", {1, 1, 1, 1, 1}, kF32}}), HasSubstr("dimensions"));
  EXPECT_THAT(file({{"t", {31}, kQ8_0}}), HasSubstr("no multiple of 32"));
  EXPECT_THAT(file({{"t", {kHuge, kHuge}, kF32}}), HasSubstr("overflow"));
  EXPECT_THAT(file({{"t", {-1}, kF32}}), HasSubstr("overflow"));
  GgufKeys keys;
  keys.add("general.alignment", uint32_t{24});
  EXPECT_THAT(complaint([&] { keys.add("general.alignment", 1); }), HasSubstr("twice"));
  EXPECT_THAT(complaint([&] { keys.add("", 1); }), HasSubstr("1 to"));
  EXPECT_THAT(complaint([&] { GgufWriter(folder / "a.gguf", keys, {}); }),
              HasSubstr("power of two"));
}

}  // namespace
}  // namespace cadre
