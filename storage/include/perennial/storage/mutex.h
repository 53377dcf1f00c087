// SPDX-License-Identifier: Apache-2.0
// A mutex whose use Clang checks (-Wthread-safety): marks say which mutex guards a field, and which
// a function needs. Other compilers see plain code.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>

#if defined(__clang__)
#define PERENNIAL_THREAD_SAFETY(mark) __attribute__((mark))
#else
#define PERENNIAL_THREAD_SAFETY(mark)
#endif
// A field that is only read and written under the mutex.
#define PERENNIAL_GUARDED_BY(mutex) PERENNIAL_THREAD_SAFETY(guarded_by(mutex))
// A function that is called under the mutex; it may let go of it meanwhile.
#define PERENNIAL_REQUIRES(mutex) PERENNIAL_THREAD_SAFETY(requires_capability(mutex))
// A function that takes the mutex itself.
#define PERENNIAL_EXCLUDES(mutex) PERENNIAL_THREAD_SAFETY(locks_excluded(mutex))

namespace perennial::storage {

class PERENNIAL_THREAD_SAFETY(capability("mutex")) Mutex {
 public:
  void lock() PERENNIAL_THREAD_SAFETY(acquire_capability()) { mutex_.lock(); }
  bool try_lock() PERENNIAL_THREAD_SAFETY(try_acquire_capability(true)) {
    return mutex_.try_lock();
  }
  void unlock() PERENNIAL_THREAD_SAFETY(release_capability()) { mutex_.unlock(); }

 private:
  friend class Condition;
  std::mutex mutex_;
};

// Holds a mutex while it lives.
class PERENNIAL_THREAD_SAFETY(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) PERENNIAL_THREAD_SAFETY(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  // Of one that the caller holds already.
  MutexLock(Mutex& mutex, std::adopt_lock_t) PERENNIAL_REQUIRES(mutex) : mutex_(mutex) {}
  ~MutexLock() PERENNIAL_THREAD_SAFETY(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Lets go of a mutex that the caller holds, while it lives.
class PERENNIAL_THREAD_SAFETY(scoped_lockable) MutexUnlock {
 public:
  explicit MutexUnlock(Mutex& mutex) PERENNIAL_THREAD_SAFETY(release_capability(mutex))
      : mutex_(mutex) {
    mutex_.unlock();
  }
  ~MutexUnlock() PERENNIAL_THREAD_SAFETY(release_capability()) { mutex_.lock(); }
  MutexUnlock(const MutexUnlock&) = delete;
  MutexUnlock& operator=(const MutexUnlock&) = delete;

 private:
  Mutex& mutex_;
};

// A mutex that any number of readers hold at once, or one writer.
class PERENNIAL_THREAD_SAFETY(capability("mutex")) SharedMutex {
 public:
  void lock() PERENNIAL_THREAD_SAFETY(acquire_capability()) { mutex_.lock(); }
  void unlock() PERENNIAL_THREAD_SAFETY(release_capability()) { mutex_.unlock(); }
  void lock_shared() PERENNIAL_THREAD_SAFETY(acquire_shared_capability()) { mutex_.lock_shared(); }
  void unlock_shared() PERENNIAL_THREAD_SAFETY(release_shared_capability()) {
    mutex_.unlock_shared();
  }

 private:
  std::shared_mutex mutex_;
};

// Holds it as the writer, while it lives.
class PERENNIAL_THREAD_SAFETY(scoped_lockable) WriterLock {
 public:
  explicit WriterLock(SharedMutex& mutex) PERENNIAL_THREAD_SAFETY(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~WriterLock() PERENNIAL_THREAD_SAFETY(release_capability()) { mutex_.unlock(); }
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  SharedMutex& mutex_;
};

// Holds it as a reader, while it lives.
class PERENNIAL_THREAD_SAFETY(scoped_lockable) ReaderLock {
 public:
  explicit ReaderLock(SharedMutex& mutex) PERENNIAL_THREAD_SAFETY(acquire_shared_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock_shared();
  }
  ~ReaderLock() PERENNIAL_THREAD_SAFETY(release_capability()) { mutex_.unlock_shared(); }
  ReaderLock(const ReaderLock&) = delete;
  ReaderLock& operator=(const ReaderLock&) = delete;

 private:
  SharedMutex& mutex_;
};

// Lets go of the mutex while it waits. Wakes may come without a reason: wait in a loop.
class Condition {
 public:
  void wait(Mutex& mutex) PERENNIAL_REQUIRES(mutex) {
    std::unique_lock lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  void wait_until(Mutex& mutex, std::chrono::steady_clock::time_point time)
      PERENNIAL_REQUIRES(mutex) {
    std::unique_lock lock(mutex.mutex_, std::adopt_lock);
    condition_.wait_until(lock, time);
    lock.release();
  }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace perennial::storage
