#include "cadre/engine/chat_template.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "cadre/base/error.h"

namespace cadre::engine {
namespace {

struct Turn {
  std::string_view before, after;
};

/// Where a system message goes: a turn of its own, or before the first user message.
enum class SystemPlace { kOwnTurn, kInFirstUser };
enum class Blanks { kKept, kTrimmed };

/// {eos} stands for the end of text.
struct Form {
  std::string_view name;
  /// All of these are in the template once its blanks and line ends are taken out.
  std::array<std::string_view, 3> marks;
  Turn system, user, assistant;
  std::string_view reply;  ///< what comes before a reply that is still to be made
  std::string_view stop;
  std::string_view eos = "";      ///< the usual one
  std::string_view opening = "";  ///< before everything
  std::string_view again = "";    ///< before each user turn but the first
  SystemPlace system_place = SystemPlace::kOwnTurn;
  Blanks blanks = Blanks::kKept;
};

constexpr std::string_view kHarmonyOpening =
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message."
    "<|end|>";

// In the order in which they are looked for: those whose marks contain another's come first.
constexpr std::array kForms = {
    Form{.name = "phi4",
         .marks = {"<|im_start|>", "<|im_sep|>"},
         .system = {"<|im_start|>system<|im_sep|>", "<|im_end|>"},
         .user = {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
         .assistant = {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"},
         .reply = "<|im_start|>assistant<|im_sep|>",
         .stop = "<|im_end|>"},
    Form{.name = "chatml",
         .marks = {"<|im_start|>"},
         .system = {"<|im_start|>system\n", "<|im_end|>\n"},
         .user = {"<|im_start|>user\n", "<|im_end|>\n"},
         .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"},
         .reply = "<|im_start|>assistant\n",
         .stop = "<|im_end|>"},
    Form{.name = "llama3",
         .marks = {"<|start_header_id|>", "<|end_header_id|>"},
         .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
         .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
         .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
         .reply = "<|start_header_id|>assistant<|end_header_id|>\n\n",
         .stop = "<|eot_id|>",
         .blanks = Blanks::kTrimmed},
    Form{.name = "granite",
         .marks = {"<|start_of_role|>", "<|end_of_role|>"},
         .system = {"<|start_of_role|>system<|end_of_role|>", "<|end_of_text|>\n"},
         .user = {"<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n"},
         .assistant = {"<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>\n"},
         .reply = "<|start_of_role|>assistant<|end_of_role|>",
         .stop = "<|end_of_text|>"},
    Form{.name = "gemma",
         .marks = {"<start_of_turn>"},
         .system = {"", "\n\n"},
         .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
         .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
         .reply = "<start_of_turn>model\n",
         .stop = "<end_of_turn>",
         .system_place = SystemPlace::kInFirstUser,
         .blanks = Blanks::kTrimmed},
    Form{.name = "mistral-v7",
         .marks = {"[INST]", "[SYSTEM_PROMPT]"},
         .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
         .user = {"[INST] ", "[/INST]"},
         .assistant = {" ", "{eos}"},
         .reply = "",
         .stop = "{eos}",
         .eos = "</s>"},
    Form{.name = "llama2",
         .marks = {"[INST]", "<<SYS>>"},
         .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
         .user = {"[INST] ", " [/INST]"},
         .assistant = {" ", " {eos}"},
         .reply = "",
         .stop = "{eos}",
         .eos = "</s>",
         .again = "<s>",
         .system_place = SystemPlace::kInFirstUser,
         .blanks = Blanks::kTrimmed},
    Form{.name = "mistral-v3",
         .marks = {"[INST]", "[AVAILABLE_TOOLS]"},
         .system = {"", "\n\n"},
         .user = {"[INST] ", "[/INST]"},
         .assistant = {" ", "{eos}"},
         .reply = "",
         .stop = "{eos}",
         .eos = "</s>",
         .system_place = SystemPlace::kInFirstUser},
    Form{.name = "mistral-v1",
         .marks = {"[INST]"},
         .system = {"", "\n\n"},
         .user = {"[INST] ", " [/INST]"},
         .assistant = {" ", "{eos}"},
         .reply = "",
         .stop = "{eos}",
         .eos = "</s>",
         .system_place = SystemPlace::kInFirstUser},
    Form{.name = "harmony",
         .marks = {"<|start|>", "<|channel|>", "<|message|>"},
         .system = {"<|start|>developer<|message|># Instructions\n\n", "\n\n<|end|>"},
         .user = {"<|start|>user<|message|>", "<|end|>"},
         .assistant = {"<|start|>assistant<|channel|>final<|message|>", "<|end|>"},
         .reply = "<|start|>assistant",
         .stop = "<|return|>",
         .opening = kHarmonyOpening},
    Form{.name = "phi3",
         .marks = {"<|assistant|>", "<|end|>"},
         .system = {"<|system|>\n", "<|end|>\n"},
         .user = {"<|user|>\n", "<|end|>\n"},
         .assistant = {"<|assistant|>\n", "<|end|>\n"},
         .reply = "<|assistant|>\n",
         .stop = "<|end|>"},
    Form{.name = "zephyr",
         .marks = {"<|user|>'+message['content']+eos_token"},
         .system = {"<|system|>\n", "{eos}\n"},
         .user = {"<|user|>\n", "{eos}\n"},
         .assistant = {"<|assistant|>\n", "{eos}\n"},
         .reply = "<|assistant|>\n",
         .stop = "{eos}",
         .eos = "</s>"},
    Form{.name = "tulu",
         .marks = {"<|user|>'+message['content']+''", "<|assistant|>"},
         .system = {"<|system|>\n", "\n"},
         .user = {"<|user|>\n", "\n"},
         .assistant = {"<|assistant|>\n", "{eos}\n"},
         .reply = "<|assistant|>\n",
         .stop = "{eos}",
         .eos = "<|endoftext|>"},
    Form{.name = "deepseek3",
         .marks = {"<｜User｜>", "<｜Assistant｜>"},
         .system = {"", ""},
         .user = {"<｜User｜>", ""},
         .assistant = {"<｜Assistant｜>", "{eos}"},
         .reply = "<｜Assistant｜>",
         .stop = "{eos}",
         .eos = "<｜end▁of▁sentence｜>"},
    Form{.name = "deepseek",
         .marks = {"'User:'+message['content']", "'Assistant:'"},
         .system = {"", "\n\n"},
         .user = {"User: ", "\n\n"},
         .assistant = {"Assistant: ", "{eos}"},
         .reply = "Assistant:",
         .stop = "{eos}",
         .eos = "<｜end▁of▁sentence｜>"},
};

/// Without blanks, line ends, and the "\n" that strings in Jinja write for one; '"' as "'".
std::string squeezed(std::string_view jinja) {
  std::string text;
  for (size_t i = 0; i < jinja.size(); ++i) {
    const char c = jinja[i];
    if (c == '\\' && i + 1 < jinja.size() && jinja[i + 1] == 'n') {
      ++i;
    } else if (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
      text += c == '"' ? '\'' : c;
    }
  }
  return text;
}

std::string_view trimmed(std::string_view text) {
  constexpr const char* kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) + 1 - first);
}

std::string with_eos(std::string_view text, std::string_view eos) {
  constexpr std::string_view kMark = "{eos}";
  std::string result(text);
  if (const size_t at = result.find(kMark); at != std::string::npos)
    result.replace(at, kMark.size(), eos);
  return result;
}

/// Writes one conversation.
class Renderer {
 public:
  Renderer(const Form& form, std::string_view eos) : form_(form), eos_(eos) {}

