#include "cadre/formats/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>

#include "cadre/base/error.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const IoError& error) {
    return error.what();
  }
  return "no IoError";
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

/// Runs `child` in a process of its own and returns its exit status, or -signal.
int run_in_child(const std::function<int()>& child) {
  const pid_t process = ::fork();
  if (process == 0) ::_exit(child());
  int status = 0;
  ::waitpid(process, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(MappedFile, ShowsTheBytesAndOutlivesTheOriginal) {
  const TestFolder folder;
  write_file(folder / "a", "hello");
  MappedFile copy = [&] { return MappedFile(folder / "a"); }();
  EXPECT_EQ(copy.text(), "hello");
  EXPECT_EQ(copy.bytes().size(), 5u);
  EXPECT_EQ(copy.path(), folder / "a");
  // A replaced file leaves the readers of the old one alone.
  write_file(folder / "a", "other bytes");
  EXPECT_EQ(copy.text(), "hello");
}

TEST(MappedFile, EmptyFileIsAnEmptySpan) {
  const TestFolder folder;
  write_file(folder / "empty", "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  const TestFolder folder;
  EXPECT_THAT(message_of([&] { MappedFile(folder / "none"); }), HasSubstr("No such file"));
  EXPECT_THAT(message_of([&] { MappedFile(folder.path()); }), HasSubstr("directory"));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(message_of([&] { MappedFile(folder / "pipe"); }), HasSubstr("not a regular file"));
}

TEST(ReadFile, ReadsAllSizes) {
  const TestFolder folder;
  for (const size_t size : {0u, 1u, 4095u, 4096u, 3000000u}) {
    const std::string text(size, 'x');
    write_file(folder / "f", text);
    EXPECT_EQ(read_file(folder / "f"), text);
  }
  EXPECT_THAT(read_file("/proc/self/status"), HasSubstr("Pid:"));
  EXPECT_THAT(message_of([&] { read_file(folder.path()); }), HasSubstr("directory"));
}

TEST(AtomicFile, AppearsOnlyAtCommit) {
  const TestFolder folder;
  write_file(folder / "f", "old");
  {
    AtomicFile file(folder / "f");
    file.write("new ");
    file.write("text");
    file.overwrite(0, std::as_bytes(std::span("NEW", 3)));
    EXPECT_EQ(read_file(folder / "f"), "old");
    file.commit();
  }
  EXPECT_EQ(read_file(folder / "f"), "NEW text");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"f"});
}

TEST(AtomicFile, WithoutCommitNothingHappens) {
  const TestFolder folder;
  AtomicFile(folder / "f").write("half");
  EXPECT_THAT(names_in(folder.path()), IsEmpty());
}

TEST(AtomicFile, TwoWritersOfOnePathDoNotMix) {
  const TestFolder folder;
  AtomicFile first(folder / "f"), second(folder / "f");
  first.write("first");
  second.write("second");
  second.commit();
  first.commit();
  EXPECT_EQ(read_file(folder / "f"), "first");
}

TEST(AtomicFile, FollowsSymbolicLinks) {
  const TestFolder folder;
  write_file(folder / "real", "old");
  fs::create_symlink("real", folder / "link");
  write_file(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "real"), "new");
}

TEST(AtomicFile, NamesThePathThatCannotBeWritten) {
  const TestFolder folder;
  EXPECT_THAT(message_of([&] { write_file(folder.path(), "x"); }), HasSubstr("directory"));
  EXPECT_THAT(message_of([&] { write_file(folder / "no" / "f", "x"); }),
              testing::AllOf(HasSubstr("/no/f"), HasSubstr("No such file")));
}

TEST(AtomicFile, FullDeviceIsAnError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "this machine has no /dev/full";
  EXPECT_THAT(message_of([] { write_file("/dev/full", "x"); }),
              HasSubstr("cannot write /dev/full: No space left on device"));
  EXPECT_TRUE(fs::is_character_file("/dev/full")) << "a device must not be replaced by a file";
  write_file("/dev/null", "x");
}

TEST(AtomicFile, SizeLimitIsAnErrorAndKeepsTheOldFile) {
  const TestFolder folder;
  write_file(folder / "f", "old");
  const int status = run_in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100000, 100000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message =
        message_of([&] { write_file(folder / "f", std::string(200000, 'x')); });
    return message.find("File too large") != std::string::npos ? 0 : 1;
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(read_file(folder / "f"), "old");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"f"});
}

