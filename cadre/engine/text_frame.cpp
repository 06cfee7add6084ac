#include "cadre/engine/text_frame.h"

#include <set>

#include "cadre/engine/tensor_source.h"
#include "cadre/engine/tokenizer_from_gguf.h"
#include "cadre/formats/gguf.h"

namespace cadre::engine {

std::vector<TokenId> TextFrame::encode(const Tokenizer& tokenizer, std::string_view text,
                                       Tokenizer::SpecialTokens special) const {
  std::vector<TokenId> tokens = tokenizer.encode(text, special);
  if (begin >= 0) tokens.insert(tokens.begin(), begin);
  return tokens;
}

TextFrame read_text_frame(const std::filesystem::path& model, const Tokenizer& tokenizer) {
  TextFrame frame;
  frame.chat_template = open_source(model)->chat_template();
  std::set<TokenId> ends;
  for (const TokenId id : end_tokens(tokenizer)) ends.insert(id);
  TokenId end = tokenizer.end_of_text();
  if (!std::filesystem::is_directory(model)) {
    const SpecialTokenIds ids = special_token_ids(GgufReader(model), model.string());
    if (ids.add_begin) frame.begin = ids.begin_of_text;
    if (ids.end_of_text >= 0) end = ids.end_of_text;
    ends.insert({ids.end_of_text, ids.end_of_turn});
  }
  if (end >= 0) frame.end_of_text = tokenizer.token(end);
  ends.erase(-1);
  frame.ends.assign(ends.begin(), ends.end());
  return frame;
}

std::vector<TokenId> end_tokens(const Tokenizer& tokenizer) {
  std::set<TokenId> ids = {tokenizer.end_of_text()};
  for (const char* name :
       {"<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<|return|>",
        "<|call|>", "<end_of_turn>", "</s>", "<｜end▁of▁sentence｜>", "<|endofturn|>", "[EOS]"}) {
    const TokenId id = tokenizer.id_of(name);
    if (id >= 0 && tokenizer.is_special(id)) ids.insert(id);
  }
  ids.erase(-1);
  return {ids.begin(), ids.end()};
}

}  // namespace cadre::engine