  void add(const ChatMessage& message) {
    if (message.role == "system") return add_system(message.content);
    if (message.role == "user") return add_user(message.content);
    if (message.role == "assistant") return add_turn(form_.assistant, message.content);
    throw UsageError("unknown chat role \"{}\" (known: system, user, assistant)", message.role);
  }
  std::string& text() { return text_; }

 private:
  void add_system(const std::string& content) {
    if (begun_) throw UsageError("a system message must be the first of a chat");
    begun_ = true;
    if (form_.system_place == SystemPlace::kOwnTurn) return add_turn(form_.system, content);
    pending_ = fmt::format("{}{}{}", form_.system.before, cleaned(content), form_.system.after);
  }

  void add_user(const std::string& content) {
    begun_ = true;
    if (users_++ > 0) text_ += form_.again;
    const std::string whole = pending_ + std::string(cleaned(content));
    pending_.clear();
    text_ += fmt::format("{}{}{}", form_.user.before, whole, with_eos(form_.user.after, eos_));
  }

  void add_turn(const Turn& turn, const std::string& content) {
    begun_ = true;
    text_ += turn.before;
    text_ += cleaned(content);
    text_ += with_eos(turn.after, eos_);
  }

  std::string_view cleaned(std::string_view content) const {
    return form_.blanks == Blanks::kTrimmed ? trimmed(content) : content;
  }

  const Form& form_;
  std::string_view eos_;
  std::string text_, pending_;
  int users_ = 0;
  bool begun_ = false;
};

std::string known_names() { return fmt::format("{}", fmt::join(chat_format_names(), ", ")); }

}  // namespace

std::vector<std::string_view> chat_format_names() {
  std::vector<std::string_view> names;
  for (const Form& form : kForms) names.push_back(form.name);
  return names;
}

std::string_view name_of(ChatFormat format) { return kForms.at(format.index).name; }

ChatFormat chat_format_named(std::string_view name) {
  for (size_t i = 0; i < kForms.size(); ++i)
    if (kForms[i].name == name) return {i};
  throw UsageError("unknown chat format \"{}\" (known: {})", name, known_names());
}

ChatFormat recognise_chat_format(std::string_view jinja) {
  const std::string text = squeezed(jinja);
  for (size_t i = 0; i < kForms.size(); ++i) {
    bool all = true;
    for (const std::string_view mark : kForms[i].marks)
      all = all && text.find(mark) != std::string::npos;
    if (all) return {i};
  }
  throw UsageError(
      "the model's chat template is of an unknown form; choose one with --chat NAME ({})",
      known_names());
}

std::string render_chat(ChatFormat format, std::span<const ChatMessage> messages,
                        const ChatOptions& options) {
  const Form& form = kForms.at(format.index);
  if (messages.empty()) throw UsageError("a chat needs at least one message");
  Renderer renderer(form, options.end_of_text.empty() ? form.eos : options.end_of_text);
  renderer.text() = form.opening;
  for (const ChatMessage& message : messages) renderer.add(message);
  if (options.reply == ChatOptions::Reply::kExpected) renderer.text() += form.reply;
  return std::move(renderer.text());
}

std::vector<std::string> chat_stops(ChatFormat format, std::string_view end_of_text) {
  const Form& form = kForms.at(format.index);
  return {with_eos(form.stop, end_of_text.empty() ? form.eos : end_of_text)};
}

}  // namespace cadre::engine
