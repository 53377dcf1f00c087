// SPDX-License-Identifier: Apache-2.0
// Spill files: unlinked at birth, one digest a slot.
#include "perennial/storage/spill_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <string>
#include <system_error>

#include "text.h"

namespace perennial::storage {
namespace {

Status system_error(const std::string& what, int number) {
  const bool full = number == ENOSPC || number == EDQUOT;
  return error(full ? StatusCode::no_space : StatusCode::io_error, what, ": ",
               std::generic_category().message(number));
}

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

  int fd = -1;
  std::string folder;
  std::vector<Entry> entries;
  std::map<std::uint64_t, std::vector<Slot>> free_by_size;
  std::uint64_t end = 0;
  std::uint64_t spilled = 0;
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
  const auto free_slots = impl_->free_by_size.find(bytes.size());
  const bool reuse = free_slots != impl_->free_by_size.end() && !free_slots->second.empty();
  const std::uint64_t offset =
      reuse ? impl_->entries[free_slots->second.back()].offset : impl_->end;
  if (Status status = impl_->write_at(bytes, offset); !status.ok()) {
    // What a failed write left behind the end is cut off; a free slot has no content to lose.
    if (!reuse && ::ftruncate(impl_->fd, static_cast<off_t>(impl_->end)) != 0) {
      return error(status.code(), status.message(), "; and cutting it back failed");
    }
    return status;
  }
  Slot slot = impl_->entries.size();
  if (reuse) {
    slot = free_slots->second.back();
    free_slots->second.pop_back();
  } else {
    impl_->entries.emplace_back();
    impl_->end += bytes.size();
  }
  impl_->entries[slot] = {offset, bytes.size(), digest_of(bytes), true};
  impl_->spilled += bytes.size();
  return slot;
}

Status SpillFile::read(Slot slot, std::span<std::byte> bytes) const {
  if (slot >= impl_->entries.size() || !impl_->entries[slot].used) {
    return error(StatusCode::invalid_argument, "spill slot ", slot, " is not in use");
  }
  const Impl::Entry& entry = impl_->entries[slot];
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
  if (slot >= impl_->entries.size() || !impl_->entries[slot].used) return;
  impl_->entries[slot].used = false;
  impl_->free_by_size[impl_->entries[slot].size].push_back(slot);
}

std::uint64_t SpillFile::bytes() const { return impl_->end; }
std::uint64_t SpillFile::bytes_spilled() const { return impl_->spilled; }

}  // namespace perennial::storage
