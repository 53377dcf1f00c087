// SPDX-License-Identifier: Apache-2.0
#include "perennial/core/page_memory.h"

#include <string>
#include <utility>

#include "perennial/core/error.h"
#include "pool/page_cache.h"

namespace perennial {

PageMemory::PageMemory(const storage::PageReader* store, std::int64_t budget_bytes)
    : store_(store), budget_bytes_(budget_bytes) {
  if (budget_bytes < 0) {
    throw InvalidOptions("budget_bytes is " + std::to_string(budget_bytes) +
                         "; it must be 0 (no limit) or positive");
  }
  if (budget_bytes > 0 && store == nullptr) {
    throw InvalidOptions("a memory budget (budget_bytes = " + std::to_string(budget_bytes) +
                         ") needs a store to page to");
  }
  cache_ = std::make_unique<PageCache>(store, static_cast<std::uint64_t>(budget_bytes));
}

PageMemory::~PageMemory() = default;

PagerCounters PageMemory::counters() const { return cache_->counters(); }

void PageMemory::add_to_commit(storage::CommitRequest& request) {
  for (const auto& [pool, bring_up_to_date] : pools_) bring_up_to_date();
  cache_->begin_epoch(request);
}

void PageMemory::committed() { cache_->end_epoch(true); }
void PageMemory::commit_failed() { cache_->end_epoch(false); }
bool PageMemory::commit_in_flight() const { return cache_->epoch_in_flight(); }

void PageMemory::join(std::uint32_t pool, std::function<void()> bring_up_to_date) {
  if (!pools_.emplace(pool, std::move(bring_up_to_date)).second) {
    throw Error("pool " + std::to_string(pool) +
                " is in this memory already: a pool has one Pool object, which its layers share");
  }
}

}  // namespace perennial
