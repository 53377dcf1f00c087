// SPDX-License-Identifier: Apache-2.0
#include "pool/pin_set.h"

#include <algorithm>

#include "pool/cache_state.h"

namespace perennial {

namespace {

std::size_t place(std::uint64_t page, std::size_t mask) {
  return static_cast<std::size_t>((page * 0x9e3779b97f4a7c15ULL) >> 32) & mask;
}

constexpr std::size_t kSmallestTable = 64;

}  // namespace

std::size_t PinSet::find_or_add(std::uint64_t page, std::size_t group, bool& added) {
  if (2 * (items_.size() + 1) > table_.size()) rehash();
  const std::size_t mask = table_.size() - 1;
  std::size_t at = place(page, mask);
  for (; table_[at].item != 0; at = (at + 1) & mask) {
    if (table_[at].page == page) {
      added = false;
      return table_[at].item - 1;
    }
  }
  items_.push_back({page, 0, group, static_cast<std::uint32_t>(at), false});
  table_[at] = {page, static_cast<std::uint32_t>(items_.size())};
  added = true;
  return items_.size() - 1;
}

void PinSet::rehash() {
  table_.assign(std::max(kSmallestTable, 2 * table_.size()), {});
  const std::size_t mask = table_.size() - 1;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    std::size_t at = place(items_[i].page, mask);
    while (table_[at].item != 0) at = (at + 1) & mask;
    table_[at] = {items_[i].page, static_cast<std::uint32_t>(i + 1)};
    items_[i].place = static_cast<std::uint32_t>(at);
  }
}

// The last items come last in the table too: no search for an item that stays ever went past the
// place of one that goes.
void PinSet::unpin(std::size_t from) {
  for (std::size_t i = from; i < items_.size(); ++i) {
    const Item& item = items_[i];
    if (item.pinned) cache_->table.word(PageKey::of(item.page)).fetch_sub(page_word::kPin);
    table_[item.place].item = 0;
  }
  items_.resize(std::min(from, items_.size()));
}

void PinSet::release() {
  if (cache_ == nullptr) return;
  unpin(0);
  cache_->turns.leave(writes_);
  cache_ = nullptr;
}

}  // namespace perennial
