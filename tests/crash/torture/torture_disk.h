// SPDX-License-Identifier: Apache-2.0
// The disk of the torture harness: fails or loses power at a chosen operation, and can be told to
// break a promise.
#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "disk_model.h"

namespace perennial::storage::testing {

// What happens at the chosen operation.
enum class Trouble {
  none,
  power_cut,     // it and all that follow fail and change nothing
  io_error,      // a change fails
  no_space,      // a change fails
  short_write,   // part of an append is written, then the disk is full
  little_space,  // the file system says that it is nearly full
  read_error,    // a read fails
  short_read,    // a read returns part of what was asked
};

// A promise broken on purpose: the harness has to notice.
enum class Mutant {
  none,
  skip_table_sync,     // table files
  skip_folder_sync,    // folders
  skip_manifest_sync,  // manifests
  skip_current_sync,   // the file that becomes CURRENT
  hide_write_errors,   // failed changes report success
  acknowledge_early,   // the oracle is told before the step is over (by the harness itself)
};

struct MutantName {
  Mutant mutant;
  std::string_view name;
};
inline constexpr std::array<MutantName, 6> kMutants = {{
    {Mutant::skip_table_sync, "skip_table_sync"},
    {Mutant::skip_folder_sync, "skip_folder_sync"},
    {Mutant::skip_manifest_sync, "skip_manifest_sync"},
    {Mutant::skip_current_sync, "skip_current_sync"},
    {Mutant::hide_write_errors, "hide_write_errors"},
    {Mutant::acknowledge_early, "acknowledge_early"},
}};

// State shared by the file system and its files. Thread-safe: RocksDB may work in the background.
class TortureDisk {
 public:
  TortureDisk(const std::filesystem::path& root, const std::filesystem::path& vault, Mutant mutant)
      : model_(root, vault), mutant_(mutant) {}

  // The `operation`-th change (or read, for a trouble of reads) from now on meets `trouble`; with
  // `for_good` all after it do too. `seed` decides what a power cut leaves.
  void arm(Trouble trouble, std::uint64_t operation, bool for_good, std::uint64_t seed);
  void disarm();
  bool hit() const;
  // Power fails now.
  void cut(std::uint64_t seed);
  // After a cut, when the store is gone: what the disk holds when the power is back.
  void power_on();

  // For the file system. A change runs under `lock`, so that the model sees the order of the disk.
  std::unique_lock<std::mutex> lock() const { return std::unique_lock(mutex_); }
  DiskModel& model() { return model_; }
  // Counts a change; ok if it is to be made. `half` is set for a short write.
  rocksdb::IOStatus change(bool* half = nullptr);
  rocksdb::IOStatus read(bool* half = nullptr);
  rocksdb::IOStatus powered() const;
  bool skips_sync_of(const std::string& path) const;
  bool skips_folder_sync() const { return mutant_ == Mutant::skip_folder_sync; }
  bool hides_errors() const { return mutant_ == Mutant::hide_write_errors; }
  bool little_space();

 private:
  bool due(bool is_read);

  mutable std::mutex mutex_;
  DiskModel model_;
  Mutant mutant_;
  Trouble trouble_ = Trouble::none;
  std::uint64_t countdown_ = 0;
  bool for_good_ = false;
  std::uint64_t seed_ = 0;
  bool hit_ = false;
  bool off_ = false;
};

// An Env whose files are on `disk`, which must outlive it. Nothing is really synced: only a cut of
// the real power could tell.
std::unique_ptr<rocksdb::Env> make_torture_env(TortureDisk& disk);

}  // namespace perennial::storage::testing
