#include "cadre/formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Writes the fields of a GGUF file one after the other.
struct Bytes {
  std::string text;

  template <typename T>
  Bytes& put(T value) {
    text.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  Bytes& put(const char* string) {
    put<uint64_t>(std::strlen(string));
    text += string;
    return *this;
  }
  Bytes& key(const char* name, GgufType type) { return put(name).put(type); }
  Bytes& array(const char* name, GgufType type, uint64_t size) {
    return key(name, GgufType::kArray).put(type).put(size);
  }
  Bytes& align(size_t to = 32) {
    text.resize((text.size() + to - 1) / to * to);
    return *this;
  }
};

Bytes header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  return Bytes{"GGUF"}.put(version).put(tensors).put(keys);
}

Bytes complete_file() {
  Bytes file = header(2, 9);
  file.key("small", GgufType::kI8).put<int8_t>(-5);
  file.key("large", GgufType::kU64).put<uint64_t>(UINT64_MAX);
  file.key("real", GgufType::kF32).put(0.5f);
  file.key("yes", GgufType::kBool).put<uint8_t>(1);
  file.key("name", GgufType::kString).put("test");
  file.array("words", GgufType::kString, 2).put("one").put("");
  file.array("numbers", GgufType::kU16, 3).put<uint16_t>(1).put<uint16_t>(2).put<uint16_t>(65535);
  file.array("nested", GgufType::kArray, 1).put(GgufType::kI32).put<uint64_t>(1).put<int32_t>(-1);
  file.key("general.alignment", GgufType::kU32).put<uint32_t>(64);
  file.put("a").put<uint32_t>(2).put<uint64_t>(3).put<uint64_t>(2).put<uint32_t>(0).put<uint64_t>(
      0);
  file.put("b").put<uint32_t>(1).put<uint64_t>(32).put<uint32_t>(8).put<uint64_t>(64);
  file.align(64);
  for (int i = 0; i < 6; ++i) file.put(static_cast<float>(i));
  file.align(64);
  file.text += std::string(34, 'q');
  return file;
}

GgufReader read(const Bytes& file) {
  return GgufReader(std::as_bytes(std::span(file.text)), "test.gguf");
}

