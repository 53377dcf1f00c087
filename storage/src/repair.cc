// SPDX-License-Identifier: Apache-2.0
// repair_store: finds damage in the current state and what can take its place.
#include "perennial/storage/repair.h"

#include <algorithm>
#include <memory>

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
  struct Lost {
    PageId id;
    PageShape shape;
    std::size_t repair = 0;  // its place in the report
  };

  // What cannot be read for another reason than damage ends the repair: nothing takes its place.
  Status read_pages() {
    std::vector<Lost> lost;
    for (const PageId& id : store_.pages()) {
      const Result<PageShape> shape = store_.page_shape(id);
      if (!shape.ok()) return shape.status();
      Bytes payload(shape->payload_bytes());
      const Status status = store_.read_page(id, payload);
      ++report_.pages_read;
      if (status.ok()) continue;
      if (status.code() != StatusCode::corruption) return status;
      lost.push_back({id, *shape, report_.repairs.size()});
      report_.repairs.push_back({to_string(id), status.message()});
    }
    if (options_.copy != nullptr) take_from_copy(lost);
    if (options_.allow_older) take_older(lost);
    std::ranges::sort(request_.pages, {}, &PageWrite::id);
    return {};
  }

  // The bytes are read again when they are committed: they need no memory until then.
  void add(const Lost& lost, const PageReader& source, std::shared_ptr<const PageReader> owner) {
    request_.pages.push_back({lost.id, lost.shape,
                              [id = lost.id, &source, owner = std::move(owner),
                               payload = std::make_shared<Bytes>(lost.shape.payload_bytes())]()
                                  -> Result<std::span<const std::byte>> {
                                Status status = source.read_page(id, *payload);
                                if (!status.ok()) return status;
                                return std::span<const std::byte>(*payload);
                              }});
  }

  void take_from_copy(std::vector<Lost>& lost) {
    std::erase_if(lost, [&](const Lost& page) {
      const Result<Digest> wanted = store_.page_digest(page.id);
      const Result<Digest> there = options_.copy->page_digest(page.id);
      Bytes payload(page.shape.payload_bytes());
      if (!wanted.ok() || !there.ok() || *wanted != *there ||
          !options_.copy->read_page(page.id, payload).ok()) {
        return false;
      }
      report_.repairs[page.repair].by = Repair::By::copy;
      add(page, *options_.copy, nullptr);
      return true;
    });
  }

  // From the newest earlier commit whose version is intact; one commit's table at a time, but for
  // those that something is taken from. Commits that cannot be loaded are of no help.
  void take_older(std::vector<Lost>& lost) {
    const std::vector<CommitInfo> log = lost.empty() ? std::vector<CommitInfo>() : store_.log();
    for (auto at = log.rbegin(); at != log.rend(); ++at) {
      const CommitInfo& info = *at;
      if (lost.empty()) return;
      Result<std::unique_ptr<PageReader>> opened = store_.at(info.commit);
      if (!opened.ok()) continue;
      const std::shared_ptr<const PageReader> reader = std::move(*opened);
      std::erase_if(lost, [&](const Lost& page) {
        const Result<PageShape> shape = reader->page_shape(page.id);
        Bytes payload(page.shape.payload_bytes());
        if (!shape.ok() || !(*shape == page.shape) || !reader->read_page(page.id, payload).ok()) {
          return false;
        }
        report_.repairs[page.repair].by = Repair::By::older;
        report_.repairs[page.repair].commit = info.commit;
        add(page, *reader, reader);
        return true;
      });
    }
  }

  Status read_dense() {
    for (const std::string& name : store_.dense_names()) {
      const Result<Bytes> bytes = store_.read_dense(name);
      ++report_.dense_read;
      if (bytes.ok()) continue;
      if (bytes.status().code() != StatusCode::corruption) return bytes.status();
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
