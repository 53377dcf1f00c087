// SPDX-License-Identifier: Apache-2.0
// repair_store: finds damage in the current state and what can take its place.
#include "perennial/storage/repair.h"

#include <algorithm>
#include <map>
#include <memory>
#include <ranges>

#include "text.h"

namespace perennial::storage {
namespace {

class Repairer {
 public:
  Repairer(PageStore& store, const RepairOptions& options) : store_(store), options_(options) {}

  Result<RepairReport> run() {
    if (Status status = read_pages(); !status.ok()) return status;
    if (Status status = read_dense(); !status.ok()) return status;
    const bool any = !request_.pages.empty() || !request_.dense.empty();
    if (!any || options_.dry_run) return std::move(report_);
    request_.note = options_.note;
    Result<CommitInfo> info = store_.commit(request_);
    if (!info.ok()) return info.status();
    report_.commit = *info;
    return std::move(report_);
  }

 private:
  Status read_pages() {
    for (const PageId& id : store_.pages()) {
      const Result<PageShape> shape = store_.page_shape(id);
      if (!shape.ok()) return shape.status();
      Bytes payload(shape->payload_bytes());
      const Status status = store_.read_page(id, payload);
      ++report_.pages_read;
      if (status.ok()) continue;
      Repair repair{to_string(id), status.message()};
      if (from_copy(id, payload)) {
        repair.by = Repair::By::copy;
      } else if (options_.allow_older) {
        repair.commit = from_older(id, *shape, payload);
        if (repair.commit != 0) repair.by = Repair::By::older;
      }
      if (repair.by != Repair::By::nothing) add(id, *shape, std::move(payload));
      report_.repairs.push_back(std::move(repair));
    }
    return {};
  }

  void add(const PageId& id, const PageShape& shape, Bytes payload) {
    request_.pages.push_back(
        {id, shape, [kept = std::make_shared<const Bytes>(std::move(payload))] {
           return Result<std::span<const std::byte>>(std::span<const std::byte>(*kept));
         }});
  }

  bool from_copy(const PageId& id, Bytes& payload) const {
    if (options_.copy == nullptr) return false;
    const Result<Digest> lost = store_.page_digest(id);
    const Result<Digest> copied = options_.copy->page_digest(id);
    return lost.ok() && copied.ok() && *lost == *copied &&
           options_.copy->read_page(id, payload).ok();
  }

  // The commit whose version was taken; 0: none is intact.
  std::uint64_t from_older(const PageId& id, const PageShape& shape, Bytes& payload) {
    if (!history_) load_history();
    for (const auto& reader : *history_) {
      const Result<PageShape> older = reader->page_shape(id);
      if (older.ok() && *older == shape && reader->read_page(id, payload).ok()) {
        return reader->head()->commit;
      }
    }
    return 0;
  }

  // Newest first; commits that cannot be loaded are of no help.
  void load_history() {
    history_.emplace();
    const std::vector<CommitInfo> log = store_.log();
    for (const CommitInfo& info : std::views::reverse(log)) {
      Result<std::unique_ptr<PageReader>> reader = store_.at(info.commit);
      if (reader.ok()) history_->push_back(std::move(*reader));
    }
  }

  Status read_dense() {
    for (const std::string& name : store_.dense_names()) {
      const Result<Bytes> bytes = store_.read_dense(name);
      ++report_.dense_read;
      if (bytes.ok()) continue;
      Repair repair{text_of("dense entry '", name, "'"), bytes.status().message()};
      if (options_.copy != nullptr) {
        const Result<Digest> lost = store_.dense_digest(name);
        const Result<Digest> copied = options_.copy->dense_digest(name);
        if (lost.ok() && copied.ok() && *lost == *copied) {
          if (Result<Bytes> whole = options_.copy->read_dense(name); whole.ok()) {
            request_.dense.emplace(name, std::move(*whole));
            request_.rewrite_chunks = true;
            repair.by = Repair::By::copy;
          }
        }
      }
      report_.repairs.push_back(std::move(repair));
    }
    return {};
  }

  PageStore& store_;
  const RepairOptions& options_;
  CommitRequest request_;
  RepairReport report_;
  std::optional<std::vector<std::unique_ptr<PageReader>>> history_;
};

}  // namespace

std::uint64_t RepairReport::unrepaired() const {
  return static_cast<std::uint64_t>(std::ranges::count(repairs, Repair::By::nothing, &Repair::by));
}

Result<RepairReport> repair_store(PageStore& store, const RepairOptions& options) {
  if (options.copy != nullptr && !(options.copy->identity() == store.identity())) {
    return error(StatusCode::invalid_argument, options.copy->location(), " is no copy of ",
                 store.location());
  }
  return Repairer(store, options).run();
}

}  // namespace perennial::storage
