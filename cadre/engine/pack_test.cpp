#include "cadre/engine/pack.h"

#include <gtest/gtest.h>

#include <cstring>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/engine/checksum.h"
#include "cadre/engine/file_reader.h"
#include "cadre/engine/session.h"
#include "cadre/engine/streaming_provider.h"
#include "cadre/engine/test_models.h"
#include "cadre/formats/file.h"
#include "cadre/formats/gguf_writer.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

/// A tiny model and its pack.
struct Packed {
  explicit Packed(const std::string& name = "olmoe",
                  kernels::BlockType type = kernels::BlockType::kQ8_0) {
    TinyModel model = tiny_model(name);
    write_gguf(model, folder / "model.gguf", type);
    write_pack(folder / "model.gguf", folder / "model.cpk");
  }
  TestFolder folder;
};

TEST(Pack, RecordsAreTheExpertsPanels) {
  for (const std::string name : {"olmoe", "qwen3moe", "deepseek"}) {
    const Packed packed(name);
    const auto source = open_source(packed.folder / "model.gguf");
    const ExpertFiles rows = find_expert_files(*source);
    const ExpertFiles files = read_pack(packed.folder / "model.cpk");
    const MappedFile map(packed.folder / "model.cpk");
    ASSERT_EQ(files.grid.size(), rows.grid.size());
    EXPECT_EQ(files.count(), rows.count());
    EXPECT_EQ(files.slot_bytes(), rows.slot_bytes());
    for (int64_t id = 0; id < files.grid.size(); ++id) {
      const LayerLayout& layer = rows.layers[rows.grid.layer_of(id)];
      if (layer.bytes == 0) continue;
      std::vector<std::byte> panels(layer.bytes);
      for (size_t m = 0; m < kExpertMatrices; ++m)
        pack_matrix(layer.matrices[m], rows.parts[id][m].memory,
                    panels.data() + layer.matrices[m].offset);
      const FilePart& first = files.parts[id][0];
      EXPECT_EQ(first.offset % kReadAlignment, 0);
      EXPECT_EQ(first.offset + first.bytes, files.parts[id][1].offset);
      EXPECT_EQ(std::memcmp(map.bytes().data() + first.offset, panels.data(), panels.size()), 0);
      EXPECT_EQ(files.checksums[id], crc32c(panels));
    }
  }
}

TEST(Pack, KeepsEverythingElse) {
  const Packed packed;
  const GgufReader original(packed.folder / "model.gguf"), pack(packed.folder / "model.cpk");
  EXPECT_TRUE(is_pack(pack));
  EXPECT_FALSE(is_pack(original));
  for (const auto& [key, value] : original.raw_metadata()) {
    if (key == "general.alignment") continue;
    ASSERT_TRUE(pack.contains(key)) << key;
    const auto& kept = pack.raw_metadata().at(key);
    EXPECT_TRUE(
        std::equal(value.bytes.begin(), value.bytes.end(), kept.bytes.begin(), kept.bytes.end()))
        << key;
  }
  for (const GgufTensor& tensor : original.tensors()) {
    const GgufTensor* kept = pack.find_tensor(tensor.name);
    ASSERT_EQ(kept == nullptr, tensor.name.ends_with("_exps.weight")) << tensor.name;
    if (kept == nullptr) continue;
    EXPECT_TRUE(std::equal(tensor.bytes.begin(), tensor.bytes.end(), kept->bytes.begin(),
                           kept->bytes.end()));
  }
}

std::vector<float> logits_of(const std::filesystem::path& path, const ModelOptions& options) {
  const auto model = Model::open(path, options);
  Session session(model);
  const auto tokens = some_tokens(40, 7);
  std::vector<float> logits = session.feed(std::span(tokens).first(30));
  for (const TokenId token : std::span(tokens).subspan(30)) {
    const auto more = session.feed({&token, 1});
    logits.insert(logits.end(), more.begin(), more.end());
  }
  return logits;
}

TEST(Pack, RunsWithTheBitsOfItsOriginal) {
  for (const std::string& name : tiny_model_names()) {
    if (tiny_model(name).keys.count("expert_count") == 0) continue;
    const Packed packed(name);
    const auto expected = logits_of(packed.folder / "model.gguf", {.threads = 1});
    const auto pack = packed.folder / "model.cpk";
    EXPECT_EQ(logits_of(pack, {.threads = 1}), expected) << name;
    const int64_t least = least_streaming_bytes(read_pack(pack));
    EXPECT_EQ(logits_of(pack, {.expert_memory = least, .threads = 1}), expected) << name;
  }
}

