#include "file_io.h"

#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <gtest/gtest.h>
#include <set>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "resrt/error.h"

namespace resrt::test {
namespace {

namespace fs = std::filesystem;

// In a folder of its own, with a path to write to.
class WriteFile : public testing::Test {
 protected:
  WriteFile() {
    std::string pattern = fs::temp_directory_path() / "resrt-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    output_ = folder_ / "output";
  }
  ~WriteFile() override {
    fs::permissions(folder_, fs::perms::owner_all);
    fs::remove_all(folder_);
  }

  static void write(const fs::path& path, std::string_view bytes) {
    write_file_atomically(path, {bytes.substr(0, 1), bytes.substr(1)});
  }
  static mode_t mode(const fs::path& path) {
    struct stat status{};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return status.st_mode & 07777U;
  }
  std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      found.insert(entry.path().lexically_relative(folder_));
    }
    return found;
  }

  fs::path folder_;
  fs::path output_;
};

using Names = std::set<std::string>;

TEST_F(WriteFile, CreatesAndReplaces) {
  for (const char* content : {"created", "replaced"}) {
    write(output_, content);
    EXPECT_EQ(read_file(output_), content);
    EXPECT_EQ(names(), Names({"output"}));
  }
  const std::string longest(255, 'n');
  write(folder_ / longest, "any name that the file system takes");
  EXPECT_EQ(names(), Names({"output", longest}));
}

TEST_F(WriteFile, AcceptsANameWithoutAFolder) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  write("output", "here");
  fs::current_path(before);
  EXPECT_EQ(read_file(output_), "here");
}

TEST_F(WriteFile, FollowsLinksEvenToAMissingFile) {
  const fs::path target = folder_ / "sub" / "target";
  fs::create_directory(target.parent_path());
  fs::create_symlink(target, folder_ / "absolute");
  fs::create_symlink("absolute", output_);
  for (const char* content : {"created", "replaced"}) {
    write(output_, content);
    EXPECT_TRUE(fs::is_symlink(output_));
    EXPECT_TRUE(fs::is_symlink(folder_ / "absolute"));
    EXPECT_FALSE(fs::is_symlink(target));
    EXPECT_EQ(read_file(target), content);
    EXPECT_EQ(names(), Names({"absolute", "output", "sub", "sub/target"}));
  }
}

TEST_F(WriteFile, RejectsALoopOfLinks) {
  fs::create_symlink("output", output_);
  EXPECT_THROW(write(output_, "text"), FileError);
  EXPECT_EQ(names(), Names({"output"}));
}

TEST_F(WriteFile, KeepsPermissions) {
  const mode_t umask = ::umask(027);
  write(output_, "text");
  ::umask(umask);
  EXPECT_EQ(mode(output_), 0640U);
  for (const mode_t wanted : {0600U, 0755U, 0666U}) {
    ::chmod(output_.c_str(), wanted);
    write(output_, "text");
    EXPECT_EQ(mode(output_), wanted);
  }
}

TEST_F(WriteFile, IsNeverReadableForOthersIfTheOldFileWasNot) {
  write(output_, "old");
  ::chmod(output_.c_str(), 0600);
  int checked = 0;
  write_file_atomically(output_, {"new"}, [&] {
    for (const std::string& name : names()) {
      if (name == "output") continue;
      EXPECT_EQ(mode(folder_ / name), 0600U) << name;
      ++checked;
    }
    return false;
  });
  EXPECT_GT(checked, 0);
  EXPECT_EQ(read_file(output_), "new");
}

