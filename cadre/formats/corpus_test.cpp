#include "cadre/formats/corpus.h"

#include <gmock/gmock.h>
#include <zlib.h>

#include <functional>
#include <random>

#include "cadre/base/error.h"
#include "cadre/formats/debian_domains.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no UsageError";
}

void write_packed(const fs::path& path, const std::string& text) {
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
}

TEST(ReadDomain, ReadsOneFile) {
  const TestFolder folder;
  write_file(folder / "a.txt", "Grüße\n");
  const Domain domain = read_domain("mail", folder / "a.txt");
  EXPECT_EQ(domain.name, "mail");
  EXPECT_THAT(domain.documents, ElementsAre("Grüße\n"));
  EXPECT_EQ(domain.bytes(), 8);
}

TEST(ReadDomain, ReadsAFolderSortedAndLeavesOutWhatIsNoText) {
  const TestFolder folder;
  fs::create_directories(folder / "sub" / "man1");
  write_file(folder / "z.txt", "last");
  write_file(folder / "b.bin", std::string("bin\0ary", 7));
  write_file(folder / "c.txt", "caf\xe9");
  write_file(folder / "d.gz", "no gzip data");
  write_file(folder / "empty", "");
  write_packed(folder / "a.txt.gz", "packed");
  write_packed(folder / "e.dict.dz", "dictionary");
  write_packed(folder / "sub" / "man1" / "ls.1.gz", ".SH NAME\n.B ls\n");
  write_file(folder / "sub" / "man1" / "README", ".SH kept as it is\n");
  fs::create_symlink(folder.path(), folder / "sub" / "loop");
  fs::create_symlink("z.txt", folder / "y.txt");
  const Domain domain = read_domain("all", folder.path());
  EXPECT_THAT(domain.documents,
              ElementsAre("packed", "dictionary", ".SH kept as it is\n", "NAME\nls\n", "last"));
  EXPECT_EQ(domain.left_out, 3);
}

TEST(ReadDomain, StopsAtTheLimitWithoutSplittingACharacter) {
  const TestFolder folder;
  write_file(folder / "a", "12345");
  write_file(folder / "b", "漢漢漢");
  write_file(folder / "c", "never read");
  EXPECT_THAT(read_domain("x", folder.path(), {.max_bytes = 9}).documents,
              ElementsAre("12345", "漢"));
  EXPECT_THAT(read_domain("x", folder / "b", {.max_bytes = 9}).documents, ElementsAre("漢漢漢"));
  write_packed(folder / "d.gz", "漢漢漢");
  EXPECT_THAT(read_domain("x", folder / "d.gz", {.max_bytes = 7}).documents, ElementsAre("漢漢"));
}

TEST(ReadDomain, SaysWhyASingleFileIsNoText) {
  const TestFolder folder;
  write_file(folder / "empty", "");
  write_file(folder / "binary", std::string("bin\0ary", 7));
  write_file(folder / "latin1", "caf\xe9");
  write_file(folder / "broken.gz", "no gzip data");
  fs::create_directory(folder / "bare");
  const auto about = [&](const std::string& file) {
    return message_of([&] { read_domain("x", folder / file); });
  };
  EXPECT_THAT(about("none"), HasSubstr("No such file"));
  EXPECT_THAT(about("empty"), HasSubstr("no text in"));
  EXPECT_THAT(about("bare"), HasSubstr("no text in"));
  EXPECT_THAT(about("binary"), AllOf(HasSubstr("binary file"), HasSubstr("offset 3")));
  EXPECT_THAT(about("latin1"), HasSubstr("invalid UTF-8 at byte 3"));
  EXPECT_THAT(about("broken.gz"), HasSubstr("corrupt gzip data"));
}

TEST(ParseDomainOption, SplitsAtTheFirstEqualsSign) {
  const auto [name, path] = parse_domain_option("my-code_2.0=/a/b=c");
  EXPECT_EQ(name, "my-code_2.0");
  EXPECT_EQ(path, "/a/b=c");
  for (const std::string bad : {"", "x", "=", "x=", "=x", "a/b=c", ".x=c", "a b=c", "a\n=c"}) {
    EXPECT_THROW(parse_domain_option(bad), UsageError) << bad;
  }
}

TEST(SplitHeldOut, HoldsOutEveryTwentiethBlock) {
  const std::vector<std::string> documents = {std::string(50 * 4096 + 10, 'x')};
  const HeldOutSplit split = split_held_out(documents);
  ASSERT_EQ(split.validation.size(), 2u);
  EXPECT_EQ(split.validation[0].data() - documents[0].data(), 19 * 4096);
  EXPECT_EQ(split.validation[0].size(), 4096u);
  EXPECT_EQ(split.validation[1].data() - documents[0].data(), 39 * 4096);
  ASSERT_EQ(split.training.size(), 3u);
  EXPECT_EQ(split.training[2].size(), 10u * 4096 + 10);
}

