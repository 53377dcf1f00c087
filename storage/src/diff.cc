// SPDX-License-Identifier: Apache-2.0
// diff_states: a merge over two page tables.
#include "perennial/storage/diff.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "text.h"

namespace perennial::storage {
namespace {

Status count_whole(const PageReader& state, const PageId& id, StateDiff& diff) {
  const Result<PageShape> shape = state.page_shape(id);
  if (!shape.ok()) return shape.status();
  if (id.kind == PageKind::weights) diff.experts += shape->experts;
  diff.bytes += shape->payload_bytes();
  return {};
}

Status compare_page(const PageReader& before, const PageReader& after, const PageId& id,
                    StateDiff& diff) {
  const Result<PageShape> old_shape = before.page_shape(id);
  const Result<PageShape> new_shape = after.page_shape(id);
  if (!old_shape.ok()) return old_shape.status();
  if (!new_shape.ok()) return new_shape.status();
  const Result<Digest> old_digest = before.page_digest(id);
  const Result<Digest> new_digest = after.page_digest(id);
  if (!old_digest.ok()) return old_digest.status();
  if (!new_digest.ok()) return new_digest.status();
  if (*old_shape == *new_shape && *old_digest == *new_digest) return {};
  diff.changed.push_back(id);
  if (!(*old_shape == *new_shape)) return count_whole(after, id, diff);
  Bytes a(old_shape->payload_bytes());
  Bytes b(new_shape->payload_bytes());
  if (Status status = before.read_page(id, a); !status.ok()) return status;
  if (Status status = after.read_page(id, b); !status.ok()) return status;
  const std::size_t record = a.size() / old_shape->experts;
  for (std::size_t at = 0; at < a.size(); at += record) {
    if (std::memcmp(a.data() + at, b.data() + at, record) == 0) continue;
    if (id.kind == PageKind::weights) ++diff.experts;
    diff.bytes += record;
  }
  return {};
}

Status compare_dense(const PageReader& before, const PageReader& after, StateDiff& diff) {
  const std::vector<std::string> old_names = before.dense_names();
  const std::vector<std::string> new_names = after.dense_names();
  std::ranges::set_difference(new_names, old_names, std::back_inserter(diff.dense_added));
  std::ranges::set_difference(old_names, new_names, std::back_inserter(diff.dense_removed));
  std::vector<std::string> both;
  std::ranges::set_intersection(old_names, new_names, std::back_inserter(both));
  for (const std::string& name : both) {
    const Result<Digest> a = before.dense_digest(name);
    const Result<Digest> b = after.dense_digest(name);
    if (!a.ok()) return a.status();
    if (!b.ok()) return b.status();
    if (*a != *b) diff.dense_changed.push_back(name);
  }
  const auto add_size = [&](const PageReader& state, const std::string& name) {
    const Result<std::uint64_t> size = state.dense_size(name);
    if (size.ok()) diff.bytes += *size;
    return size.status();
  };
  for (const std::string& name : diff.dense_added) {
    if (Status status = add_size(after, name); !status.ok()) return status;
  }
  for (const std::string& name : diff.dense_changed) {
    if (Status status = add_size(after, name); !status.ok()) return status;
  }
  return {};
}

}  // namespace

Result<StateDiff> diff_states(const PageReader& before, const PageReader& after) {
  const std::vector<PageId> old_pages = before.pages();
  const std::vector<PageId> new_pages = after.pages();
  StateDiff diff;
  std::ranges::set_difference(new_pages, old_pages, std::back_inserter(diff.added));
  std::ranges::set_difference(old_pages, new_pages, std::back_inserter(diff.removed));
  std::vector<PageId> both;
  std::ranges::set_intersection(old_pages, new_pages, std::back_inserter(both));
  for (const PageId& id : both) {
    if (Status status = compare_page(before, after, id, diff); !status.ok()) return status;
  }
  for (const PageId& id : diff.added) {
    if (Status status = count_whole(after, id, diff); !status.ok()) return status;
  }
  for (const PageId& id : diff.removed) {
    if (Status status = count_whole(before, id, diff); !status.ok()) return status;
  }
  if (Status status = compare_dense(before, after, diff); !status.ok()) return status;
  return diff;
}

}  // namespace perennial::storage
