#pragma once

/// Conversations as the text that chat models were trained on. Models bring a template in Jinja;
/// we do not run it, but recognise the common ones by their marks and write their form ourselves.

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cadre::engine {

struct ChatMessage {
  std::string role;  ///< "system" (only as the first), "user" or "assistant"
  std::string content;
};

/// Index into chat_format_names().
struct ChatFormat {
  size_t index;
  bool operator==(const ChatFormat&) const = default;
};

/// "chatml", "llama2", "llama3", "mistral-v1", "mistral-v3", "mistral-v7", "gemma", "phi3", "phi4",
/// "zephyr", "tulu" (OLMo, OLMoE), "granite", "deepseek", "deepseek3", "harmony" (gpt-oss).
std::vector<std::string_view> chat_format_names();
std::string_view name_of(ChatFormat format);
/// Throws UsageError that lists the names.
ChatFormat chat_format_named(std::string_view name);
/// The form that a model's Jinja template describes. Throws UsageError when no form's marks are in
/// it: says that `--chat NAME` chooses one.
ChatFormat recognise_chat_format(std::string_view jinja);

struct ChatOptions {
  /// Whether the text ends where the model's reply begins.
  enum class Reply { kExpected, kNone } reply = Reply::kExpected;
  /// What the model's vocabulary calls its end of text, in forms that use it; empty = the form's
  /// usual one.
  std::string_view end_of_text;
};

/// The conversation as text, without the begin-of-text token: whoever encodes it puts that first
/// when the vocabulary asks for it. Encode with SpecialTokens::kParse: a message that holds the
/// form's marks is then taken by its marks, as every runtime does. Throws UsageError: no message,
/// an unknown role, a system message that is not the first.
std::string render_chat(ChatFormat format, std::span<const ChatMessage> messages,
                        const ChatOptions& options = {});

/// The strings that end a reply in this form, for models whose end token is not told apart.
std::vector<std::string> chat_stops(ChatFormat format, std::string_view end_of_text = {});

}  // namespace cadre::engine
