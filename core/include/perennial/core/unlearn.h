// SPDX-License-Identifier: Apache-2.0
// Taking generations out of a stored model, all its PEER layers and its analytic gate, exactly.
#pragma once

#include <cstdint>

#include "perennial/storage/page_store.h"

namespace perennial {

// With isolated routing a generation's experts, router and gate statistics are its own, and nothing
// else holds a trace of what it learnt: to drop them is to have unlearned it. The functions add
// that to `request`, whose commit then makes it durable whole or not at all; nothing is loaded but
// records, and no page is read. Cost: O(pages listed).
//
// Throws StorageError, DataError; Error for shared routing, for a generation that does not exist,
// and for one that was unlearned before.

// Drops every generation from `keep` (1 or more) on: layer and gate are as if they had never grown
// to more than `keep`, bit for bit, with the draws of dropout back at where they were then.
void drop_generations_from(const storage::PageReader& store, std::uint32_t keep,
                           storage::CommitRequest& request);

// Drops one generation that newer ones follow. Its place stays taken, because ids never change: it
// is listed as unlearned, has no experts, answers nothing, and the gate never names it.
void drop_generation(const storage::PageReader& store, std::uint32_t generation,
                     storage::CommitRequest& request);

}  // namespace perennial
