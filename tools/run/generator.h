#pragma once

/// What cadre run does with one model: continue a text, or reply in a chat.

#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "cadre/engine/chat_template.h"
#include "cadre/engine/sampler.h"
#include "cadre/engine/scheduler.h"
#include "cadre/engine/text_frame.h"
#include "tools/common/engine_options.h"

namespace cadre {

struct GeneratorOptions {
  engine::SamplerOptions sampling;
  std::vector<std::string> stop;
  int64_t tokens = 256;
  std::string chat;  ///< the form's name; empty = the model's own
  bool chats = false;
  bool shows = true;  ///< writes the text to stdout as it comes
};

class Generator {
 public:
  /// `model` as opened from `path`.
  Generator(std::shared_ptr<engine::Model> model, std::string path, int64_t context,
            const GeneratorOptions& options);

  /// Continues the prompt, or replies to it when options.chats. Throws what the engine threw.
  engine::GenerationResult answer(const std::string& prompt);
  engine::GenerationResult reply(std::span<const engine::ChatMessage> messages);
  /// Throws UsageError when the model has no form that we know.
  engine::ChatFormat chat_format() const;

 private:
  engine::GenerationResult generate(std::vector<TokenId> prompt,
                                    const std::vector<std::string>& stop);

  std::shared_ptr<engine::Model> model_;
  std::string path_;
  const GeneratorOptions& options_;
  engine::TextFrame frame_;
  engine::EngineSequences sequences_;
  engine::Scheduler scheduler_;
};

/// "12 tokens read at 56.1/s, 64 written at 13.5/s; 87 % of experts ..."
std::string summary_of(const engine::GenerationResult& result);
/// What --json prints.
nlohmann::ordered_json to_json(const std::string& prompt, const engine::GenerationResult& result);

}  // namespace cadre
