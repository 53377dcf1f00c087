// SPDX-License-Identifier: Apache-2.0
// VersionedStore: the current state, reading it, and its history.
#include "versioned_store.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "state_reader.h"
#include "text.h"

namespace perennial::storage {

VersionedStore::VersionedStore(std::unique_ptr<Backend> backend,
                               const VersionedStoreOptions& options)
    : backend_(std::move(backend)),
      options_(options),
      pid_(::getpid()),
      commit_thread_(std::make_unique<boost::asio::thread_pool>(1)),
      reclaim_thread_(std::make_unique<boost::asio::thread_pool>(1)) {}

VersionedStore::~VersionedStore() {
  if (is_forked()) {  // the threads are the parent's: waiting for them would never end
    (void)commit_thread_.release();
    (void)reclaim_thread_.release();
    return;
  }
  closing_ = true;
  commit_thread_->join();
  reclaim_thread_->join();
}

bool VersionedStore::is_forked() const { return ::getpid() != pid_; }

Status VersionedStore::load() {
  StatePtr state = std::make_shared<const State>();
  if (const std::uint64_t last = backend_->last_commit(); last > 0) {
    Result<StatePtr> loaded = load_state(*backend_, last);
    if (!loaded.ok()) return loaded.status();
    state = std::move(*loaded);
  }
  set_state(std::move(state));
  look_again_later();
  return {};
}

StatePtr VersionedStore::state() const {
  const MutexLock lock(state_mutex_);
  return state_;
}

void VersionedStore::set_state(StatePtr state) {
  {
    const MutexLock lock(state_mutex_);
    state_.swap(state);
  }
  // The old one, perhaps large, goes outside the lock.
}

Status VersionedStore::ensure_open() {
  const MutexLock lock(history_);
  if (!backend_->closed()) return {};
  if (Status status = backend_->reopen(); !status.ok()) return status;
  return load();
}

void VersionedStore::wait_for_flight() {
  if (flight_.valid()) flight_.wait();
}

Status VersionedStore::ready() {
  if (is_forked()) {
    return error(StatusCode::busy, location(), ": opened before this process forked");
  }
  wait_for_flight();
  return ensure_open();
}

bool VersionedStore::contains(const PageId& id) const { return state()->table.find(id) != nullptr; }

Result<PageShape> VersionedStore::page_shape(const PageId& id) const {
  const StatePtr state = this->state();
  const PageEntry* entry = state->table.find(id);
  if (entry == nullptr) return error(StatusCode::not_found, to_string(id));
  return entry->shape;
}

Result<Digest> VersionedStore::page_digest(const PageId& id) const {
  const StatePtr state = this->state();
  const PageEntry* entry = state->table.find(id);
  if (entry == nullptr) return error(StatusCode::not_found, to_string(id));
  return entry->digest;
}

// A state that was replaced while it was being read may have lost its bytes to reclaiming: then the
// new one answers.
Status VersionedStore::read_page(const PageId& id, std::span<std::byte> payload) const {
  for (StatePtr state = this->state();;) {
    Status status = storage::read_page(*backend_, *state, id, payload);
    if (status.ok()) {
      pages_read_.fetch_add(1, std::memory_order_relaxed);
      bytes_read_.fetch_add(payload.size(), std::memory_order_relaxed);
      return status;
    }
    StatePtr now = this->state();
    if (now == state) return status;
    state = std::move(now);
  }
}

Result<Bytes> VersionedStore::read_dense(const std::string& name) const {
  for (StatePtr state = this->state();;) {
    Result<Bytes> bytes = storage::read_dense(*backend_, *state, name);
    if (bytes.ok()) {
      bytes_read_.fetch_add(bytes->size(), std::memory_order_relaxed);
      return bytes;
    }
    StatePtr now = this->state();
    if (now == state) return bytes;
    state = std::move(now);
  }
}

std::vector<PageId> VersionedStore::pages() const { return pages_of(*state()); }

std::vector<std::string> VersionedStore::dense_names() const {
  const StatePtr state = this->state();
  std::vector<std::string> names;
  for (const auto& [name, entry] : state->table.dense()) names.push_back(name);
  return names;
}

Result<Digest> VersionedStore::dense_digest(const std::string& name) const {
  const StatePtr state = this->state();
  const Result<const DenseEntry*> entry = find_dense(*state, name);
  return entry.ok() ? digest_of(**entry) : Result<Digest>(entry.status());
}

Result<std::uint64_t> VersionedStore::dense_size(const std::string& name) const {
  const StatePtr state = this->state();
  const Result<const DenseEntry*> entry = find_dense(*state, name);
  return entry.ok() ? (*entry)->size : Result<std::uint64_t>(entry.status());
}

Result<CommitInfo> VersionedStore::head() const {
  const StatePtr state = this->state();
  if (state->info.commit == 0) {
    return error(StatusCode::not_found, "the store has no commit yet");
  }
  return state->info;
}

std::vector<CommitInfo> VersionedStore::log() const {
  for (StatePtr state = this->state();;) {
    std::vector<CommitInfo> infos = log_of(*backend_, *state, state->catalog);
    // A record that could not be read may have been dropped and reclaimed meanwhile.
    const bool whole =
        std::ranges::none_of(infos, [](const CommitInfo& i) { return i.unix_ms == 0; });
    StatePtr now = this->state();
    if (whole || now == state) return infos;
    state = std::move(now);
  }
}

Result<std::uint64_t> VersionedStore::resolve(const std::string& name) const {
  return resolve_in(*state(), name);
}

Result<VerifyReport> VersionedStore::verify(const VerifyOptions& options) {
  if (Status status = ensure_open(); !status.ok()) return status;
  const MutexLock lock(maintenance_);  // what is dropped meanwhile is not removed
  return verify_history(*backend_, *state(), options);
}

StoreIdentity VersionedStore::identity() const { return state()->identity; }
Retention VersionedStore::retention() const { return state()->retention; }
std::string VersionedStore::location() const { return backend_->location(); }
std::filesystem::path VersionedStore::scratch_folder() const { return backend_->scratch_folder(); }
Result<std::uint64_t> VersionedStore::size_bytes() const { return backend_->size_bytes(); }

// The pin comes before the look at the catalog: whoever removes keys looks at the catalog first and
// at the pins then, so one of the two sees the other.
Result<std::unique_ptr<PageReader>> VersionedStore::at(std::uint64_t commit) const {
  {
    const MutexLock lock(pins_->mutex);
    pins_->commits.insert(commit);
  }
  const auto unpin = [pins = pins_, commit] {
    const MutexLock lock(pins->mutex);
    pins->commits.erase(pins->commits.find(commit));
  };
  const StatePtr newest = state();
  Result<StatePtr> loaded = newest->catalog.contains(commit)
                                ? Result<StatePtr>(newest)
                                : resolve_in(*newest, std::to_string(commit)).status();
  if (loaded.ok() && commit != newest->info.commit) loaded = load_state(*backend_, commit);
  if (!loaded.ok()) {
    unpin();
    return loaded.status();
  }
  // Only its own commit is sure to stay, so that is what it verifies.
  const auto verify = [this, own = *loaded](const VerifyOptions& options) -> Result<VerifyReport> {
    State alone = *own;
    alone.catalog = {{own->info.commit, {own->info.unix_ms, own->info.snapshot}}};
    const MutexLock lock(maintenance_);
    return verify_history(*backend_, alone, options);
  };
  return std::unique_ptr<PageReader>(
      std::make_unique<StateReader>(*backend_, std::move(*loaded),
                                    StateReader::Store{[this] { return state(); }, verify, unpin}));
}

std::set<std::uint64_t> VersionedStore::pinned() const {
  std::set<std::uint64_t> pinned;
  {
    const MutexLock lock(pins_->mutex);
    pinned.insert(pins_->commits.begin(), pins_->commits.end());
  }
  for (const Backend::Lease& lease : backend_->leases()) pinned.insert(lease.commit);
  return pinned;
}

StoreCounters VersionedStore::counters() const {
  StoreCounters counters;
  {
    const MutexLock lock(counters_mutex_);
    counters = written_;
  }
  counters.pages_read = pages_read_.load(std::memory_order_relaxed);
  counters.bytes_read = bytes_read_.load(std::memory_order_relaxed);
  counters.reopens = backend_->reopens();
  {
    const MutexLock lock(counters_mutex_);
    counters.reclaim_error = reclaim_error_;
  }
  return counters;
}

}  // namespace perennial::storage
