#include "cadre/formats/safetensors.h"

#include <gmock/gmock.h>

#include <cstring>
#include <functional>
#include <random>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Bytes = std::vector<std::byte>;

const std::vector<DType> kAllTypes = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16,
                                      DType::kI64, DType::kI32, DType::kI16, DType::kI8,
                                      DType::kU8,  DType::kBool};

struct RandomTensors {
  std::vector<TensorSpec> specs;
  std::vector<Bytes> data;

  explicit RandomTensors(uint32_t seed) {
    std::mt19937 random(seed);
    const int count = static_cast<int>(random() % 12);
    for (int i = 0; i < count; ++i) {
      TensorSpec spec{.name = fmt::format("t{}{}", i, std::string(random() % 20, 'n')),
                      .dtype = kAllTypes[random() % kAllTypes.size()],
                      .shape = {}};
      if (i == 0) spec.name = "quote\" \\ newline\n tab\t é 漢";
      size_t bytes = static_cast<size_t>(size_of(spec.dtype));
      for (uint32_t rank = random() % 4; rank > 0; --rank) {
        spec.shape.push_back(random() % 6);
        bytes *= static_cast<size_t>(spec.shape.back());
      }
      Bytes content(bytes);
      for (std::byte& byte : content) byte = static_cast<std::byte>(random());
      specs.push_back(spec);
      data.push_back(content);
    }
  }

  template <typename Writer>
  void write_to(Writer&& writer) const {
    for (size_t i = 0; i < specs.size(); ++i) writer.write(specs[i].name, data[i]);
    writer.commit();
  }

  void expect_in(const SafetensorsReader& reader) const {
    ASSERT_EQ(reader.tensors().size(), specs.size());
    for (size_t i = 0; i < specs.size(); ++i) {
      ASSERT_TRUE(reader.contains(specs[i].name));
      const TensorView& view = reader.tensor(specs[i].name);
      EXPECT_EQ(view.dtype, specs[i].dtype);
      EXPECT_EQ(view.shape, specs[i].shape);
      EXPECT_TRUE(std::equal(view.bytes.begin(), view.bytes.end(), data[i].begin(), data[i].end()));
      EXPECT_EQ(view.elements() * size_of(view.dtype), static_cast<int64_t>(data[i].size()));
    }
  }
};

std::string file_of(const std::string& header, const std::string& data) {
  std::string file(8, '\0');
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> (8 * i));
  return file + header + data;
}

/// The complaint about a file of these bytes, or "valid".
std::string complaint(const TestFolder& folder, const std::string& bytes) {
  write_file(folder / "x.safetensors", bytes);
  try {
    const SafetensorsReader reader(folder / "x.safetensors");
    return "valid";
  } catch (const FormatError& error) {
    return error.what();
  }
}

TEST(DType, NamesGoThereAndBack) {
  for (const DType type : kAllTypes) EXPECT_EQ(dtype_named(name_of(type)), type);
  EXPECT_EQ(size_of(DType::kBF16), 2);
  EXPECT_THROW(dtype_named("F8_E4M3"), FormatError);
}

TEST(Safetensors, RandomSetsRoundTrip) {
  const TestFolder folder;
  for (uint32_t seed = 0; seed < 100; ++seed) {
    const RandomTensors tensors(seed);
    const std::map<std::string, std::string> metadata = {{"seed", std::to_string(seed)},
                                                         {"\n", "é"}};
    tensors.write_to(SafetensorsWriter(folder / "x.safetensors", tensors.specs, metadata));
    const SafetensorsReader reader(folder / "x.safetensors");
    tensors.expect_in(reader);
    EXPECT_EQ(reader.metadata(), metadata);
  }
}

TEST(Safetensors, WritesTheDocumentedBytes) {
  const TestFolder folder;
  const float values[2] = {1, 2};
  SafetensorsWriter writer(folder / "x.safetensors", {{"a", DType::kF32, {2}}});
  writer.write("a", std::as_bytes(std::span(values)));
  writer.commit();
  std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::string data(reinterpret_cast<const char*>(values), sizeof(values));
  EXPECT_EQ(read_file(folder / "x.safetensors"), file_of(header, data));
}