std::string complaint(const Bytes& file) {
  try {
    read(file);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no complaint";
}

TEST(Gguf, ReadsValuesOfEveryKind) {
  const Bytes file = complete_file();
  const GgufReader gguf = read(file);
  EXPECT_EQ(gguf.version(), 3u);
  EXPECT_EQ(gguf.integer("small"), -5);
  EXPECT_EQ(gguf.number("small"), -5.0);
  EXPECT_EQ(gguf.number("real"), 0.5);
  EXPECT_TRUE(gguf.flag("yes"));
  EXPECT_EQ(gguf.text("name"), "test");
  EXPECT_THAT(gguf.strings("words"), ElementsAre("one", ""));
  EXPECT_THAT(gguf.integers("numbers"), ElementsAre(1, 2, 65535));
  const auto& nested = std::get<GgufArray>(gguf.metadata().at("nested"));
  ASSERT_EQ(nested.arrays.size(), 1u);
  EXPECT_EQ(nested.arrays[0].numbers.size(), 4u);

  EXPECT_THROW(gguf.integer("missing"), FormatError);
  EXPECT_THROW(gguf.integer("large"), FormatError) << "no int64";
  EXPECT_THROW(gguf.integer("name"), FormatError);
  EXPECT_THROW(gguf.text("small"), FormatError);
  EXPECT_THROW(gguf.flag("name"), FormatError);
  EXPECT_THROW(gguf.strings("numbers"), FormatError);
  EXPECT_THROW(gguf.integers("words"), FormatError);
}

TEST(Gguf, FindsTensors) {
  const Bytes file = complete_file();
  const GgufReader gguf = read(file);
  ASSERT_EQ(gguf.tensors().size(), 2u);
  const GgufTensor* a = gguf.find_tensor("a");
  ASSERT_NE(a, nullptr);
  EXPECT_THAT(a->dims, ElementsAre(3, 2));
  ASSERT_EQ(a->bytes.size(), 24u);
  float last;
  std::memcpy(&last, a->bytes.data() + 20, 4);
  EXPECT_EQ(last, 5.0f);
  const GgufTensor* b = gguf.find_tensor("b");
  ASSERT_NE(b, nullptr);
  EXPECT_STREQ(b->type.name, "Q8_0");
  EXPECT_EQ(b->bytes.size(), 34u);
  EXPECT_EQ(b->bytes[0], std::byte{'q'});
  EXPECT_EQ(gguf.find_tensor("c"), nullptr);
}

TEST(Gguf, ReadsAFile) {
  const TestFolder folder;
  write_file(folder / "model.gguf", complete_file().text);
  EXPECT_EQ(GgufReader(folder / "model.gguf").integer("small"), -5);
  EXPECT_THROW(GgufReader(folder / "missing.gguf"), IoError);
}

TEST(Gguf, TruncatedAnywhereIsAnError) {
  const Bytes file = complete_file();
  for (size_t size = 0; size < file.text.size(); ++size)
    EXPECT_THROW(read({file.text.substr(0, size)}), FormatError) << size;
}

TEST(Gguf, ComplaintsSayWhatIsWrong) {
  const auto tensor = [](std::function<void(Bytes&)> fields) {
    Bytes file = header(1, 0);
    file.put("t");
    fields(file);
    return file.align().text.append(64, '\0'), file;
  };
  constexpr uint64_t kHuge = uint64_t{1} << 62;
  Bytes deep = header(0, 1).array("k", GgufType::kArray, 1);
  for (int i = 0; i < 20; ++i) deep.put(GgufType::kArray).put<uint64_t>(1);

  EXPECT_THAT(complaint({"NOPE"}), HasSubstr("not a GGUF file"));
  EXPECT_THAT(complaint({""}), HasSubstr("the file ends at 0"));
  EXPECT_THAT(complaint(header(0, 0, 1)), HasSubstr("version 1 is not supported"));
  EXPECT_THAT(complaint(header(kHuge, 0)), HasSubstr("number of tensors"));
  EXPECT_THAT(complaint(header(0, UINT64_MAX)), HasSubstr("number of keys"));
  EXPECT_THAT(complaint(header(0, 1).put<uint64_t>(UINT64_MAX).align(64)),
              HasSubstr("a key needs"));
  EXPECT_THAT(complaint(header(0, 1).put("k").put<uint32_t>(13).align()),
              HasSubstr("\"k\" has the unknown type 13"));
  EXPECT_THAT(complaint(header(0, 1).array("k", GgufType::kU8, kHuge)), HasSubstr("only 0 bytes"));
  EXPECT_THAT(complaint(header(0, 1).array("k", GgufType::kString, kHuge)), HasSubstr("key \"k\""));
  EXPECT_THAT(complaint(deep), HasSubstr("nests arrays deeper"));
  EXPECT_THAT(complaint(header(0, 2)
                            .key("k", GgufType::kU8)
                            .put<uint8_t>(1)
                            .key("k", GgufType::kU8)
                            .put<uint8_t>(1)),
              HasSubstr("is there twice"));
  EXPECT_THAT(complaint(header(0, 1).key("general.alignment", GgufType::kU32).put<uint32_t>(0)),
              HasSubstr("power of two"));
  EXPECT_THAT(complaint(tensor([](Bytes& f) { f.put<uint32_t>(5); })), HasSubstr("5 dimensions"));
  EXPECT_THAT(complaint(tensor([](Bytes& f) {
                f.put<uint32_t>(2).put(kHuge).put(kHuge).put<uint32_t>(0).put<uint64_t>(0);
              })),
              HasSubstr("overflow"));
  EXPECT_THAT(complaint(tensor([](Bytes& f) {
                f.put<uint32_t>(1).put<uint64_t>(33).put<uint32_t>(8).put<uint64_t>(0);
              })),
              HasSubstr("no multiple of 32"));
  EXPECT_THAT(complaint(tensor([](Bytes& f) {
                f.put<uint32_t>(1).put<uint64_t>(1).put<uint32_t>(999).put<uint64_t>(0);
              })),
              HasSubstr("unknown type 999"));
  EXPECT_THAT(complaint(tensor([](Bytes& f) {
                f.put<uint32_t>(1).put<uint64_t>(1).put<uint32_t>(0).put<uint64_t>(8);
              })),
              HasSubstr("no multiple of 32"));
  EXPECT_THAT(complaint(tensor([](Bytes& f) {
                f.put<uint32_t>(1).put<uint64_t>(1).put<uint32_t>(0).put<uint64_t>(kHuge);
              })),
              HasSubstr("runs past the end"));
}

}  // namespace
}  // namespace cadre
