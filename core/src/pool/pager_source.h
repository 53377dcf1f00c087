// SPDX-License-Identifier: Apache-2.0
// What the page cache asks the pager about pages: regions are the pool's generations.
#pragma once

#include <cstring>

#include "pool/pager.h"

namespace perennial {

class Pager::Source : public PageSource {
 public:
  explicit Source(const Pager& pager) : pager_(pager) {}
  storage::PageId id(PageKey page) const override {
    return pager_.page_id(page.kind, page.region, page.page);
  }
  storage::PageShape shape(storage::PageKind kind) const override { return pager_.shape(kind); }
  void fill_initial(PageKey page, std::span<std::byte> bytes) const override {
    if (page.kind == storage::PageKind::state) {
      std::memset(bytes.data(), 0, bytes.size());
    } else {
      pager_.fill_initial(pager_.tables_[page.region], page.page, bytes.data());
    }
  }

 private:
  const Pager& pager_;
};

}  // namespace perennial
