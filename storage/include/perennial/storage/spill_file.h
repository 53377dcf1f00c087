// SPDX-License-Identifier: Apache-2.0
// An unlinked, checksummed scratch file for dirty pages that were evicted between two commits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "perennial/storage/digest.h"
#include "perennial/storage/status.h"

namespace perennial::storage {

// Slots of any size in one file that vanishes with the process. Freed slots of equal size are
// reused, and a file without any slot in use gives its disk space back.
//
// Thread-safety: all members may be called from several threads at once; a slot must not be freed
// while it is read.
class SpillFile {
 public:
  using Slot = std::uint64_t;

  // Creates and unlinks a file in `folder`.
  static Result<std::unique_ptr<SpillFile>> create(const std::filesystem::path& folder);
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;

  // Writes `bytes` to a free slot. no_space or io_error leave the slots in use as they were.
  Result<Slot> write(std::span<const std::byte> bytes);
  // Reads a slot back and checks its digest; corruption names the slot.
  Status read(Slot slot, std::span<std::byte> bytes) const;
  // Gives a slot back; its bytes are gone.
  void free(Slot slot);

  std::uint64_t bytes() const;          // the file's size now
  std::uint64_t bytes_in_use() const;   // of the slots in use
  std::uint64_t peak_bytes() const;     // the largest that the file has been
  std::uint64_t bytes_spilled() const;  // written in all, over the file's life

 private:
  struct Impl;
  explicit SpillFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace perennial::storage
