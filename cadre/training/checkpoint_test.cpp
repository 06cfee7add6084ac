#include "cadre/training/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "cadre/formats/file.h"
#include "cadre/formats/safetensors.h"
#include "cadre/training/test_kit.h"

namespace cadre {
namespace {

using testing::HasSubstr;

const torch::Tensor& some_ids() {
  static const torch::Tensor ids = torch::arange(24).view({2, 12});
  return ids;
}

class CheckpointTest : public testing::Test {
 protected:
  std::filesystem::path save(const ModelConfig& config, uint64_t seed = 1) {
    LanguageModel model(config, seed);
    save_checkpoint(folder_ / "model", model, tokenizer_);
    return folder_ / "model";
  }
  /// Saves with one tensor of the checkpoint replaced.
  std::filesystem::path save_with(const std::string& name, const torch::Tensor& value) {
    const std::filesystem::path path = save(tiny_deepseek());
    LanguageModel model(tiny_deepseek(), 1);
    NamedTensors weights = model.named_weights();
    for (auto& [key, tensor] : weights) {
      if (key == name) tensor = value;
    }
    std::erase_if(weights, [](const auto& item) { return !item.second.defined(); });
    write_tensors(path / "model.safetensors", weights);
    return path;
  }
  std::string load_error(const std::filesystem::path& path) {
    return message_of<UsageError>([&] { load_checkpoint(path); });
  }
  void edit_config(const std::filesystem::path& path, const std::string& key,
                   const nlohmann::json& value) {
    auto json = nlohmann::json::parse(read_file(path / "config.json"));
    json[key] = value;
    write_file(path / "config.json", json.dump());
  }

