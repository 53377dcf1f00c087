// SPDX-License-Identifier: Apache-2.0
// TortureDisk: when an operation fails, and what breaks a promise.
#include "torture_disk.h"

namespace perennial::storage::testing {

using rocksdb::IOStatus;

void TortureDisk::arm(Trouble trouble, std::uint64_t operation, bool for_good, std::uint64_t seed) {
  const auto guard = lock();
  trouble_ = trouble;
  countdown_ = operation;
  for_good_ = for_good;
  seed_ = seed;
  hit_ = false;
}

void TortureDisk::disarm() {
  const auto guard = lock();
  trouble_ = Trouble::none;
}

bool TortureDisk::hit() const {
  const auto guard = lock();
  return hit_;
}

void TortureDisk::cut(std::uint64_t seed) {
  const auto guard = lock();
  if (off_) return;
  off_ = hit_ = true;
  Random random(seed);
  model_.freeze(random);
}

void TortureDisk::power_on() {
  const auto guard = lock();
  if (off_) model_.restore();
  off_ = false;
  trouble_ = Trouble::none;
}

IOStatus TortureDisk::powered() const {
  return off_ ? IOStatus::IOError("the power is off (injected)") : IOStatus::OK();
}

bool TortureDisk::due(bool is_read) {
  const bool of_reads = trouble_ == Trouble::read_error || trouble_ == Trouble::short_read;
  if (trouble_ == Trouble::none || trouble_ == Trouble::little_space || of_reads != is_read) {
    return false;
  }
  if (countdown_ > 1) {
    --countdown_;
    return false;
  }
  if (countdown_ == 0) return false;
  if (!for_good_) countdown_ = 0;
  hit_ = true;
  return true;
}

IOStatus TortureDisk::change(bool* half) {
  if (!due(false)) return powered();
  switch (trouble_) {
    case Trouble::power_cut: {
      if (!off_) {
        off_ = true;
        Random random(seed_);
        model_.freeze(random);
      }
      return powered();
    }
    case Trouble::io_error:
      return IOStatus::IOError("Input/output error (injected)");
    case Trouble::short_write:
      if (half != nullptr) *half = true;
      [[fallthrough]];
    default:
      return IOStatus::NoSpace("No space left on device (injected)");
  }
}

IOStatus TortureDisk::read(bool* half) {
  if (!due(true)) return powered();
  if (trouble_ == Trouble::short_read && half != nullptr) {
    *half = true;
    return IOStatus::OK();
  }
  return IOStatus::IOError("Input/output error (injected)");
}

bool TortureDisk::little_space() {
  if (trouble_ != Trouble::little_space) return false;
  hit_ = true;
  return true;
}

bool TortureDisk::skips_sync_of(const std::string& path) const {
  const auto ends = [&](std::string_view end) { return path.ends_with(end); };
  switch (mutant_) {
    case Mutant::skip_table_sync:
      return ends(".sst") || ends(".building") || ends(".ingest");
    case Mutant::skip_manifest_sync:
      return path.find("MANIFEST-") != std::string::npos;
    case Mutant::skip_current_sync:
      return ends(".dbtmp");
    default:
      return false;
  }
}

}  // namespace perennial::storage::testing
