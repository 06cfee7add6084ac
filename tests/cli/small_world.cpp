#include "tests/cli/small_world.h"

#include <array>
#include <fstream>

#include "cadre/base/random.h"

namespace cadre {

std::string small_text(int domain, int lines) {
  static const std::array<std::vector<std::string>, 2> kWords = {
      {{"add", "three", "to", "seven", "minus", "four", "equals", "ten", "times", "two"},
       {"once", "the", "fox", "and", "wolf", "ran", "over", "hills", "until", "night", "fell"}}};
  const auto& words = kWords.at(static_cast<size_t>(domain));
  Random random(7, {static_cast<uint64_t>(domain)});
  std::string text;
  for (int i = 0; i < lines; ++i) {
    for (int w = 0; w < 8; ++w) text += words[random.below(words.size())] + (w == 7 ? ".\n" : " ");
  }
  return text;
}

SmallWorld::SmallWorld() {
  std::ofstream(folder_ / "sums.txt") << small_text(0, 400);
  std::ofstream(folder_ / "tales.txt") << small_text(1, 400);
}

std::vector<std::string> SmallWorld::domains() const {
  return {"--domain", "sums=" + (folder_ / "sums.txt").string(), "--domain",
          "tales=" + (folder_ / "tales.txt").string()};
}

std::vector<std::string> SmallWorld::command(const std::string& verb, const std::string& out,
                                             const std::vector<std::string>& more) const {
  std::vector<std::string> words = {verb,
                                    "--out",
                                    folder_ / out,
                                    "--vocabulary",
                                    "300",
                                    "--hidden",
                                    "16",
                                    "--layers",
                                    "2",
                                    "--heads",
                                    "2",
                                    "--kv-heads",
                                    "2",
                                    "--experts",
                                    "4",
                                    "--experts-per-token",
                                    "2",
                                    "--expert-intermediate",
                                    "8",
                                    "--shared-experts",
                                    "1",
                                    "--context",
                                    "64",
                                    "--steps",
                                    "12",
                                    "--batch",
                                    "2",
                                    "--length",
                                    "16",
                                    "--warmup-steps",
                                    "2",
                                    "--evaluate-sequences",
                                    "4",
                                    "--save-every",
                                    "4"};
  for (const auto& word : domains()) words.push_back(word);
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::vector<std::string> SmallWorld::quickstart(const std::vector<std::string>& more) const {
  std::vector<std::string> words =
      command("quickstart", "quick", {"--minutes", "0", "--sample-tokens", "5"});
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::vector<std::string> SmallWorld::train(const std::vector<std::string>& more) const {
  return command("train", "run", more);
}

}  // namespace cadre
