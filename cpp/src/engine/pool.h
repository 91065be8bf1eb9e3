#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace resrt {

// Lends objects, each to one borrower at a time. Objects are created on demand up to a limit. A
// borrower waits while all of them are in use.
template <class T>
class Pool {
 public:
  using Make = std::function<std::unique_ptr<T>()>;

  Pool(Make make, size_t limit) : make_(std::move(make)), limit_(limit) {
    idle_.reserve(limit);  // so that giving back does not allocate, and so cannot throw
  }

  class Loan {
   public:
    Loan(Pool& pool, std::unique_ptr<T> object) : pool_(pool), object_(std::move(object)) {}
    ~Loan() { pool_.give_back(std::move(object_)); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    T* operator->() { return object_.get(); }
    T& operator*() { return *object_; }

   private:
    Pool& pool_;
    std::unique_ptr<T> object_;
  };

  Loan borrow() {
    std::unique_lock lock(mutex_);
    returned_.wait(lock, [&] { return !idle_.empty() || made_ < limit_; });
    if (!idle_.empty()) {
      std::unique_ptr<T> object = std::move(idle_.back());
      idle_.pop_back();
      return Loan(*this, std::move(object));
    }
    ++made_;
    lock.unlock();
    try {
      return Loan(*this, make_());
    } catch (...) {
      lock.lock();
      --made_;
      returned_.notify_one();
      throw;
    }
  }

 private:
  void give_back(std::unique_ptr<T> object) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(object));
    returned_.notify_one();
  }

  Make make_;
  size_t limit_;
  size_t made_ = 0;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<T>> idle_;
};

}  // namespace resrt
