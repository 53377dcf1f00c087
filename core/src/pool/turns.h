// SPDX-License-Identifier: Apache-2.0
// The page cache's mutex, and who is inside, who waits, and whose turn it is.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>

#include "perennial/storage/mutex.h"

namespace perennial {

// Those inside are callers that hold pins or gather them. Going in and out takes no lock while
// nobody waits for anything.
//
// Invariants:
// - Who wants to be alone, or to begin a commit's epoch, closes the gate first and then waits for
//   those inside to leave; who goes in counts himself first and then looks at the gate. Both with
//   sequential consistency: either he sees the last one leave, or that one sees him wait.
// - Whoever is inside leaves without waiting for one who is not: nobody asks for pins while he
//   holds some, and one who finds no frame lets go of everything before he waits.
// - Every change that somebody may wait for is followed by notify().
class Turns {
 public:
  using Clock = std::chrono::steady_clock;

  storage::Mutex mutex;  // of the whole cache; never held over input, output, filling or copying

  // Waits until anything at all happens, which notify() says.
  void wait() PERENNIAL_REQUIRES(mutex);
  void notify() PERENNIAL_REQUIRES(mutex);
  bool somebody_waits() const { return waiting_.load() > 0; }

  // Goes in, or waits for the end of what must be alone. `writes`: as one that changes pages, which
  // the beginning of an epoch excludes. `own_turn`: by the one whose turn it is.
  void enter(bool writes, bool own_turn) PERENNIAL_EXCLUDES(mutex);
  void leave(bool writes) PERENNIAL_EXCLUDES(mutex);
  // Goes in and out for a look that waits for nobody, also of one who holds pins.
  class Visit;

  // Until admit_all(), nobody is inside and no job runs: waits for that, and others wait for its
  // end.
  void be_alone() PERENNIAL_REQUIRES(mutex);
  void admit_all() PERENNIAL_REQUIRES(mutex);
  // The same of those who write.
  void exclude_writers() PERENNIAL_REQUIRES(mutex);
  void admit_writers() PERENNIAL_REQUIRES(mutex);
  // Somebody waits for something that work in the background would delay.
  bool closed() const { return gate_.load() != 0; }
  bool alone() const { return (gate_.load() & kAlone) != 0; }

  // The turn of one who is not inside and found no frame: nobody new comes in while it lasts.
  class Turn;

  // Work in the background, queued or running.
  void begin_job() PERENNIAL_REQUIRES(mutex) { ++jobs_; }
  void end_job() PERENNIAL_REQUIRES(mutex);
  std::uint32_t jobs() const PERENNIAL_REQUIRES(mutex) { return jobs_; }

  // Calls that had to wait, and how long in all.
  void count_wait(Clock::time_point start);
  std::uint64_t waits() const { return waits_.load(); }
  std::uint64_t wait_ns() const { return wait_ns_.load(); }

 private:
  static constexpr std::uint32_t kAlone = 1, kTurn = 2, kEpoch = 4;

  void close(std::uint32_t reason) { gate_ |= reason; }
  void open(std::uint32_t reason) PERENNIAL_REQUIRES(mutex) {
    gate_ &= ~reason;
    notify();
  }

  std::atomic<std::uint32_t> gate_ = 0;  // why it is closed
  std::atomic<std::uint32_t> waiting_ = 0;
  std::atomic<std::uint64_t> inside_ = 0;
  std::atomic<std::uint64_t> writing_ = 0;  // of these
  std::mutex turn_;                         // held by the one whose turn it is
  storage::Condition happened_;
  std::uint64_t events_ PERENNIAL_GUARDED_BY(mutex) = 0;
  std::uint32_t jobs_ PERENNIAL_GUARDED_BY(mutex) = 0;
  std::atomic<std::uint64_t> waits_ = 0, wait_ns_ = 0;
};

class Turns::Visit {
 public:
  explicit Visit(Turns& turns) : turns_(turns) { ++turns_.inside_; }
  ~Visit();
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

 private:
  Turns& turns_;
};

class Turns::Turn {
 public:
  explicit Turn(Turns& turns);
  ~Turn();
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  // Goes in for one more try.
  void enter(bool writes);
  // Leaves after a try that failed, and waits until anything but that has happened since enter().
  void retreat(bool writes);

 private:
  Turns& turns_;
  std::lock_guard<std::mutex> one_at_a_time_;
  Clock::time_point start_;
  std::uint64_t seen_ = 0;
};

}  // namespace perennial
