#include "file_io.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

[[noreturn]] void fail(const char* what, const std::string& path, int error) {
  throw FileError(concat("cannot ", what, " '", path, "': ", std::strerror(error)));
}

class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

void write_all(const Descriptor& file, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) fail("write", path, errno);
    if (written > 0) bytes.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace

std::string read_file(const std::string& path, size_t most) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) fail("read", path, errno);
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) fail("read", path, errno);
  if (!S_ISREG(status.st_mode)) {
    throw FileError(concat("cannot read '", path, "': it is not a regular file"));
  }
  std::string bytes(std::min(most, static_cast<size_t>(status.st_size)), '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t count = ::read(file.get(), bytes.data() + filled, bytes.size() - filled);
    if (count < 0 && errno != EINTR) fail("read", path, errno);
    if (count == 0) break;
    if (count > 0) filled += static_cast<size_t>(count);
  }
  bytes.resize(filled);
  return bytes;
}

namespace {

// Follows symbolic links, because renaming over a link would replace the link itself.
std::string resolve(const std::string& path) {
  std::error_code error;
  const std::filesystem::path resolved = std::filesystem::weakly_canonical(path, error);
  return error ? path : resolved.string();
}

}  // namespace

void write_file_atomically(const std::string& path, const std::vector<std::string_view>& parts) {
  const std::string target = resolve(path);
  struct stat status{};
  const bool exists = ::stat(target.c_str(), &status) == 0;
  if (exists && !S_ISREG(status.st_mode)) {
    throw FileError(concat("cannot write '", path, "': it exists and is not a regular file"));
  }
  static std::atomic<unsigned> counter{0};
  const std::string temporary = concat(target, ".", ::getpid(), "-", counter++, ".tmp");
  const Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (file.get() < 0) fail("write", path, errno);
  try {
    if (exists && ::fchmod(file.get(), status.st_mode & 07777U) != 0) fail("write", path, errno);
    for (const std::string_view part : parts) write_all(file, part, path);
    if (::fsync(file.get()) != 0) fail("write", path, errno);
    if (std::rename(temporary.c_str(), target.c_str()) != 0) fail("write", path, errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace resrt
