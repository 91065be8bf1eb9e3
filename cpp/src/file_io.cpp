#include "file_io.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <optional>
#include <random>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

[[noreturn]] void fail(const char* what, const std::string& path, int error) {
  throw FileError(concat("cannot ", what, " '", path, "': ", std::strerror(error)));
}

void check_stop(const std::function<bool()>& stop, const std::string& path) {
  if (stop && stop()) throw FileError(concat("writing '", path, "' was stopped by the caller"));
}

void write_all(const Descriptor& file, std::string_view bytes, const std::string& path,
               const std::function<bool()>& stop) {
  constexpr size_t most = size_t{8} << 20U;  // at once, which takes some hundredths of a second
  while (!bytes.empty()) {
    check_stop(stop, path);
    const ssize_t written = ::write(file.get(), bytes.data(), std::min(most, bytes.size()));
    if (written < 0 && errno != EINTR) fail("write", path, errno);
    if (written > 0) bytes.remove_prefix(static_cast<size_t>(written));
  }
}

const timespec& modified(const struct stat& status) {
#if defined(__APPLE__)
  return status.st_mtimespec;
#else
  return status.st_mtim;
#endif
}

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Linux advances the clock for the times of modifications at least every 10 ms. Another
// modification in the same tick would leave the time as it is.
void wait_for_a_later_time(const timespec& modified) {
  constexpr int64_t tick = 10'000'000;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const int64_t age = nanoseconds(now) - nanoseconds(modified);
  if (0 <= age && age < tick) std::this_thread::sleep_for(std::chrono::nanoseconds(tick - age));
}

}  // namespace

InputFile::InputFile(std::string path)
    : path_(std::move(path)),
      descriptor_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (descriptor_.get() < 0 || ::fstat(descriptor_.get(), &opened_) != 0) {
    fail("read", path_, errno);
  }
  if (!S_ISREG(opened_.st_mode)) {
    throw FileError(concat("cannot read '", path_, "': it is not a regular file"));
  }
  left_ = static_cast<uint64_t>(opened_.st_size);
  wait_for_a_later_time(modified(opened_));
}

uint64_t InputFile::peek(char* bytes, uint64_t size, uint64_t offset) const {
  uint64_t filled = 0;
  while (filled < size) {
    const ssize_t count = ::pread(descriptor_.get(), bytes + filled, size - filled,
                                  static_cast<off_t>(offset_ + offset + filled));
    if (count < 0 && errno != EINTR) fail("read", path_, errno);
    if (count == 0) break;
    if (count > 0) filled += static_cast<uint64_t>(count);
  }
  return filled;
}

void InputFile::skip(uint64_t size) {
  offset_ += size;
  left_ -= std::min(left_, size);
}

std::string InputFile::read(uint64_t most) {
  std::string bytes(std::min(most, left_), '\0');
  const uint64_t found = peek(bytes.data(), bytes.size());
  skip(found < bytes.size() ? left_ : found);  // a shorter file has nothing left
  bytes.resize(found);
  return bytes;
}

bool InputFile::has_changed() const {
  struct stat now{};
  if (::fstat(descriptor_.get(), &now) != 0) fail("read", path_, errno);
  return now.st_size < opened_.st_size ||
         (now.st_size == opened_.st_size &&
          nanoseconds(modified(now)) != nanoseconds(modified(opened_)));
}

std::string read_file(const std::string& path) {
  InputFile file(path);
  return file.read(file.left());
}

namespace {

namespace fs = std::filesystem;

// Follows symbolic links, which must not form a loop, also to a file that does not exist. Renaming
// over a link would replace the link itself.
fs::path follow_links(fs::path path) {
  std::error_code error;
  while (fs::is_symlink(path, error)) {
    const fs::path target = fs::read_symlink(path, error);
    if (error) break;
    path = path.parent_path() / target;  // which is the target alone if it is absolute
  }
  return path;
}

// Returns the number of the process's own stream that a path such as /dev/stdout names. Writing to
// it continues where the stream is, also if it is redirected to a file.
std::optional<int> own_stream(std::string_view path) {
  if (path == "/dev/stdin") return 0;
  if (path == "/dev/stdout") return 1;
  if (path == "/dev/stderr") return 2;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!path.starts_with(folder)) continue;
    const std::string_view digits = path.substr(folder.size());
    int number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error == std::errc() && end == digits.data() + digits.size()) return number;
  }
  return std::nullopt;
}

