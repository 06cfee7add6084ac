#include "cadre/formats/roff.h"

#include <gtest/gtest.h>

#include <random>

#include "cadre/formats/roff_escapes.h"
#include "cadre/formats/utf8.h"

namespace cadre {
namespace {

TEST(UnescapeRoff, GivesWhatAReaderSees) {
  const auto plain = [](std::string_view line) { return unescape_roff(line).text; };
  EXPECT_EQ(plain(R"(\fBbold\fR \fIit\fP \f(CWmono\f[R])"), "bold it mono");
  EXPECT_EQ(plain(R"(a\-b \(bu \[bu] \(em \[u2014] \(aq)"), "a-b • • — — '");
  EXPECT_EQ(plain(R"(C:\\dir\efile)"), R"(C:\dir\file)");
  EXPECT_EQ(plain(R"(\&.profile a\|b\^c\%d\:e)"), ".profile abcde");
  EXPECT_EQ(plain(R"(a\ b\~c\0d)"), "a b c d");
  EXPECT_EQ(plain(R"(\s-1SMALL\s0 \s+2x\s0 \s12y \s[10]z)"), "SMALL x y z");
  EXPECT_EQ(plain(R"(\h'+1n'in\v'-0.2m'up\w'abc'n)"), "inupn");
  EXPECT_EQ(plain(R"(\*(lqquote\*(rq \n(.l\n+x \*[unknown])"), "“quote”  ");
  EXPECT_EQ(plain(R"(\N'65' \C'bu')"), "A •");
  EXPECT_EQ(plain(R"(text \" comment)"), "text ");
  EXPECT_EQ(plain("ends in \\"), "ends in ");
  EXPECT_TRUE(unescape_roff("joined\\c").continues);
}

TEST(StripRoff, FlowsParagraphsAndKeepsMacroText) {
  EXPECT_EQ(strip_roff(R"(.\" comment
.TH open 2 2023-02-05 "Linux"
.SH NAME
open, creat \- open a file
.SH DESCRIPTION
The
.BR open ()
system call opens
.IR pathname .
.PP
.RB ( read "(2), " write (2),
etc.)
.B O_CREAT
is "quoted".
)"),
            "NAME\nopen, creat - open a file\n\nDESCRIPTION\n"
            "The open() system call opens pathname.\n\n"
            "(read(2), write(2), etc.) O_CREAT is \"quoted\".\n");
}

TEST(StripRoff, KeepsExamplesLineByLine) {
  EXPECT_EQ(
      strip_roff(
          ".nf\n.B #include <fcntl.h>\n.PP\n.BI \"int open(const char *\" path \", int \" \\\n"
          "flags );\n  x = 1;\n.fi\nafter\nit\n"),
      "#include <fcntl.h>\n\nint open(const char *path, int flags);\n  x = 1;\nafter it\n");
}

TEST(StripRoff, PutsTagsOnTheirLineAndBulletsBeforeTheText) {
  EXPECT_EQ(
      strip_roff(".TP\n.B \\-a\nshow\nall\n.TP\n.B \\-b\nbrief\n.IP \\(bu 3\nitem\n.IP\nplain\n"),
      "-a\nshow all\n\n-b\nbrief\n\n• item\n\nplain\n");
}

TEST(StripRoff, DropsDefinitionsConditionalsAndPictures) {
  EXPECT_EQ(
      strip_roff(
          ".de Sp\n.if t .sp\n..\n.ie n \\{\\\n.ds x y\nhidden\n.\\}\n.el\\{\\\nhidden\n.\\}\n"
          ".if t hidden\nshown\n.PS\nbox\n.PE\nhere\n'br\\\" comment\nend\n"),
      "shown here\nend\n");
}

TEST(StripRoff, KeepsTheCellsOfTables) {
  EXPECT_EQ(
      strip_roff(
          "a\n.TS\nallbox;\nl l\nl lb.\nName\tValue\n_\nx\tT{\nlong\ntext\nT}\ny\t2\n.TE\nb\n"),
      "a\n\nName Value\nx long text\ny 2\nb\n");
}

TEST(StripRoff, ReadsTheCommonPartOfMdoc) {
  EXPECT_EQ(strip_roff(".Dd May 1\n.Dt LS 1\n.Sh NAME\n.Nm ls\n.Nd list files\n.Sh SYNOPSIS\n.Nm\n"
                       ".Op Fl a Ar file\n.Xr stat 2\n"),
            "NAME\nls list files\n\nSYNOPSIS\nls -a file stat 2\n");
}

TEST(StripRoff, AnyBytesAreAcceptedAndUtf8StaysValid) {
  const std::vector<std::string> parts = {
      "\\", "\n", ".",  "'", "é", "漢", "😀",  "f", "(",  "[",  "]",  "T",  "P",   "S",  "E",
      "\"", " ",  "\t", "{", "}", "B ", "TS", "*", "TP", "h'", "N'", "de", "if ", "T{", "T}"};
  std::mt19937 random(11);
  for (int round = 0; round < 3000; ++round) {
    std::string page;
    for (uint32_t size = random() % 60; size > 0; --size) page += parts[random() % parts.size()];
    EXPECT_EQ(find_invalid_utf8(strip_roff(page)), -1) << page;
    for (char& byte : page) byte ^= static_cast<char>(random() % 256);
    strip_roff(page);
  }
}

}  // namespace
}  // namespace cadre
