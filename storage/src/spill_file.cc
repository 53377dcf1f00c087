// SPDX-License-Identifier: Apache-2.0
// Spill files: unlinked at birth, one digest a slot.
#include "perennial/storage/spill_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <string>
#include <system_error>

#include "perennial/storage/mutex.h"
#include "text.h"

namespace perennial::storage {
namespace {

Status system_error(const std::string& what, int number) {
  const bool full = number == ENOSPC || number == EDQUOT;
  return error(full ? StatusCode::no_space : StatusCode::io_error, what, ": ",
               std::generic_category().message(number));
}

// An empty file above this size is cut to nothing; below, the calls would cost more than the space.
constexpr std::uint64_t kWorthCutting = std::uint64_t{1} << 20;

}  // namespace

struct SpillFile::Impl {
  struct Entry {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    Digest digest;
    bool used = false;
  };

  ~Impl() {
    if (fd >= 0) ::close(fd);
  }

  Status write_at(std::span<const std::byte> bytes, std::uint64_t offset) const {
    while (!bytes.empty()) {
      const ssize_t count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0) {
        if (errno == EINTR) continue;
        return system_error("writing spill file in " + folder, errno);
      }
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::uint64_t>(count);
    }
    return {};
  }

  Status read_at(std::span<std::byte> bytes, std::uint64_t offset) const {
    while (!bytes.empty()) {
      const ssize_t count = ::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0) {
        if (errno == EINTR) continue;
        return system_error("reading spill file in " + folder, errno);
      }
      if (count == 0) {
        return error(StatusCode::corruption, "spill file in ", folder, " ends at ", offset);
      }
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::uint64_t>(count);
    }
    return {};
  }

  // A place for `size` bytes: a free slot's, or the end of the file.
  Slot reserve(std::uint64_t size) PERENNIAL_REQUIRES(mutex) {
    const auto free_slots = free_by_size.find(size);
    if (free_slots != free_by_size.end() && !free_slots->second.empty()) {
      const Slot slot = free_slots->second.back();
      free_slots->second.pop_back();
      return slot;
    }
    entries.push_back({end, size, {}, false});
    end += size;
    peak = std::max(peak, end);
    return entries.size() - 1;
  }

  // Takes back a slot whose writing failed. What lies at the end of the file is cut off; a place
  // before it waits for the next page of its size.
  void give_up(Slot slot) PERENNIAL_REQUIRES(mutex) {
    if (slot + 1 == entries.size() && entries[slot].offset + entries[slot].size == end &&
        ::ftruncate(fd, static_cast<off_t>(entries[slot].offset)) == 0) {
      end = entries[slot].offset;
      entries.pop_back();
    } else {
      free_by_size[entries[slot].size].push_back(slot);
    }
  }

  int fd = -1;
  std::string folder;
  mutable Mutex mutex;  // never held over input or output
  std::vector<Entry> entries PERENNIAL_GUARDED_BY(mutex);
  std::map<std::uint64_t, std::vector<Slot>> free_by_size PERENNIAL_GUARDED_BY(mutex);
  std::uint64_t end PERENNIAL_GUARDED_BY(mutex) = 0;
  std::uint64_t peak PERENNIAL_GUARDED_BY(mutex) = 0;
  std::uint64_t used PERENNIAL_GUARDED_BY(mutex) = 0;
  std::uint64_t writing PERENNIAL_GUARDED_BY(mutex) = 0;  // reserved and not yet in use
  std::uint64_t spilled PERENNIAL_GUARDED_BY(mutex) = 0;
};

SpillFile::SpillFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SpillFile::~SpillFile() = default;

Result<std::unique_ptr<SpillFile>> SpillFile::create(const std::filesystem::path& folder) {
  auto impl = std::make_unique<Impl>();
  impl->folder = folder.string();
  impl->fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (impl->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
    std::string name = (folder / "spill.XXXXXX").string();
    impl->fd = ::mkostemp(name.data(), O_CLOEXEC);
    if (impl->fd >= 0) ::unlink(name.c_str());
  }
  if (impl->fd < 0) return system_error("creating a spill file in " + impl->folder, errno);
  return std::unique_ptr<SpillFile>(new SpillFile(std::move(impl)));
}

Result<SpillFile::Slot> SpillFile::write(std::span<const std::byte> bytes) {
  const Digest digest = digest_of(bytes);
  const MutexLock lock(impl_->mutex);
  const Slot slot = impl_->reserve(bytes.size());
  const std::uint64_t offset = impl_->entries[slot].offset;
  ++impl_->writing;
  Status status;
  {
    const MutexUnlock meanwhile(impl_->mutex);
    status = impl_->write_at(bytes, offset);
  }
  --impl_->writing;
  if (!status.ok()) {
    impl_->give_up(slot);
    return status;
  }
  impl_->entries[slot] = {offset, bytes.size(), digest, true};
  impl_->used += bytes.size();
  impl_->spilled += bytes.size();
  return slot;
}

Status SpillFile::read(Slot slot, std::span<std::byte> bytes) const {
  Impl::Entry entry;
  {
    const MutexLock lock(impl_->mutex);
    if (slot >= impl_->entries.size() || !impl_->entries[slot].used) {
      return error(StatusCode::invalid_argument, "spill slot ", slot, " is not in use");
    }
    entry = impl_->entries[slot];
  }
  if (bytes.size() != entry.size) {
    return error(StatusCode::invalid_argument, "spill slot ", slot, " has ", entry.size,
                 " bytes, the buffer ", bytes.size());
  }
  if (Status status = impl_->read_at(bytes, entry.offset); !status.ok()) {
    return error(status.code(), "spill slot ", slot, ": ", status.message());
  }
  if (const Digest found = digest_of(bytes); found != entry.digest) {
    return error(StatusCode::corruption, "spill slot ", slot, " in ", impl_->folder,
                 ": expected digest ", entry.digest.hex(), ", found ", found.hex());
  }
  return {};
}

void SpillFile::free(Slot slot) {
  const MutexLock lock(impl_->mutex);
  if (slot >= impl_->entries.size() || !impl_->entries[slot].used) return;
  Impl::Entry& entry = impl_->entries[slot];
  entry.used = false;
  impl_->used -= entry.size;
  impl_->free_by_size[entry.size].push_back(slot);
  if (impl_->used > 0 || impl_->writing > 0 || impl_->end < kWorthCutting) return;
  if (::ftruncate(impl_->fd, 0) != 0) return;  // the space stays in use, nothing else
  impl_->entries.clear();
  impl_->free_by_size.clear();
  impl_->end = 0;
}

std::uint64_t SpillFile::bytes() const {
  const MutexLock lock(impl_->mutex);
  return impl_->end;
}
std::uint64_t SpillFile::bytes_in_use() const {
  const MutexLock lock(impl_->mutex);
  return impl_->used;
}
std::uint64_t SpillFile::peak_bytes() const {
  const MutexLock lock(impl_->mutex);
  return impl_->peak;
}
std::uint64_t SpillFile::bytes_spilled() const {
  const MutexLock lock(impl_->mutex);
  return impl_->spilled;
}

}  // namespace perennial::storage
