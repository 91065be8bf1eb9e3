#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>

namespace resrt {

// Bytes at an address that suits any vector instruction. Copies share the memory, which is returned
// to the system when the last of them is destroyed.
class Bytes {
 public:
  static constexpr size_t kAlignment = 64;

  Bytes() = default;
  explicit Bytes(size_t size)
      : data_(static_cast<char*>(::operator new(size, kAlign)),
              [](char* data) { ::operator delete(data, kAlign); }),
        size_(size) {}
  explicit Bytes(std::string_view content) : Bytes(content.size()) {
    if (!content.empty()) std::memcpy(data(), content.data(), content.size());
  }

  char* data() { return data_.get(); }
  const char* data() const { return data_.get(); }
  size_t size() const { return size_; }
  std::string_view view() const { return {data_.get(), size_}; }

 private:
  static constexpr std::align_val_t kAlign{kAlignment};

  std::shared_ptr<char> data_;
  size_t size_ = 0;
};

}  // namespace resrt