  TestFolder folder_;
  Tokenizer tokenizer_ = byte_tokenizer();
};

TEST_F(CheckpointTest, LoadsWhatWasSaved) {
  for (const ModelConfig& config : {tiny_llama(), tiny_olmoe(), tiny_deepseek()}) {
    LanguageModel model(config, 3);
    save_checkpoint(folder_ / "model", model, tokenizer_);
    const auto loaded = load_checkpoint(folder_ / "model");
    EXPECT_TRUE(loaded->logits(some_ids()).equal(model.logits(some_ids())));
    EXPECT_EQ(to_json(loaded->config()), to_json(config));
    EXPECT_EQ(load_tokenizer(folder_ / "model", config).to_json(), tokenizer_.to_json());
  }
}

TEST_F(CheckpointTest, WritesStandardTensorsInOneFile) {
  const SafetensorsReader reader(save(tiny_olmoe()) / "model.safetensors");
  EXPECT_EQ(reader.tensors().size(), expected_tensors(tiny_olmoe()).size());
  for (const ExpectedTensor& tensor : expected_tensors(tiny_olmoe())) {
    EXPECT_EQ(reader.tensor(tensor.name).shape, tensor.shape);
    EXPECT_EQ(reader.tensor(tensor.name).dtype, DType::kF32);
  }
}

TEST_F(CheckpointTest, ReadsHalfPrecision) {
  const std::filesystem::path path = save(tiny_llama());
  LanguageModel model(tiny_llama(), 1);
  for (const auto& [dtype, type] :
       {std::pair(DType::kBF16, torch::kBFloat16), std::pair(DType::kF16, torch::kFloat16)}) {
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : model.named_weights()) {
      specs.push_back({name, dtype, tensor.sizes().vec()});
    }
    SafetensorsWriter writer(path / "model.safetensors", specs);
    for (const auto& [name, tensor] : model.named_weights()) {
      writer.write(name, bytes_of(tensor.to(type).contiguous()));
    }
    writer.commit();
    const auto loaded = load_checkpoint(path);
    const torch::Tensor expected = model.decoder()->layers[1]->self_attn->q_proj->weight.to(type);
    EXPECT_TRUE(loaded->decoder()->layers[1]->self_attn->q_proj->weight.equal(
        expected.to(torch::kFloat32)));
  }
}

TEST_F(CheckpointTest, ReplacesAnOlderCheckpoint) {
  save(tiny_llama(), 1);
  const auto path = save(tiny_deepseek(), 2);
  EXPECT_EQ(load_checkpoint(path)->config().architecture, Architecture::kDeepseek);
}

TEST_F(CheckpointTest, MissingFilesAreNamed) {
  EXPECT_THROW(load_checkpoint(folder_ / "none"), IoError);
  const auto path = save(tiny_llama());
  std::filesystem::remove(path / "model.safetensors");
  EXPECT_THAT(load_error(path), HasSubstr(path.string()));
  EXPECT_THROW(load_tokenizer(folder_ / "none", tiny_llama()), IoError);
}

TEST_F(CheckpointTest, BadTensorsAreNamed) {
  const std::string name = "model.layers.1.mlp.experts.5.up_proj.weight";
  EXPECT_THAT(load_error(save_with(name, torch::Tensor())),
              HasSubstr("tensor " + name + " is missing"));
  EXPECT_THAT(load_error(save_with(name, torch::zeros({16, 31}))),
              HasSubstr("tensor " + name + " has shape [16, 31], the model needs [16, 32]"));
  for (const float poison :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    EXPECT_THAT(load_error(save_with(name, torch::full({16, 32}, poison))),
                HasSubstr("tensor " + name + " holds values that are not finite"));
  }
}

TEST_F(CheckpointTest, WrongTypeIsNamed) {
  const auto path = save(tiny_llama());
  std::vector<TensorSpec> specs;
  for (const ExpectedTensor& tensor : expected_tensors(tiny_llama())) {
    specs.push_back({tensor.name, DType::kI32, tensor.shape});
  }
  SafetensorsWriter writer(path / "model.safetensors", specs);
  for (const TensorSpec& spec : specs) {
    const torch::Tensor zeros = torch::zeros(spec.shape, torch::kInt32);
    writer.write(spec.name, bytes_of(zeros));
  }
  writer.commit();
  EXPECT_THAT(load_error(path), HasSubstr("is I32, must be F32, BF16 or F16"));
}

TEST_F(CheckpointTest, TruncatedAnywhereIsAnErrorAndNoCrash) {
  const auto path = save(tiny_llama());
  const std::string whole = read_file(path / "model.safetensors");
  for (const size_t size :
       {size_t{0}, size_t{7}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
    write_file(path / "model.safetensors", whole.substr(0, size));
    EXPECT_THAT(load_error(path), HasSubstr("model.safetensors")) << size;
  }
}

TEST_F(CheckpointTest, HostileConfigsAreRefusedBeforeMemoryIsTaken) {
  const auto path = save(tiny_deepseek());
  edit_config(path, "vocab_size", 1 << 24);
  EXPECT_THAT(load_error(path), HasSubstr("model.embed_tokens.weight has shape"));
  edit_config(path, "vocab_size", kByteVocabulary);
  edit_config(path, "n_routed_experts", 60000);
  EXPECT_NE(load_error(path), "");
  edit_config(path, "model_type", "mamba");
  EXPECT_THAT(load_error(path), HasSubstr("\"mamba\""));
  write_file(path / "config.json", "{");
  EXPECT_THAT(load_error(path), HasSubstr("config.json"));
}

TEST_F(CheckpointTest, ATokenizerMustFit) {
  ModelConfig small = tiny_llama();
  small.vocabulary = 200;
  EXPECT_EQ(message_of<FormatError>([&] { load_tokenizer(save(tiny_llama()), small); }),
            (folder_ / "model").string() +
                ": the tokenizer has 257 tokens, the model's vocabulary only 200");
  ModelConfig padded = tiny_llama();
  padded.vocabulary = 300;
  EXPECT_EQ(load_tokenizer(save(padded), padded).vocabulary_size(), kByteVocabulary);
}

/// Lets files of this process grow to `bytes` only, as a full disk would, for its lifetime.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_;
};

TEST_F(CheckpointTest, AFullDiskLeavesTheOldCheckpointIntact) {
  const auto path = save(tiny_deepseek(), 1);
  const torch::Tensor before = load_checkpoint(path)->logits(some_ids());
  LanguageModel model(tiny_deepseek(), 2);
  for (const rlim_t bytes : {0, 10, 1000, 100000}) {
    const std::string message = message_of<IoError>([&] {
      const FullDisk full(bytes);
      save_checkpoint(path, model, tokenizer_);
    });
    EXPECT_THAT(message, HasSubstr("cannot write")) << bytes;
    EXPECT_TRUE(load_checkpoint(path)->logits(some_ids()).equal(before));
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ / "."), {}), 1)
      << "nothing half written is left behind";
}

}  // namespace
}  // namespace cadre
