#include "cadre/engine/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"

namespace cadre::engine {
namespace {

using ::testing::HasSubstr;

const std::vector<ChatMessage> kChat = {
    {"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello!"}, {"user", " Who? "}};

struct Case {
  const char* name;
  const char* jinja;  ///< the telling part of a published template
  const char* text;   ///< of kChat, with a reply expected
};

const Case kCases[] = {
    {"chatml",
     "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
     "+ '<|im_end|>' + '\\n'}}{% endfor %}",
     "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
     "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n Who? <|im_end|>\n"
     "<|im_start|>assistant\n"},
    {"llama2",
     "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
     "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}",
     "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Who? [/INST]"},
    {"llama3",
     "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ "
     "message['content'] | trim + '<|eot_id|>' %}",
     "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
     "<|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
     "<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"mistral-v1",
     "{{ '[INST] ' + message['content'] + ' [/INST]' }}{{ ' ' + message['content'] + eos_token}}",
     "[INST] Be brief.\n\nHi [/INST] Hello!</s>[INST]  Who?  [/INST]"},
    {"mistral-v3",
     "{{- \"[AVAILABLE_TOOLS] [\" }}{{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}",
     "[INST] Be brief.\n\nHi[/INST] Hello!</s>[INST]  Who? [/INST]"},
    {"mistral-v7",
     "{{- '[SYSTEM_PROMPT] ' + system_message + '[/SYSTEM_PROMPT]' }}{{- '[INST] ' + "
     "message['content'] + '[/INST]' }}",
     "[SYSTEM_PROMPT] Be brief.[/SYSTEM_PROMPT][INST] Hi[/INST] Hello!</s>[INST]  Who? [/INST]"},
    {"gemma",
     "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}",
     "<start_of_turn>user\nBe "
     "brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
     "<start_of_turn>user\nWho?<end_of_turn>\n<start_of_turn>model\n"},
    {"phi3",
     "{{'<|user|>' + '\\n' + message['content'] + '<|end|>' + '\\n' + '<|assistant|>' + '\\n'}}",
     "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n"
     "<|user|>\n Who? <|end|>\n<|assistant|>\n"},
    {"phi4", "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}",
     "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
     "<|im_start|>assistant<|im_sep|>Hello!<|im_end|><|im_start|>user<|im_sep|> Who? <|im_end|>"
     "<|im_start|>assistant<|im_sep|>"},
    {"zephyr",
     "{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}",
     "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello!</s>\n<|user|>\n Who? "
     "</s>\n<|assistant|>\n"},
    {"tulu",
     "{{ bos_token }}{% for message in messages %}{{ '<|user|>\\n' + message['content'] + '\\n' }}"
     "{{ '<|assistant|>\\n'  + message['content'] + eos_token + '\\n' }}",
     "<|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nHello!<|endoftext|>\n<|user|>\n Who? \n"
     "<|assistant|>\n"},
    {"granite",
     "{{- '<|start_of_role|>user<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}",
     "<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n"
     "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n"
     "<|start_of_role|>assistant<|end_of_role|>Hello!<|end_of_text|>\n"
     "<|start_of_role|>user<|end_of_role|> Who? <|end_of_text|>\n"
     "<|start_of_role|>assistant<|end_of_role|>"},
    {"deepseek",
     "{{ 'User: ' + message['content'] + '\\n\\n' }}{{ 'Assistant: ' + message['content'] + "
     "eos_token }}{{ 'Assistant:' }}",
     "Be brief.\n\nUser: Hi\n\nAssistant: Hello!<｜end▁of▁sentence｜>User:  Who? \n\nAssistant:"},
    {"deepseek3", "{{'<｜User｜>' + message['content']}}{{'<｜Assistant｜>' + content}}",
     "Be brief.<｜User｜>Hi<｜Assistant｜>Hello!<｜end▁of▁sentence｜><｜User｜> Who? "
     "<｜Assistant｜>"},
    {"harmony",
     "{{- \"<|start|>user<|message|>\" + message.content + \"<|end|>\" }}{{- "
     "\"<|start|>assistant<|channel|>final<|message|>\" }}",
     "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
     "Knowledge cutoff: 2024-06\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, "
     "final. Channel must be included for every message.<|end|><|start|>developer<|message|># "
     "Instructions\n\nBe brief.\n\n<|end|><|start|>user<|message|>Hi<|end|><|start|>assistant"
     "<|channel|>final<|message|>Hello!<|end|><|start|>user<|message|> Who? <|end|>"
     "<|start|>assistant"},
};

TEST(ChatTemplate, RecognisesAndWritesEveryForm) {
  EXPECT_EQ(std::size(kCases), chat_format_names().size()) << "every form has a case";
  for (const Case& c : kCases) {
    const ChatFormat format = chat_format_named(c.name);
    EXPECT_EQ(name_of(recognise_chat_format(c.jinja)), c.name);
    EXPECT_EQ(render_chat(format, kChat), c.text) << c.name;
  }
}

TEST(ChatTemplate, WithoutSystemOrReply) {
  const std::vector<ChatMessage> chat = {{"user", "Hi"}, {"assistant", "Hello!"}};
  const ChatOptions whole = {.reply = ChatOptions::Reply::kNone};
  EXPECT_EQ(render_chat(chat_format_named("llama2"), chat, whole), "[INST] Hi [/INST] Hello! </s>");
  EXPECT_EQ(render_chat(chat_format_named("gemma"), chat, whole),
            "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n");
}

TEST(ChatTemplate, TheModelsOwnEndOfText) {
  const std::vector<ChatMessage> chat = {{"user", "Hi"}};
  const ChatFormat zephyr = chat_format_named("zephyr");
  EXPECT_EQ(render_chat(zephyr, chat, {.end_of_text = "<|endoftext|>"}),
            "<|user|>\nHi<|endoftext|>\n<|assistant|>\n");
  EXPECT_EQ(chat_stops(zephyr, "<|endoftext|>"), std::vector<std::string>{"<|endoftext|>"});
  EXPECT_EQ(chat_stops(chat_format_named("chatml")), std::vector<std::string>{"<|im_end|>"});
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

TEST(ChatTemplate, Refusals) {
  const ChatFormat chatml = chat_format_named("chatml");
  const auto render = [&](const std::vector<ChatMessage>& chat) {
    return complaint([&] { render_chat(chatml, chat); });
  };
  EXPECT_THAT(render({}), HasSubstr("at least one message"));
  EXPECT_THAT(render({{"tool", "x"}}), HasSubstr("\"tool\""));
  EXPECT_THAT(render({{"user", "x"}, {"system", "y"}}), HasSubstr("must be the first"));
  EXPECT_THAT(complaint([] { recognise_chat_format("{{ messages }}"); }), HasSubstr("--chat NAME"));
  EXPECT_THAT(complaint([] { chat_format_named("x"); }), HasSubstr("chatml"));
}

}  // namespace
}  // namespace cadre::engine