// Returns at most that many bytes, without cutting a character of UTF-8.
std::string_view shortened(std::string_view name, size_t most) {
  if (name.size() <= most) return name;
  const auto continues = [](char byte) { return (static_cast<unsigned char>(byte) >> 6U) == 2; };
  while (most > 0 && continues(name[most])) --most;
  return name.substr(0, most);
}

// A file next to `target` that does not exist yet, under a name like those that the Python package
// gives, with these permissions less what the umask forbids. The destructor removes it unless it
// was renamed.
class Temporary {
 public:
  Temporary(const fs::path& target, mode_t mode) {
    constexpr size_t most_of_the_name = 100;
    const std::string name = target.filename();
    std::random_device random;
    do {
      char digits[17] = {};
      std::snprintf(digits, sizeof digits, "%08x%08x", random(), random());
      path_ = target.parent_path() /
              concat(".", shortened(name, most_of_the_name), ".", digits, ".tmp");
      file_ = Descriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    } while (file_.get() < 0 && errno == EEXIST);
  }
  ~Temporary() {
    if (file_.get() >= 0 && !renamed_) ::unlink(path_.c_str());
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;

  const Descriptor& file() const { return file_; }
  bool rename(const fs::path& target) {
    renamed_ = std::rename(path_.c_str(), target.c_str()) == 0;
    return renamed_;
  }

 private:
  fs::path path_;
  Descriptor file_{-1};
  bool renamed_ = false;
};

// Gives a file the owner, as far as this process may, and the permissions of another.
void copy_owner_and_mode(const struct stat& status, int file, const std::string& path) {
  constexpr auto unchanged_user = static_cast<uid_t>(-1);
  constexpr auto unchanged_group = static_cast<gid_t>(-1);
  if ((::fchown(file, unchanged_user, status.st_gid) != 0 && errno != EPERM) ||
      (::fchown(file, status.st_uid, unchanged_group) != 0 && errno != EPERM) ||
      ::fchmod(file, status.st_mode & 07777U) != 0) {  // last, as fchown clears some of them
    fail("write", path, errno);
  }
}

// Makes a renaming durable. Some file systems cannot do so for a folder, and a folder may be
// writable but not readable; the file is there all the same.
void sync_folder(const fs::path& folder, const std::string& path) {
  const char* name = folder.empty() ? "." : folder.c_str();
  const Descriptor descriptor(::open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.get() < 0) return;
  if (::fsync(descriptor.get()) != 0 && errno != EINVAL && errno != ENOTSUP) {
    fail("write", path, errno);
  }
}

}  // namespace

void write_file_atomically(const std::string& path, const std::vector<std::string_view>& parts,
                           const std::function<bool()>& stop) {
  struct stat status{};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  if (!exists && errno != ENOENT) fail("write", path, errno);
  const std::optional<int> own = own_stream(path);
  if (own || (exists && !S_ISREG(status.st_mode))) {
    const Descriptor stream(own ? ::dup(*own) : ::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (stream.get() < 0) fail("write", path, errno);
    for (const std::string_view part : parts) write_all(stream, part, path, stop);
    return;
  }
  const fs::path target = follow_links(path);
  constexpr mode_t all = 0666;
  // Nobody else may read meanwhile what is secret, but this process must write.
  Temporary temporary(target, exists ? (status.st_mode & all) | 0600U : all);
  const int file = temporary.file().get();
  if (file < 0) fail("write", path, errno);
  if (exists) copy_owner_and_mode(status, file, path);
  for (const std::string_view part : parts) write_all(temporary.file(), part, path, stop);
  check_stop(stop, path);
  if (::fsync(file) != 0) fail("write", path, errno);
  check_stop(stop, path);
  if (!temporary.rename(target)) fail("write", path, errno);
  sync_folder(target.parent_path(), path);
}

}  // namespace resrt
