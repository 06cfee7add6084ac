#include "cadre/training/checkpoint.h"

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/safetensors.h"

namespace cadre {

void write_checkpoint_files(const std::filesystem::path& folder, LanguageModel& model,
                            const Tokenizer& tokenizer) {
  write_file(folder / "config.json", to_json(model.config()).dump(2) + "\n");
  tokenizer.save(folder / "tokenizer.json");
  const NamedTensors weights = model.named_weights();
  ShardedWriter writer(folder, specs_of(weights));
  for (const auto& [name, tensor] : weights) writer.write(name, bytes_of(tensor));
  writer.commit();
}

void save_checkpoint(const std::filesystem::path& folder, LanguageModel& model,
                     const Tokenizer& tokenizer) {
  AtomicFolder atomic(folder);
  write_checkpoint_files(atomic.staging(), model, tokenizer);
  atomic.commit();
}

std::unique_ptr<LanguageModel> load_checkpoint(const std::filesystem::path& folder,
                                               Activations activations) {
  const ModelConfig config = read_model_config(folder);
  const SafetensorsReader reader(folder);
  // Before any memory is taken: a hostile config.json may ask for a terabyte.
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    check_tensor(reader, tensor.name, tensor.shape, folder);
  }
  auto model = std::make_unique<LanguageModel>(config, 0, activations);
  read_tensors(reader, folder, model->named_weights());
  return model;
}

Tokenizer load_tokenizer(const std::filesystem::path& folder, const ModelConfig& config) {
  Tokenizer tokenizer = Tokenizer::load(folder);
  check_tokenizer(tokenizer, config, folder.string());
  return tokenizer;
}

void check_tokenizer(const Tokenizer& tokenizer, const ModelConfig& config,
                     const std::string& where) {
  if (tokenizer.vocabulary_size() > config.vocabulary) {
    throw FormatError("{}: the tokenizer has {} tokens, the model's vocabulary only {}", where,
                      tokenizer.vocabulary_size(), config.vocabulary);
  }
}

}  // namespace cadre