TEST(Safetensors, ViewsOutliveTheReaderThatWasCopied) {
  const TestFolder folder;
  const RandomTensors tensors(3);
  tensors.write_to(SafetensorsWriter(folder / "x.safetensors", tensors.specs));
  auto first = std::make_unique<SafetensorsReader>(folder / "x.safetensors");
  const SafetensorsReader second = *first;
  first.reset();
  tensors.expect_in(second);
}

TEST(SafetensorsWriter, HoldsTheCallerToWhatWasDeclared) {
  const TestFolder folder;
  const std::vector<TensorSpec> specs = {{"a", DType::kU8, {2}}, {"b", DType::kU8, {}}};
  const Bytes two(2), one(1);
  {
    SafetensorsWriter writer(folder / "x", specs);
    EXPECT_THROW(writer.write("b", one), Error);
    EXPECT_THROW(writer.write("a", one), Error);
    writer.write("a", two);
    EXPECT_THROW(writer.commit(), Error);
    writer.write("b", one);
    EXPECT_THROW(writer.write("b", one), Error);
  }
  EXPECT_FALSE(fs::exists(folder / "x"));
  const auto declare = [&](const std::vector<TensorSpec>& bad) {
    return [=, &folder] { SafetensorsWriter(folder / "x", bad); };
  };
  EXPECT_THROW(declare({{"a", DType::kU8, {}}, {"a", DType::kU8, {}}})(), UsageError);
  EXPECT_THROW(declare({{"a", DType::kU8, {-1}}})(), UsageError);
  EXPECT_THROW(declare({{"a", DType::kF32, {INT64_MAX / 2, 2}}})(), UsageError);
  EXPECT_THROW(declare({{"\xff", DType::kU8, {}}})(), UsageError);
  EXPECT_THROW(declare({{"__metadata__", DType::kU8, {}}})(), UsageError);
}

TEST(ShardedWriter, RoundTripsInOneFileAndInMany) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    const TestFolder folder;
    const RandomTensors tensors(seed);
    for (const int64_t shard_bytes : {1, 100, 1000, 1 << 30}) {
      tensors.write_to(ShardedWriter(folder.path(), tensors.specs, shard_bytes));
      const bool single = fs::exists(folder / "model.safetensors");
      EXPECT_NE(single, fs::exists(folder / "model.safetensors.index.json"));
      const SafetensorsReader reader(folder.path());
      tensors.expect_in(reader);
      EXPECT_EQ(reader.metadata().at("format"), "pt");
    }
  }
}

TEST(ShardedWriter, NamesShardsAndIndexAsHuggingFaceDoes) {
  const TestFolder folder;
  ShardedWriter writer(folder.path(), {{"a", DType::kU8, {3}}, {"b", DType::kU8, {2}}}, 3);
  writer.write("a", Bytes(3));
  EXPECT_THROW(writer.commit(), Error);
  writer.write("b", Bytes(2));
  writer.commit();
  const auto index = parse_json(read_file(folder / "model.safetensors.index.json"), "index");
  EXPECT_EQ(index["metadata"]["total_size"], 5);
  EXPECT_EQ(index["weight_map"]["a"], "model-00001-of-00002.safetensors");
  EXPECT_EQ(index["weight_map"]["b"], "model-00002-of-00002.safetensors");
  EXPECT_TRUE(SafetensorsReader(folder / "model.safetensors.index.json").contains("b"));
}

