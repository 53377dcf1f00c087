// SPDX-License-Identifier: Apache-2.0
// DbGate: lets many threads use a database handle that one thread may take away and replace.
#pragma once

#include <rocksdb/db.h>

#include <utility>

#include "perennial/storage/mutex.h"

namespace perennial::storage {

// Thread-safe; shut(), drain() and open() are for the thread that owns the handle. A shared_mutex
// would not do: readers that keep coming may keep its writer waiting for ever.
class DbGate {
 public:
  // Keeps the handle from being closed while it lives. Empty when the database is closed.
  class Use {
   public:
    Use(const DbGate* gate, rocksdb::DB* db) : gate_(gate), db_(db) {}
    Use(Use&& other) noexcept : gate_(other.gate_), db_(std::exchange(other.db_, nullptr)) {}
    Use& operator=(Use&&) = delete;
    ~Use() {
      if (db_ != nullptr) gate_->leave();
    }
    explicit operator bool() const { return db_ != nullptr; }
    rocksdb::DB& operator*() const { return *db_; }
    rocksdb::DB* operator->() const { return db_; }

   private:
    const DbGate* gate_;
    rocksdb::DB* db_;
  };

  // Waits while the handle is being replaced.
  Use enter() const {
    const MutexLock lock(mutex_);
    // Who is inside already (a read within a read) must not wait for those who wait for it.
    const bool nested = inside_ > 0;
    while (shut_ && !(nested && db_ != nullptr)) changed_.wait(mutex_);
    if (db_ == nullptr) return {this, nullptr};
    ++users_;
    ++inside_;
    return {this, db_};
  }

  // From now on newcomers wait.
  void shut() {
    const MutexLock lock(mutex_);
    shut_ = true;
  }
  // Waits until nobody uses the handle, which may then be closed.
  void drain() {
    const MutexLock lock(mutex_);
    while (users_ > 0) changed_.wait(mutex_);
    db_ = nullptr;
  }
  // Lets those who wait in; nullptr: they find the database closed.
  void open(rocksdb::DB* db) {
    {
      const MutexLock lock(mutex_);
      db_ = db;
      shut_ = false;
    }
    changed_.notify_all();
  }

 private:
  void leave() const {
    --inside_;
    bool last = false;
    {
      const MutexLock lock(mutex_);
      last = --users_ == 0 && shut_;
    }
    if (last) changed_.notify_all();
  }

  static inline thread_local int inside_ = 0;  // of any gate

  mutable Mutex mutex_;
  mutable Condition changed_;
  rocksdb::DB* db_ PERENNIAL_GUARDED_BY(mutex_) = nullptr;
  mutable int users_ PERENNIAL_GUARDED_BY(mutex_) = 0;
  bool shut_ PERENNIAL_GUARDED_BY(mutex_) = false;
};

}  // namespace perennial::storage
