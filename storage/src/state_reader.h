// SPDX-License-Identifier: Apache-2.0
// Reading one state through a backend, and the PageReader of a fixed one.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backend.h"
#include "perennial/storage/page_reader.h"
#include "state.h"

namespace perennial::storage {

// PageReader's members over a state that does not change. not_found from the backend means damage.
Status read_page(const Backend& backend, const State& state, const PageId& id,
                 std::span<std::byte> payload);
// Checks a stored version: header, body, and with `payload` given the whole payload, which a delta
// needs its base for. Errors do not name the page.
Status read_page_version(const Backend& backend, const PageId& id, const PageEntry& entry,
                         std::span<std::byte> payload);
Result<Bytes> read_dense(const Backend& backend, const State& state, const std::string& name);
Status check_chunk(std::span<const std::byte> value, std::size_t size, const Digest& digest);
// The commits of `catalog`, with what `state` still uses of each.
std::vector<CommitInfo> log_of(const Backend& backend, const State& state, const Catalog& catalog);
Result<std::uint64_t> resolve_in(const State& state, const std::string& name);
std::vector<PageId> pages_of(const State& state);
Result<const DenseEntry*> find_dense(const State& state, const std::string& name);
Digest digest_of(const DenseEntry& entry);

// Everything that the history of `newest` needs.
Result<VerifyReport> verify_history(const Backend& backend, const State& newest,
                                    const VerifyOptions& options);

// The state of one commit, in the history of the store it belongs to.
class StateReader final : public PageReader {
 public:
  struct Store {
    std::function<StatePtr()> newest;  // its history
    std::function<Result<VerifyReport>(const VerifyOptions&)> verify;
    std::function<void()> on_close;  // called when the reader goes
  };
  StateReader(const Backend& backend, StatePtr state, Store store);
  ~StateReader() override;
  StateReader(const StateReader&) = delete;
  StateReader& operator=(const StateReader&) = delete;

  bool contains(const PageId& id) const override;
  Result<PageShape> page_shape(const PageId& id) const override;
  Status read_page(const PageId& id, std::span<std::byte> payload) const override;
  std::vector<PageId> pages() const override;
  Result<Digest> page_digest(const PageId& id) const override;
  Result<Bytes> read_dense(const std::string& name) const override;
  std::vector<std::string> dense_names() const override;
  Result<Digest> dense_digest(const std::string& name) const override;
  Result<std::uint64_t> dense_size(const std::string& name) const override;
  Result<CommitInfo> head() const override;
  std::vector<CommitInfo> log() const override;
  Result<std::uint64_t> resolve(const std::string& name) const override;
  Result<VerifyReport> verify(const VerifyOptions& options) override;
  Result<std::uint64_t> size_bytes() const override;
  StoreIdentity identity() const override;
  std::string location() const override;
  std::filesystem::path scratch_folder() const override;

 private:
  const Backend& backend_;
  StatePtr state_;
  Store store_;
};

// Loads the state of a snapshot name, a commit number, or (empty) the newest commit from a backend
// that it then owns.
Result<std::unique_ptr<PageReader>> make_reader(std::unique_ptr<Backend> backend,
                                                const std::string& snapshot);

}  // namespace perennial::storage