TEST(Sharded, RefusesAnIndexThatDoesNotFit) {
  const TestFolder folder;
  const auto shard = [&](const std::string& file, const std::string& tensor) {
    SafetensorsWriter writer(folder / file, {{tensor, DType::kU8, {}}});
    writer.write(tensor, Bytes(1));
    writer.commit();
  };
  shard("one", "a");
  shard("two", "b");
  const auto complaint_about = [&](const std::string& index) -> std::string {
    write_file(folder / "model.safetensors.index.json", index);
    try {
      const SafetensorsReader reader(folder.path());
      return "valid";
    } catch (const FormatError& error) {
      return error.what();
    }
  };
  EXPECT_EQ(complaint_about(R"({"weight_map": {"a": "one", "b": "two"}})"), "valid");
  EXPECT_THAT(complaint_about(R"({"weight_map": {"a": "none"}})"), HasSubstr("is not there"));
  EXPECT_THAT(complaint_about(R"({"weight_map": {"b": "one"}})"),
              HasSubstr("\"b\" is not in shard"));
  EXPECT_THAT(complaint_about(R"({"weight_map": {"a": "../one"}})"), HasSubstr("plain file name"));
  EXPECT_THAT(complaint_about(R"({"weight_map": {"a": ".."}})"), HasSubstr("plain file name"));
  EXPECT_THAT(complaint_about(R"({"weight_map": {"a": 1}})"), HasSubstr("no string"));
  EXPECT_THAT(complaint_about(R"({"weight_map": []})"), HasSubstr("not an object"));
  EXPECT_THAT(complaint_about(R"([])"), HasSubstr("not a JSON object"));
  EXPECT_THAT(complaint_about(R"({})"), HasSubstr("no field 'weight_map'"));
  shard("two", "a");
  EXPECT_THAT(complaint_about(R"({"weight_map": {"a": "one", "x": "two"}})"),
              HasSubstr("in another shard too"));
}

TEST(SafetensorsReader, MissingFilesAreNamed) {
  const TestFolder folder;
  EXPECT_THROW(SafetensorsReader(folder / "none"), IoError);
  EXPECT_THROW(SafetensorsReader(folder.path()), IoError);
  write_file(folder / "empty", "");
  EXPECT_THROW(SafetensorsReader(folder / "empty"), FormatError);
}

TEST(SafetensorsReader, SaysWhichFieldIsWrong) {
  const TestFolder folder;
  const auto about = [&](const std::string& header, size_t data = 4) {
    return complaint(folder, file_of(header, std::string(data, 'd')));
  };
  const std::string good = R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})";
  EXPECT_EQ(about(good), "valid");
  EXPECT_EQ(about(good + "  "), "valid");
  EXPECT_EQ(about("{}", 0), "valid");
  EXPECT_THAT(about(" " + good), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(about(good, 5), HasSubstr("tensors end at 4, the file holds 5"));
  EXPECT_THAT(about(good, 3), HasSubstr("tensor \"a\": data ends at 4"));
  EXPECT_THAT(about("{\"a\":"), HasSubstr("broken JSON"));
  EXPECT_THAT(about(R"({"a":1})"), HasSubstr("not a JSON object"));
  EXPECT_THAT(about(R"({"a":{"shape":[],"data_offsets":[0,4]}})"), HasSubstr("no field 'dtype'"));
  const auto field = [&](const std::string& dtype, const std::string& shape,
                         const std::string& offsets) {
    return about(fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape,
                             offsets));
  };
  EXPECT_THAT(field("7", "[]", "[0,4]"), HasSubstr("'dtype' is not a string"));
  EXPECT_THAT(field("\"F31\"", "[]", "[0,4]"), HasSubstr("dtype \"F31\" is unknown"));
  EXPECT_THAT(field("\"F32\"", "4", "[0,4]"), HasSubstr("'shape' is not an array"));
  EXPECT_THAT(field("\"F32\"", "[-1]", "[0,4]"),
              HasSubstr("'shape' has an element that is no size"));
  EXPECT_THAT(field("\"F32\"", "[1.0]", "[0,4]"), HasSubstr("no size"));
  EXPECT_THAT(field("\"F32\"", "[18446744073709551615]", "[0,4]"), HasSubstr("no size"));
  EXPECT_THAT(field("\"F32\"", "[4611686018427387904,4]", "[0,4]"), HasSubstr("too large"));
  EXPECT_THAT(field("\"F32\"", "[9223372036854775807]", "[0,4]"), HasSubstr("too large"));
  EXPECT_THAT(field("\"F32\"", "[2]", "[0,4]"), HasSubstr("need 8 bytes, 'data_offsets' gives 4"));
  EXPECT_THAT(field("\"F32\"", "[]", "[4,0]"), HasSubstr("not [begin, end]"));
  EXPECT_THAT(field("\"F32\"", "[]", "[0]"), HasSubstr("not [begin, end]"));
  EXPECT_THAT(field("\"F32\"", "[]", "[9223372036854775804,9223372036854775807]"),
              HasSubstr("data ends at"));
  EXPECT_THAT(about(R"({"__metadata__":{"a":1}})"), HasSubstr("no string"));
  EXPECT_THAT(about(R"({"__metadata__":1})"), HasSubstr("not an object"));
}

