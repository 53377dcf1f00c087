// SPDX-License-Identifier: Apache-2.0
// TableReads: the open files, and reads whose place and length suit the disk.
#include "table_reads.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <set>
#include <utility>

#include "page_locator.h"

namespace perennial::storage {
namespace {

// Beside the 512 that RocksDB keeps open: below the usual limit of 1024 descriptors.
constexpr std::size_t kMostOpenFiles = 256;

// A thread's memory to read into. It is taken out while in use: a visitor may read again.
class Scratch {
 public:
  Scratch(std::size_t bytes, std::size_t alignment) : memory_(std::exchange(kept(), {})) {
    const std::size_t room = (bytes + alignment - 1) / alignment * alignment;
    if (memory_.room >= room && memory_.alignment >= alignment) return;
    memory_ = Memory{
        {static_cast<char*>(std::aligned_alloc(alignment, room)), &std::free}, room, alignment};
    if (memory_.data == nullptr) throw std::bad_alloc();
  }
  ~Scratch() { kept() = std::move(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  char* data() { return memory_.data.get(); }

 private:
  struct Memory {
    std::unique_ptr<char, void (*)(void*)> data{nullptr, &std::free};
    std::size_t room = 0;
    std::size_t alignment = 0;
  };
  static Memory& kept() {
    thread_local Memory memory;
    return memory;
  }
  Memory memory_;
};

}  // namespace

struct TableReads::Table {
  std::unique_ptr<rocksdb::FSRandomAccessFile> file;
  std::size_t alignment = 1;
  PageLocator locator;

  // Calls `use` with `bytes` bytes at `offset`; false if they could not be read.
  template <class Use>
  bool with_bytes(std::uint64_t offset, std::size_t bytes, Use&& use) const {
    const std::uint64_t start = offset / alignment * alignment;
    const auto skip = static_cast<std::size_t>(offset - start);
    const std::size_t whole = (skip + bytes + alignment - 1) / alignment * alignment;
    Scratch scratch(whole, std::max(alignment, alignof(std::max_align_t)));
    rocksdb::Slice found;
    const rocksdb::IOStatus status =
        file->Read(start, whole, rocksdb::IOOptions(), &found, scratch.data(), nullptr);
    if (!status.ok() || found.size() < skip + bytes) return false;
    return use(std::as_bytes(std::span(found.data() + skip, bytes)));
  }
};

TableReads::TablePtr TableReads::open(const std::string& path) const {
  rocksdb::FileOptions options;
  options.use_direct_reads = direct_;
  const auto table = std::make_shared<Table>();
  TableBytes bytes;
  bytes.name = path;
  if (!system_->GetFileSize(path, options.io_options, &bytes.size, nullptr).ok() ||
      !system_->NewRandomAccessFile(path, options, &table->file, nullptr).ok()) {
    return nullptr;
  }
  if (table->file->use_direct_io()) table->alignment = table->file->GetRequiredBufferAlignment();
  table->file->Hint(rocksdb::FSRandomAccessFile::kRandom);
  bytes.read = [&](std::uint64_t offset, std::span<char> into) {
    return table->with_bytes(offset, into.size(), [&](std::span<const std::byte> found) {
      std::ranges::copy(found, std::as_writable_bytes(into).begin());
      return true;
    });
  };
  Result<PageLocator> locator = PageLocator::read(bytes);
  if (!locator.ok()) return nullptr;
  table->locator = std::move(*locator);
  return table;
}

TableReads::TablePtr TableReads::table_at(std::uint64_t age, const std::string& path) const {
  {
    const MutexLock lock(mutex_);
    if (const auto found = by_path_.find(path); found != by_path_.end()) {
      places_.splice(places_.begin(), places_, found->second);
      return found->second->table;
    }
  }
  TablePtr table = open(path);
  if (table == nullptr) return nullptr;
  const MutexLock lock(mutex_);
  // Since files were dropped, this one may have been, or its name given to another.
  if (age != age_ || by_path_.contains(path)) return table;
  places_.push_front({path, table});
  by_path_[path] = places_.begin();
  if (places_.size() > kMostOpenFiles) {
    by_path_.erase(places_.back().path);
    places_.pop_back();
  }
  return table;
}

bool TableReads::read(std::uint64_t age, const std::filesystem::path& path, const std::string& key,
                      std::size_t value_bytes, const Backend::Visit& visit) const {
  const TablePtr table = table_at(age, path.native());
  if (table == nullptr) return false;
  const auto at = table->locator.find(key, value_bytes);
  if (!at) return false;
  const bool done = table->with_bytes(at->offset, at->bytes(), [&](auto block) {
    return is_value_of(key, *at, block.first(at->head), block.last(LocatedValue::kTail)) &&
           visit(block.subspan(at->head, at->value)).ok();
  });
  if (done) answered_.fetch_add(1, std::memory_order_relaxed);
  return done;
}

void TableReads::keep_only(const CommitFiles* files) {
  std::set<std::string> listed;
  if (files != nullptr) {
    for (const CommitFile& file : *files) listed.insert(file.path.native());
  }
  std::list<Place> dropped;  // closed after the lock is given back
  const MutexLock lock(mutex_);
  ++age_;
  for (auto place = places_.begin(); place != places_.end();) {
    const auto next = std::next(place);
    if (!listed.contains(place->path)) {
      by_path_.erase(place->path);
      dropped.splice(dropped.end(), places_, place);
    }
    place = next;
  }
}

}  // namespace perennial::storage