TEST_F(WriteFile, KeepsTheOwner) {
  if (::getuid() != 0) GTEST_SKIP() << "only root may give a file away";
  constexpr uid_t user = 12345;
  constexpr gid_t group = 23456;
  write(output_, "old");
  ASSERT_EQ(::chown(output_.c_str(), user, group), 0);
  write(output_, "new");
  struct stat status{};
  ASSERT_EQ(::stat(output_.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, user);
  EXPECT_EQ(status.st_gid, group);
}

TEST_F(WriteFile, WritesIntoAPipe) {
  ASSERT_EQ(::mkfifo(output_.c_str(), 0600), 0);
  const std::string sent(1 << 20, 'x');
  std::string received;
  {
    const std::jthread reader([&] {
      std::ifstream pipe(output_, std::ios::binary);
      received = {std::istreambuf_iterator<char>(pipe), {}};
    });
    try {
      write(output_, sent);
    } catch (const FileError& error) {
      ADD_FAILURE() << error.what();
      ::close(::open(output_.c_str(), O_WRONLY));  // ends the reader
    }
  }
  EXPECT_EQ(received, sent);
  EXPECT_TRUE(fs::is_fifo(output_));
  EXPECT_EQ(names(), Names({"output"}));
}

// Such as /dev/stdout, whose link's text is not a path.
TEST_F(WriteFile, WritesIntoAnOpenDescriptor) {
  int ends[2] = {};
  ASSERT_EQ(::pipe2(ends, O_NONBLOCK), 0);
  write("/proc/self/fd/" + std::to_string(ends[1]), "text");
  char received[8] = {};
  EXPECT_EQ(::read(ends[0], received, sizeof received), 4);
  EXPECT_STREQ(received, "text");
  ::close(ends[0]);
  ::close(ends[1]);
}

// Other nodes than /dev/null and /dev/full, because a failure of this test could remove those.
// As the standard output of a command that is appended to a log.
TEST_F(WriteFile, ContinuesAFileThatIsAnOpenDescriptor) {
  const int file = ::open(output_.c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_GE(file, 0);
  EXPECT_EQ(::write(file, "old ", 4), 4);
  write("/dev/fd/" + std::to_string(file), "new ");
  EXPECT_EQ(::write(file, "newest", 6), 6);
  ::close(file);
  EXPECT_EQ(read_file(output_), "old new newest");
}

TEST_F(WriteFile, WritesIntoADevice) {
  const fs::path full = folder_ / "full";
  if (::mknod(output_.c_str(), S_IFCHR | 0666, ::makedev(1, 3)) != 0 ||
      ::mknod(full.c_str(), S_IFCHR | 0666, ::makedev(1, 7)) != 0 || !std::ofstream(output_)) {
    GTEST_SKIP() << "requires permission to create and open device files";
  }
  write(output_, "text");
  EXPECT_THROW(write(full, "text"), FileError);
  EXPECT_TRUE(fs::is_character_file(output_));
  EXPECT_TRUE(fs::is_character_file(full));
  EXPECT_EQ(names(), Names({"full", "output"}));
}

TEST_F(WriteFile, RejectsAFolder) {
  fs::create_directory(output_);
  EXPECT_THROW(write(output_, "text"), FileError);
  EXPECT_THROW(write(folder_ / "missing" / "output", "text"), FileError);
  EXPECT_EQ(names(), Names({"output"}));
}

// A file that another process left behind does not block later ones, whatever their process IDs.
TEST_F(WriteFile, IsNotBlockedByFilesThatWereLeftBehind) {
  const std::string pid = std::to_string(::getpid());
  for (int counter = 0; counter < 100; ++counter) {
    std::ofstream(output_.string() + "." + pid + "-" + std::to_string(counter) + ".tmp") << "half";
  }
  write(output_, "text");
  EXPECT_EQ(read_file(output_), "text");
  EXPECT_EQ(names().size(), 101U);
}

TEST_F(WriteFile, NamesTheTemporaryFileAsThePythonPackageDoes) {
  const std::string name = std::string(99, 'n') + "\u00e9";  // two bytes, at 99 and 100
  const std::string content(1 << 20, 'x');
  // A limit of the file's size leaves the process no time to remove the temporary file.
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit limit = {1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);  // writing more ends the process
    write_file_atomically(folder_ / name, {content});
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(names().size(), 1U);
  const std::string temporary = *names().begin();
  EXPECT_EQ(temporary.substr(0, 101), "." + std::string(99, 'n') + ".");
  EXPECT_EQ(temporary.substr(117), ".tmp");
  EXPECT_EQ(temporary.find_first_not_of("0123456789abcdef", 101), 117U);
}

TEST_F(WriteFile, RemovesTheTemporaryFileIfItFails) {
  write(output_, "old");
  const std::string content(1 << 20, 'x');
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit = {1000, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_THROW(write(output_, content), FileError);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_file(output_), "old");
  EXPECT_EQ(names(), Names({"output"}));
}

TEST_F(WriteFile, RemovesTheTemporaryFileIfItIsStopped) {
  write(output_, "old");
  const std::string content(20 << 20, 'x');
  int calls = 0;
  const auto count = [&](const std::function<bool()>& stop) {
    calls = 0;
    write_file_atomically(output_, {content}, [&] { return ++calls, stop(); });
  };
  for (const int last : {1, 2}) {
    EXPECT_THROW(count([&] { return calls == last; }), FileError);
    EXPECT_EQ(calls, last);
    EXPECT_EQ(read_file(output_), "old");
    EXPECT_EQ(names(), Names({"output"}));
  }
  // A file of this size is written in three parts, synced and renamed.
  count([] { return false; });
  EXPECT_EQ(calls, 5);
  EXPECT_EQ(read_file(output_), content);
  write(output_, "old");
  EXPECT_THROW(count([&] { return calls == 5; }), FileError);
  EXPECT_EQ(read_file(output_), "old");
  EXPECT_EQ(names(), Names({"output"}));
}

TEST_F(WriteFile, SucceedsInAFolderThatIsNotReadable) {
  fs::permissions(folder_, fs::perms::owner_write | fs::perms::owner_exec);
  write(output_, "text");
  fs::permissions(folder_, fs::perms::owner_all);
  EXPECT_EQ(read_file(output_), "text");
}

TEST_F(WriteFile, ThreadsWithTheSameOutputDoNotCollide) {
  const std::string contents[] = {std::string(1 << 20, 'a'), std::string(1 << 20, 'b')};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&, i] { write(output_, contents[i % 2]); });
    }
  }
  const std::string found = read_file(output_);
  EXPECT_TRUE(found == contents[0] || found == contents[1]);
  EXPECT_EQ(names(), Names({"output"}));
}

// Also if it was written an instant before it is read.
TEST_F(WriteFile, AFileThatIsOverwrittenWhileItIsReadHasChanged) {
  for (int i = 0; i < 10; ++i) {
    std::ofstream(output_) << "12345678";
    InputFile file(output_);
    EXPECT_EQ(file.read(4), "1234");
    EXPECT_FALSE(file.has_changed());
    std::fstream(output_, std::ios::in | std::ios::out) << "abcdefgh";
    EXPECT_TRUE(file.has_changed());
  }
}

TEST_F(WriteFile, AFileThatIsTruncatedHasChangedAndOneThatGrowsHasNot) {
  std::ofstream(output_) << "12345678";
  InputFile file(output_);
  std::ofstream(output_, std::ios::app) << "9";
  EXPECT_FALSE(file.has_changed());
  fs::resize_file(output_, 7);
  EXPECT_TRUE(file.has_changed());
}

}  // namespace
}  // namespace resrt::test