TEST(SafetensorsReader, RefusesDuplicatesOverlapsAndHoles) {
  const TestFolder folder;
  const auto two = [&](const std::string& first, const std::string& second,
                       const std::string& name) {
    const auto tensor = [](const std::string& range) {
      return R"({"dtype":"U8","shape":[2],"data_offsets":)" + range + "}";
    };
    return complaint(
        folder,
        file_of("{\"a\":" + tensor(first) + ",\"" + name + "\":" + tensor(second) + "}", "1234"));
  };
  EXPECT_EQ(two("[0,2]", "[2,4]", "b"), "valid");
  EXPECT_EQ(two("[2,4]", "[0,2]", "b"), "valid");
  EXPECT_THAT(two("[0,2]", "[2,4]", "a"), HasSubstr("\"a\" is there twice"));
  EXPECT_THAT(two("[0,2]", "[2,4]", "\\u0061"), HasSubstr("\"a\" is there twice"));
  EXPECT_THAT(two("[0,2]", "[1,3]", "b"), HasSubstr("overlaps or has a hole"));
  EXPECT_THAT(two("[0,2]", "[0,2]", "b"), HasSubstr("overlaps or has a hole"));
  EXPECT_THAT(two("[1,3]", "[2,4]", "b"), HasSubstr("overlaps or has a hole"));
}

TEST(SafetensorsReader, RefusesHostileLengthsAndNesting) {
  const TestFolder folder;
  for (const uint64_t length :
       {uint64_t{3}, uint64_t{100'000'001}, uint64_t{1} << 63, UINT64_MAX}) {
    std::string file(8, '\0');
    std::memcpy(file.data(), &length, 8);
    EXPECT_THAT(complaint(folder, file + "{}"), HasSubstr("header length"));
  }
  std::string deep = "{\"a\":";
  deep.append(1000000, '[');
  EXPECT_THAT(complaint(folder, file_of(deep, "")), HasSubstr("nested deeper"));
}

/// A well-formed file to damage.
std::string sample_file(const TestFolder& folder) {
  const RandomTensors tensors(5);
  tensors.write_to(SafetensorsWriter(folder / "sample", tensors.specs, {{"format", "pt"}}));
  return read_file(folder / "sample");
}

TEST(SafetensorsReader, EveryTruncationIsAnError) {
  const TestFolder folder;
  const std::string good = sample_file(folder);
  ASSERT_EQ(complaint(folder, good), "valid");
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(complaint(folder, good.substr(0, size)), "valid") << "cut to " << size;
  }
  EXPECT_NE(complaint(folder, good + "x"), "valid");
}

TEST(SafetensorsReader, FlippedBitsGiveAnErrorOrAValidFile) {
  const TestFolder folder;
  const std::string good = sample_file(folder);
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::string bad = good;
    for (uint32_t flips = 1 + random() % 3; flips > 0; --flips) {
      bad[random() % bad.size()] ^= static_cast<char>(1 << (random() % 8));
    }
    write_file(folder / "bad", bad);
    try {
      const SafetensorsReader reader(folder / "bad");
      for (const auto& [name, view] : reader.tensors()) {
        EXPECT_EQ(static_cast<int64_t>(view.bytes.size()), view.elements() * size_of(view.dtype));
      }
    } catch (const FormatError&) {
    }
  }
}

}  // namespace
}  // namespace cadre
