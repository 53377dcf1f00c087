// SPDX-License-Identifier: Apache-2.0
// What a commit takes from the pager, and freezing.
#include <algorithm>

#include "pool/pager.h"

namespace perennial {

using storage::PageKind;

void Pager::drop_state(std::uint32_t generation) {
  Table& table = tables_.at(generation);
  table.frozen = true;
  std::vector<Page>& pages = table.pages[index(PageKind::state)];
  for (std::uint32_t i = 0; i < pages.size(); ++i) {
    Page& page = pages[i];
    if (page.stored) removed_.push_back(page_id(PageKind::state, table, i));
    if (in_frame(page.state)) drop_frame(PageKind::state, generation, i);
    if (page.state == PageState::spilled) spill_->free(page.slot);
    page = Page{};
  }
}

// The bytes of a page that changed since the last commit, or is in a frame. A spilled page is read
// into the payload buffer.
std::span<const std::byte> Pager::payload(PageKind kind, Table& table, std::uint32_t page) {
  const Page& p = table.pages[index(kind)][page];
  const std::size_t bytes = page_bytes(kind);
  if (in_frame(p.state)) {
    return std::as_bytes(
        std::span<const float>(kinds_[index(kind)].slab->frame(p.frame), bytes / sizeof(float)));
  }
  payload_buffer_.resize(bytes);
  const storage::Status read = spill_->read(p.slot, payload_buffer_);
  if (!read.ok()) throw StorageError(about(page_id(kind, table, page), read));
  return payload_buffer_;
}

std::vector<Pager::WrittenPage> Pager::written_pages(std::uint32_t generation) {
  Table& table = tables_.at(generation);
  std::vector<WrittenPage> written;
  for (std::uint32_t i = 0; i < table.pages[0].size(); ++i) {
    const Page& page = table.pages[0][i];
    const bool changed = page.state == PageState::dirty || page.state == PageState::spilled;
    if (!changed && !page.stored) continue;
    const storage::PageId id = page_id(PageKind::weights, table, i);
    written.push_back({id.row, id.tile,
                       changed ? storage::digest_of(payload(PageKind::weights, table, i))
                               : value_or_throw(store_->page_digest(id))});
  }
  return written;
}

bool Pager::any_written(std::uint32_t generation) const {
  const std::vector<Page>& pages = tables_.at(generation).pages[index(PageKind::weights)];
  return std::any_of(pages.begin(), pages.end(), [](const Page& page) {
    return page.stored || page.state == PageState::dirty || page.state == PageState::spilled;
  });
}

void Pager::add_to_commit(storage::CommitRequest& request) {
  for (PageKind kind : kPageKinds) {
    for (Table& table : tables_) {
      const std::vector<Page>& pages = table.pages[index(kind)];
      for (std::uint32_t i = 0; i < pages.size(); ++i) {
        if (pages[i].state != PageState::dirty && pages[i].state != PageState::spilled) continue;
        request.pages.push_back(
            {page_id(kind, table, i), shape(kind),
             [this, kind, &table, i]() -> storage::Result<std::span<const std::byte>> {
               try {
                 return payload(kind, table, i);
               } catch (const StorageError& error) {
                 return storage::Status(error.code(), error.what());
               }
             }});
      }
    }
  }
  request.removed_pages.insert(request.removed_pages.end(), removed_.begin(), removed_.end());
}

void Pager::committed() {
  for (PageKind kind : kPageKinds) {
    for (Table& table : tables_) {
      for (Page& page : table.pages[index(kind)]) {
        if (page.state == PageState::dirty) {
          page.state = PageState::resident;
          page.stored = true;
        } else if (page.state == PageState::spilled) {
          spill_->free(page.slot);
          page.state = PageState::absent;
          page.stored = true;
        }
      }
    }
  }
  removed_.clear();
}

}  // namespace perennial