TEST(SplitHeldOut, CountsOnOverSmallDocuments) {
  const std::vector<std::string> documents(100, std::string(300, 'x'));
  const HeldOutSplit split = split_held_out(documents, 100, 5);
  size_t held_out = 0;
  for (const std::string_view piece : split.validation) held_out += piece.size();
  EXPECT_EQ(held_out, 6000u);
  const std::vector<std::string> tiny = {"tiny"};
  EXPECT_THAT(split_held_out(tiny).validation, IsEmpty());
  EXPECT_THROW(split_held_out(documents, 3, 5), UsageError);
  EXPECT_THROW(split_held_out(documents, 100, 1), UsageError);
}

TEST(SplitHeldOut, LosesNothingAndSplitsNoCharacter) {
  const std::vector<std::string> characters = {"a", "é", "漢", "😀"};
  std::mt19937 random(9);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> documents(random() % 5);
    for (std::string& text : documents) {
      for (uint32_t size = random() % 100; size > 0; --size) text += characters[random() % 4];
    }
    const int64_t block = 4 + random() % 12, every = 2 + random() % 4;
    const HeldOutSplit split = split_held_out(documents, block, every);
    std::vector<std::string_view> pieces = split.training;
    pieces.insert(pieces.end(), split.validation.begin(), split.validation.end());
    size_t total = 0, expected = 0;
    for (const std::string_view piece : pieces) {
      EXPECT_EQ(find_invalid_utf8(piece), -1);
      EXPECT_FALSE(piece.empty());
      total += piece.size();
    }
    for (const std::string& text : documents) expected += text.size();
    EXPECT_EQ(total, expected);
    for (const std::string_view piece : split.validation) {
      EXPECT_LE(piece.size(), static_cast<size_t>(block) + 3);
    }
  }
}

TEST(SplitHeldOut, EndsOnAnyBytes) {
  const std::vector<std::string> documents = {std::string(100, '\x80'), "\xf0\xff\x80\x80\x80"};
  const HeldOutSplit split = split_held_out(documents, 7, 3);
  size_t total = 0;
  for (const std::string_view piece : split.training) total += piece.size();
  for (const std::string_view piece : split.validation) total += piece.size();
  EXPECT_EQ(total, 105u);
}

TEST(DebianDomains, ReadsPackagesUnpackedBelowARoot) {
  const TestFolder root;
  fs::create_directories(root / "usr" / "include" / "linux");
  fs::create_directories(root / "usr" / "share" / "man" / "man3");
  fs::create_directories(root / "usr" / "share" / "dictd");
  write_file(root / "usr" / "include" / "linux" / "a.h", "int a;\n");
  write_packed(root / "usr" / "share" / "man" / "man3" / "a.3.gz", ".SH NAME\na\n");
  write_packed(root / "usr" / "share" / "dictd" / "gcide.dict.dz", "stop \xe7 \xff");
  std::vector<std::string> seen;
  for (const DebianDomain& domain : debian_domains()) {
    if (domain.name == "literature") continue;
    seen.push_back(read_debian_domain(domain, {}, root.path()).documents.at(0));
  }
  EXPECT_THAT(seen, ElementsAre("int a;\n", "NAME\na\n", "stop \uFFFD \uFFFD"));
}

TEST(DebianDomains, NamesThePackagesThatAreMissing) {
  const TestFolder root;
  for (const DebianDomain& domain : debian_domains()) {
    EXPECT_THAT(message_of([&] { read_debian_domain(domain, {}, root.path()); }),
                AllOf(HasSubstr(domain.packages), HasSubstr("--domain")));
  }
}

TEST(DebianDomains, PrintsTheBibleWithoutVerseNumbers) {
  const DebianDomain& bible = debian_domains()[2];
  if (!fs::exists("/usr/bin/bible")) GTEST_SKIP() << "needs the package bible-kjv";
  const Domain domain = read_debian_domain(bible, {.max_bytes = 1000});
  ASSERT_EQ(domain.documents.size(), 1u);
  EXPECT_TRUE(domain.documents[0].starts_with(
      "In the beginning God created the heaven and the earth.\nAnd the earth was without form"));
  EXPECT_EQ(domain.bytes(), 1000);
}

}  // namespace
}  // namespace cadre
