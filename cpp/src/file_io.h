#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "resrt/export.h"

namespace resrt {

// Owns a file descriptor, which is negative if the file could not be opened.
class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

// A file that is read from its beginning to its end. The constructor and `read` throw FileError,
// also if it is not a regular file.
class RESRT_API InputFile {
 public:
  explicit InputFile(std::string path);

  uint64_t left() const { return left_; }  // bytes that are not read yet
  // Reads `size` bytes from `offset` bytes after what was read so far, without counting them as
  // read. Returns how many there were, if those are fewer. May be called from several threads at
  // once.
  uint64_t peek(char* bytes, uint64_t size, uint64_t offset = 0) const;
  void skip(uint64_t size);
  // Returns the next bytes, or all that are left if those are fewer.
  std::string read(uint64_t most);
  // Whether the file was overwritten or truncated since it was opened, so that what was read may be
  // of two versions.
  bool has_changed() const;

 private:
  std::string path_;
  Descriptor descriptor_;
  struct stat opened_{};
  uint64_t offset_ = 0;
  uint64_t left_ = 0;
};

// Reads a whole file. Throws FileError.
RESRT_API std::string read_file(const std::string& path);

// Writes the parts one after another to a temporary file next to `path` and renames it, so `path`
// always holds a complete file, the old one or the new one. If this fails, the temporary file is
// removed. Follows symbolic links and keeps the permissions of an existing file. If `path` is a
// device or a pipe, the parts are written into it. If `stop` is given, it is called again and again
// and says whether to fail instead of writing the rest. Throws FileError.
RESRT_API void write_file_atomically(const std::string& path,
                                     const std::vector<std::string_view>& parts,
                                     const std::function<bool()>& stop = {});

}  // namespace resrt
