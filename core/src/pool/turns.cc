// SPDX-License-Identifier: Apache-2.0
#include "pool/turns.h"

namespace perennial {

using storage::MutexLock;

void Turns::wait() {
  const std::uint64_t seen = events_;
  ++waiting_;
  while (events_ == seen) happened_.wait(mutex);
  --waiting_;
}

void Turns::notify() {
  ++events_;
  if (waiting_.load() > 0) happened_.notify_all();
}

void Turns::enter(bool writes, bool own_turn) {
  const std::uint32_t stop = kAlone | (own_turn ? 0 : kTurn) | (writes ? kEpoch : std::uint32_t{0});
  for (;;) {
    ++inside_;
    if (writes) ++writing_;
    if ((gate_.load() & stop) == 0) return;
    if (writes) --writing_;
    --inside_;
    const MutexLock lock(mutex);
    notify();
    if ((gate_.load() & stop) == 0) continue;
    const Clock::time_point start = Clock::now();
    while ((gate_.load() & stop) != 0) wait();
    count_wait(start);
  }
}

void Turns::leave(bool writes) {
  if (writes) --writing_;
  --inside_;
  if (closed() || somebody_waits()) {
    const MutexLock lock(mutex);
    notify();
  }
}

void Turns::be_alone() {
  while (alone()) wait();
  close(kAlone);
  ++waiting_;
  while (inside_.load() > 0 || jobs_ > 0) happened_.wait(mutex);
  --waiting_;
}

void Turns::admit_all() { open(kAlone); }

void Turns::exclude_writers() {
  close(kEpoch);
  ++waiting_;
  while (writing_.load() > 0) happened_.wait(mutex);
  --waiting_;
}

void Turns::admit_writers() { open(kEpoch); }

void Turns::end_job() {
  --jobs_;
  notify();
}

void Turns::count_wait(Clock::time_point start) {
  ++waits_;
  wait_ns_ += static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

Turns::Visit::~Visit() {
  --turns_.inside_;
  if (turns_.closed()) {
    const MutexLock lock(turns_.mutex);
    turns_.notify();
  }
}

Turns::Turn::Turn(Turns& turns) : turns_(turns), one_at_a_time_(turns.turn_), start_(Clock::now()) {
  turns_.close(kTurn);
  ++turns_.waiting_;
}

Turns::Turn::~Turn() {
  --turns_.waiting_;
  const MutexLock lock(turns_.mutex);
  turns_.open(kTurn);
  turns_.count_wait(start_);
}

void Turns::Turn::enter(bool writes) {
  {
    const MutexLock lock(turns_.mutex);
    seen_ = turns_.events_;
  }
  turns_.enter(writes, true);
}

void Turns::Turn::retreat(bool writes) {
  if (writes) --turns_.writing_;
  --turns_.inside_;
  const MutexLock lock(turns_.mutex);
  if (turns_.gate_.load() != kTurn) {  // to others leaving is an event
    turns_.notify();
    ++seen_;
  }
  while (turns_.events_ == seen_) turns_.happened_.wait(turns_.mutex);
}

}  // namespace perennial