TEST(AtomicFile, FullDiskIsAnErrorAndKeepsTheOldFile) {
  const TestFolder folder;
  constexpr int kCannotMount = 77;
  const int status = run_in_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
      return kCannotMount;
    }
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tiny", folder.path().c_str(), "tmpfs", 0, "size=64k") != 0) {
      return kCannotMount;
    }
    write_file(folder / "f", "old");
    const std::string message =
        message_of([&] { write_file(folder / "f", std::string(200000, 'x')); });
    if (message.find("No space left on device") == std::string::npos) return 1;
    if (read_file(folder / "f") != "old") return 2;
    return names_in(folder.path()).size() == 1 ? 0 : 3;
  });
  if (status == kCannotMount) GTEST_SKIP() << "needs the right to mount a tmpfs";
  EXPECT_EQ(status, 0);
}

/// Starts a child that calls `save` with a function to call when it is half-way, kills it there.
void kill_in_the_middle(const std::function<void(const std::function<void()>&)>& save) {
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  const pid_t process = ::fork();
  if (process == 0) {
    save([&] {
      if (::write(pipe_ends[1], "x", 1) == 1) ::pause();
    });
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(pipe_ends[0], &byte, 1), 1);
  ::kill(process, SIGKILL);
  ::waitpid(process, nullptr, 0);
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
}

TEST(AtomicFile, KilledSaveLeavesTheOldFileAndTheNextSaveCleansUp) {
  const TestFolder folder;
  write_file(folder / "f", "old");
  write_file(folder / "f.tmp-notes", "the user's own");
  kill_in_the_middle([&](const std::function<void()>& half_way) {
    AtomicFile file(folder / "f");
    file.write(std::string(100000, 'x'));
    half_way();
  });
  EXPECT_EQ(read_file(folder / "f"), "old");
  EXPECT_EQ(names_in(folder.path()).size(), 3u);
  write_file(folder / "f", "new");
  EXPECT_EQ(read_file(folder / "f"), "new");
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"f", "f.tmp-notes"}));
}

TEST(AtomicFolder, SwapsAWholeFolder) {
  const TestFolder folder;
  for (const std::string text : {"one", "two"}) {
    AtomicFolder save(folder / "runs" / "save");
    write_file(save.staging() / "weights", text);
    fs::create_directory(save.staging() / "deep");
    write_file(save.staging() / "deep" / text, text);
    save.commit();
    EXPECT_EQ(read_file(folder / "runs" / "save" / "weights"), text);
    EXPECT_EQ(names_in(folder / "runs" / "save" / "deep"), std::vector<std::string>{text});
    EXPECT_EQ(names_in(folder / "runs"), std::vector<std::string>{"save"});
  }
}

TEST(AtomicFolder, WithoutCommitTheOldOneStays) {
  const TestFolder folder;
  fs::create_directory(folder / "save");
  write_file(folder / "save" / "weights", "old");
  write_file(AtomicFolder(folder / "save").staging() / "weights", "new");
  EXPECT_EQ(read_file(folder / "save" / "weights"), "old");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"save"});
}

TEST(AtomicFolder, RefusesToReplaceAFile) {
  const TestFolder folder;
  write_file(folder / "file", "precious");
  EXPECT_THAT(message_of([&] { AtomicFolder save(folder / "file"); }),
              HasSubstr("Not a directory"));
  EXPECT_THROW(AtomicFolder("/"), IoError);
  EXPECT_EQ(read_file(folder / "file"), "precious");
}

TEST(AtomicFolder, KilledSaveLeavesTheOldFolderAndTheNextSaveCleansUp) {
  const TestFolder folder;
  fs::create_directory(folder / "save");
  write_file(folder / "save" / "weights", "old");
  kill_in_the_middle([&](const std::function<void()>& half_way) {
    AtomicFolder save(folder / "save");
    write_file(save.staging() / "weights", "new");
    half_way();
  });
  EXPECT_EQ(read_file(folder / "save" / "weights"), "old");
  AtomicFolder(folder / "save").commit();
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"save"});
  EXPECT_THAT(names_in(folder / "save"), IsEmpty());
}

TEST(AtomicFolder, PutsBackAFolderThatAKilledSaveMovedAway) {
  const TestFolder folder;
  const int process = run_in_child([&] {
    const fs::path moved = folder.path() / fmt::format("save.old-{}-0", ::getpid());
    fs::create_directory(moved);
    write_file(moved / "weights", "old");
    return 0;
  });
  ASSERT_EQ(process, 0);
  { AtomicFolder save(folder / "save"); }
  EXPECT_EQ(read_file(folder / "save" / "weights"), "old");
}

}  // namespace
}  // namespace cadre