TEST(Pack, EveryWayOfReadingGivesTheSameBits) {
  const Packed packed("olmoe", kernels::BlockType::kF32);
  const auto expected = logits_of(packed.folder / "model.gguf", {.threads = 1});
  const auto pack = packed.folder / "model.cpk";
  const int64_t least = least_streaming_bytes(read_pack(pack));
  for (const auto storage : {ExpertStorage::kDirect, ExpertStorage::kPread, ExpertStorage::kMmap})
    EXPECT_EQ(logits_of(pack, {.expert_memory = least, .threads = 1, .storage = storage}),
              expected);
}

/// A pack whose experts were damaged on disk: the checksum names the expert.
TEST(Pack, DamagedRecordsAreRefusedWhenRead) {
  const Packed packed;
  const auto pack = packed.folder / "model.cpk";
  std::string bytes = read_file(pack);
  bytes[static_cast<size_t>(read_pack(pack).parts[1][0].offset) + 5] ^= 1;
  write_file(pack, bytes);
  EXPECT_THROW(Model::open(pack, {.threads = 1}), IoError);
}

TEST(Pack, RecordsMustBeThoseOfTheModel) {
  const Packed packed;
  const auto pack = packed.folder / "model.cpk";
  std::string bytes = read_file(pack);
  const std::string key = "olmoe.expert_feed_forward_length";
  const size_t at = bytes.find(key);
  ASSERT_NE(at, std::string::npos);
  bytes[at + key.size() + 4] += 32;  // behind the type
  write_file(pack, bytes);
  EXPECT_THROW(Model::open(pack, {.threads = 1}), FormatError);
}

TEST(Pack, TheSameModelGivesTheSameFile) {
  const Packed packed;
  write_pack(packed.folder / "model.gguf", packed.folder / "again.cpk");
  EXPECT_EQ(read_file(packed.folder / "model.cpk"), read_file(packed.folder / "again.cpk"));
}

TEST(Pack, ProgressEndsAtTheTotal) {
  const Packed packed;
  PackProgress last;
  write_pack(packed.folder / "model.gguf", packed.folder / "again.cpk",
             [&](const PackProgress& progress) {
               EXPECT_GE(progress.done, last.done);
               last = progress;
             });
  EXPECT_GT(last.done, 0);
  EXPECT_LE(last.done, last.total);
}

TEST(Pack, WhatCannotBePackedIsRefusedAndLeavesNothing) {
  const Packed packed;
  EXPECT_THROW(write_pack(packed.folder / "model.cpk", packed.folder / "x.cpk"), UsageError);
  EXPECT_THROW(write_pack(packed.folder / "absent.gguf", packed.folder / "x.cpk"), IoError);
  TinyModel dense = tiny_model("llama");
  write_gguf(dense, packed.folder / "dense.gguf");
  EXPECT_THROW(write_pack(packed.folder / "dense.gguf", packed.folder / "x.cpk"), UsageError);
  EXPECT_THROW(read_pack(packed.folder / "model.gguf"), FormatError);
  EXPECT_FALSE(std::filesystem::exists(packed.folder / "x.cpk"));
}

/// Any damage is an error or leaves ranges that lie inside the file.
TEST(Pack, CorruptFilesNeverPointOutside) {
  const Packed packed;
  const std::string good = read_file(packed.folder / "model.cpk");
  Random random(9);
  for (int round = 0; round < 3000; ++round) {
    std::string bad = good;
    if (round % 4 == 0) bad.resize(random.below(bad.size()));
    // Keys and tensor table stand at the front.
    for (uint64_t flips = random.below(4); flips > 0 && !bad.empty(); --flips)
      bad[random.below(std::min<size_t>(bad.size(), 12000))] = static_cast<char>(random.below(256));
    try {
      const ExpertFiles files = read_pack(std::as_bytes(std::span(bad)), "bad");
      for (const auto& parts : files.parts)
        for (const FilePart& part : parts) {
          ASSERT_GE(part.offset, 0);
          ASSERT_LE(part.offset + part.bytes, static_cast<int64_t>(bad.size()));
        }
      ASSERT_EQ(files.checksums.size(), files.parts.size());
    } catch (const FormatError&) {
    }
  }
}

}  // namespace
}  // namespace cadre::engine
