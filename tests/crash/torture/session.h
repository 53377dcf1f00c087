// SPDX-License-Identifier: Apache-2.0
// A session of the torture harness: cycles of one kind on one store, in a process of their own.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "rocksdb_store_internal.h"
#include "steps.h"
#include "torture_disk.h"

namespace perennial::storage::testing {

// What went wrong; ends the session.
class Loss : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Session {
  std::uint64_t seed = 0;
  std::uint64_t cycles = 0;
  Mutant mutant = Mutant::none;
  std::filesystem::path folder;  // empty; the store is in folder / "store"

  std::function<void()> cycle_done;                  // called after each cycle
  std::function<void(std::string_view, int)> count;  // what cycles met, for the table

  std::filesystem::path store() const { return folder / "store"; }
};

struct KindOfTorture {
  std::string_view name;
  void (*run)(const Session&);  // throws Loss
  std::uint64_t share;          // of 100 cycles
  std::uint64_t cycles_per_store;
  std::uint32_t mutants;  // a bit for each Mutant that this kind has to catch
};

void run_kill_session(const Session& session);
void run_power_session(const Session& session);
void run_fault_session(const Session& session);
void run_flip_session(const Session& session);
void run_writers_session(const Session& session);

constexpr std::uint32_t bit(Mutant mutant) { return 1u << static_cast<unsigned>(mutant); }

inline constexpr std::array<KindOfTorture, 5> kKinds = {{
    {"kill", run_kill_session, 20, 20, bit(Mutant::acknowledge_early)},
    {"power", run_power_session, 40, 25,
     bit(Mutant::skip_table_sync) | bit(Mutant::skip_folder_sync) |
         bit(Mutant::skip_manifest_sync) | bit(Mutant::skip_current_sync) |
         bit(Mutant::acknowledge_early)},
    {"fault", run_fault_session, 30, 25, bit(Mutant::hide_write_errors)},
    {"flip", run_flip_session, 7, 10, 0},
    {"writers", run_writers_session, 3, 5, 0},
}};

// A second process (see writer.h) is this program with these arguments.
int run_writer(int argc, char** argv);

inline void require(bool holds, const std::string& otherwise) {
  if (!holds) throw Loss(otherwise);
}

// A store on a torture disk, opened and closed many times, and its oracle.
class TortureStore {
 public:
  explicit TortureStore(const Session& session)
      : session_(session),
        disk(session.store(), session.folder / "vault", session.mutant),
        env_(make_torture_env(disk)) {}

  Status open(OpenMode mode = OpenMode::either) {
    StoreSeam seam;
    seam.env = env_.get();
    auto opened =
        open_rocksdb_store_with(session_.store(), {.mode = mode, .full_table_every = 5}, seam);
    if (!opened.ok()) return opened.status();
    store = std::move(*opened);
    return {};
  }
  void close() { store.reset(); }

  // The next step in line, for the state that is expected.
  std::unique_ptr<Step> draw() { return draw_step(derive(session_.seed, next_step_++), expected); }
  // A step that must work.
  void take_step() {
    const std::unique_ptr<Step> step = draw();
    const Status status = step->run(*store);
    require(status.ok(), step->describe() + " failed without a fault: " + status.to_string());
    step->apply(expected);
  }
  void require_expected(const std::string& when) const {
    const Comparison found = compare(*store, expected);
    require(found.match == Match::same, when + ": " + found.why);
  }
  void require_sound(const std::string& when) const {
    const std::string failure = verify_failure(*store);
    require(failure.empty(), when + ": verify: " + failure);
  }
  // The state must be the expected one, or the one after `in_flight`, which is then expected.
  // True if it is the latter.
  bool settle(const Step* in_flight, const std::string& when) {
    const Comparison before = compare(*store, expected);
    if (before.match == Match::same) return false;
    require(in_flight != nullptr, when + ": " + before.why);
    Expected after = expected;
    in_flight->apply(after);
    const Comparison found = compare(*store, after);
    require(found.match == Match::same, when + ": neither before (" + before.why + ") nor after (" +
                                            found.why + ") " + in_flight->describe());
    expected = std::move(after);
    return true;
  }

 private:
  const Session& session_;

 public:
  TortureDisk disk;

 private:
  std::unique_ptr<rocksdb::Env> env_;
  std::uint64_t next_step_ = 0;

 public:
  Expected expected;
  std::unique_ptr<PageStore> store;
};

}  // namespace perennial::storage::testing
