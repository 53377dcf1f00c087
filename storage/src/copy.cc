// SPDX-License-Identifier: Apache-2.0
// copy_state: one commit of what differs.
#include "perennial/storage/copy.h"

#include <filesystem>
#include <memory>
#include <set>
#include <system_error>

#include "text.h"

namespace perennial::storage {
namespace {

Status check_pair(const PageReader& from, const PageStore& to) {
  std::error_code neither;  // stores in memory have no folder
  if (&from == &to || std::filesystem::equivalent(from.location(), to.location(), neither)) {
    return error(StatusCode::invalid_argument, from.location(), ": cannot be copied to itself");
  }
  if (to.head().ok() && !(to.identity() == from.identity())) {
    return error(StatusCode::invalid_argument, to.location(), " is no copy of ", from.location(),
                 ": its first commit came from another store");
  }
  return {};
}

class Copy {
 public:
  Copy(const PageReader& from, PageStore& to, const CopyOptions& options)
      : from_(from), to_(to), options_(options) {}

  Result<CopyReport> run(const CommitInfo& source) {
    if (Status status = plan_pages(); !status.ok()) return status;
    if (Status status = plan_dense(); !status.ok()) return status;
    const Result<CommitInfo> head = to_.head();
    const std::string name = options_.snapshot.value_or(source.snapshot);
    const bool named = name.empty() || to_.resolve(name).ok();
    if (head.ok() && head->state_digest == source.state_digest && !options_.retention &&
        (options_.snapshot ? head->snapshot == name : named)) {
      report_.up_to_date = true;
      report_.commit = *head;
      return report_;
    }
    request_.snapshot = options_.snapshot || !named ? name : "";
    request_.note = source.note;
    request_.retention = options_.retention;
    if (!head.ok()) request_.identity = from_.identity();
    Result<CommitInfo> info = to_.commit(request_);
    if (!info.ok()) return info.status();
    report_.commit = *info;
    if (info->state_digest != source.state_digest) {
      return error(StatusCode::corruption, to_.location(), ": the copy has state digest ",
                   info->state_digest.hex(), ", its source ", source.state_digest.hex());
    }
    return report_;
  }

 private:
  Status plan_pages() {
    const std::vector<PageId> pages = from_.pages();
    const std::set<PageId> listed(pages.begin(), pages.end());
    for (const PageId& id : pages) {
      const Result<Digest> wanted = from_.page_digest(id);
      if (!wanted.ok()) return wanted.status();
      const Result<PageShape> shape = from_.page_shape(id);
      if (!shape.ok()) return shape.status();
      const Result<Digest> there = to_.page_digest(id);
      if (there.ok() && *there == *wanted && *to_.page_shape(id) == *shape) {
        ++report_.pages_kept;
        continue;
      }
      request_.pages.push_back(
          {id, *shape, [this, id, bytes = shape->payload_bytes()] { return read(id, bytes); }});
      report_.bytes_copied += shape->payload_bytes();
    }
    report_.pages_copied = request_.pages.size();
    for (const PageId& id : to_.pages()) {
      if (!listed.contains(id)) request_.removed_pages.push_back(id);
    }
    report_.pages_removed = request_.removed_pages.size();
    return {};
  }

  Result<std::span<const std::byte>> read(const PageId& id, std::size_t bytes) {
    payload_.resize(bytes);
    if (Status status = from_.read_page(id, payload_); !status.ok()) return status;
    if (options_.on_progress && !options_.on_progress(++done_, report_.pages_copied)) {
      return error(StatusCode::io_error, to_.location(), ": the copy was stopped");
    }
    return std::span<const std::byte>(payload_);
  }

  Status plan_dense() {
    std::set<std::string> listed;
    for (const std::string& name : from_.dense_names()) {
      listed.insert(name);
      const Result<Digest> wanted = from_.dense_digest(name);
      if (!wanted.ok()) return wanted.status();
      const Result<Digest> there = to_.dense_digest(name);
      if (there.ok() && *there == *wanted) continue;
      Result<Bytes> bytes = from_.read_dense(name);
      if (!bytes.ok()) return bytes.status();
      report_.bytes_copied += bytes->size();
      ++report_.dense_copied;
      request_.dense.emplace(name, std::move(*bytes));
    }
    for (const std::string& name : to_.dense_names()) {
      if (!listed.contains(name)) request_.removed_dense.push_back(name);
    }
    return {};
  }

  const PageReader& from_;
  PageStore& to_;
  const CopyOptions& options_;
  CommitRequest request_;
  CopyReport report_;
  Bytes payload_;
  std::uint64_t done_ = 0;
};

}  // namespace

Result<CopyReport> copy_state(const PageReader& from, PageStore& to, const CopyOptions& options) {
  const Result<CommitInfo> source = from.head();
  if (!source.ok()) return source.status();
  if (Status status = check_pair(from, to); !status.ok()) return status;
  if (const auto* store = dynamic_cast<const PageStore*>(&from)) {  // which may commit meanwhile
    const Result<std::unique_ptr<PageReader>> state = store->at(source->commit);
    if (!state.ok()) return state.status();
    return Copy(**state, to, options).run(*source);
  }
  return Copy(from, to, options).run(*source);
}

}  // namespace perennial::storage
