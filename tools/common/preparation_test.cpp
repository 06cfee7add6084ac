#include "tools/common/preparation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"
#include "cadre/formats/token_file.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;

class Preparation : public testing::Test {
 protected:
  Preparation() {
    write("a", 500);
    write("b", 300);
    options_.vocabulary = 280;
    options_.domains = {"a=" + (folder_ / "a").string(), "b=" + (folder_ / "b").string()};
  }
  void write(const std::string& name, int lines) {
    std::ofstream file(folder_ / name);
    for (int i = 0; i < lines; ++i) file << "line " << i * i << " of " << name << '\n';
  }
  PreparedData prepare(ChangedText changed = ChangedText::kPrepareAgain, int64_t length = 16) {
    return prepare_data(folder_ / "data", options_, length, changed);
  }
  fs::file_time_type made() { return fs::last_write_time(folder_ / "data/000-train.tokens"); }

  TestFolder folder_;
  PreparationOptions options_;
};

TEST_F(Preparation, SplitsEncodesAndIsUsedAgain) {
  const PreparedData data = prepare();
  ASSERT_EQ(data.domains.size(), 2U);
  for (const auto& domain : data.domains) {
    EXPECT_EQ(TokenFile(domain.train).size(), domain.train_tokens);
    EXPECT_EQ(TokenFile(domain.validation).size(), domain.validation_tokens);
    EXPECT_NEAR(
        static_cast<double>(domain.validation_tokens) / static_cast<double>(domain.train_tokens),
        0.05, 0.03);
  }
  const auto before = made();
  prepare();
  EXPECT_EQ(made(), before);
  EXPECT_EQ(load_prepared(folder_ / "data").domains[1].name, "b");
}

TEST_F(Preparation, ChangedTextIsPreparedAgainOrKept) {
  const int64_t tokens = prepare().domains[0].train_tokens;
  write("a", 900);
  EXPECT_EQ(prepare(ChangedText::kKeep).domains[0].train_tokens, tokens);
  EXPECT_GT(prepare(ChangedText::kPrepareAgain).domains[0].train_tokens, tokens);
}

TEST_F(Preparation, ChangedOptionsAreRefusedUnderWay) {
  prepare();
  options_.vocabulary = 290;
  EXPECT_THROW(prepare(ChangedText::kKeep), UsageError);
  EXPECT_EQ(prepare().tokenizer.vocabulary_size(), 290);
}

TEST_F(Preparation, TooSmallADomainLeavesTheOldDataInPlace) {
  prepare();
  options_.domains.pop_back();
  EXPECT_THROW(prepare(ChangedText::kPrepareAgain, 100000), UsageError);
  EXPECT_EQ(load_prepared(folder_ / "data").domains.size(), 2U);
}

TEST_F(Preparation, DamagedManifestIsNamed) {
  prepare();
  write_file(folder_ / "data/data.json", "{\"domains\": [{}]}");
  EXPECT_THROW(load_prepared(folder_ / "data"), FormatError);
}

TEST_F(Preparation, WholeDomainsForMeasuring) {
  const Tokenizer tokenizer = prepare().tokenizer;
  fs::create_directory(folder_ / "whole");
  const PreparedData whole = encode_domains(folder_ / "whole", options_.domains, tokenizer, 1);
  EXPECT_GT(whole.domains[0].validation_tokens,
            load_prepared(folder_ / "data").domains[0].train_tokens);
  EXPECT_THROW(encode_domains(folder_ / "whole", {"a=x", "a=y"}, tokenizer, 1), UsageError);
}

}  // namespace
}  // namespace cadre
