// Opens a model (a GGUF file or a checkpoint directory) and continues a prompt greedily:
// example_run_model MODEL PROMPT TOKENS

#include <algorithm>
#include <cstdio>
#include <string>

#include "cadre/engine/session.h"

int main(int argc, char** argv) {
  if (argc != 4) return std::fprintf(stderr, "usage: %s MODEL PROMPT TOKENS\n", argv[0]), 2;
  try {
    const auto model = cadre::engine::Model::open(argv[1]);
    const cadre::Tokenizer& tokenizer = model->tokenizer();
    cadre::engine::Session session(model);

    auto logits = session.feed(tokenizer.encode(argv[2]));
    for (int i = 0; i < std::stoi(argv[3]); ++i) {
      const auto best = std::max_element(logits.begin(), logits.end());
      const auto token = static_cast<cadre::TokenId>(best - logits.begin());
      if (token == tokenizer.end_of_text()) break;
      std::fputs(tokenizer.decode({&token, 1}).c_str(), stdout);
      logits = session.feed({&token, 1});
    }
    std::puts("");
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
  }
}
