// SPDX-License-Identifier: Apache-2.0
// Groups the uses of experts by a stable radix sort, so that an expert's uses stay in the order in
// which they came.
#include "pool/tape.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <limits>
#include <string>
#include <utility>

#include "perennial/core/error.h"
#include "perennial/kernels/expert_id.h"
#include "pool/huge_pages.h"

namespace perennial {

namespace {

// A pass's counters, 16 KB, stay in the first-level cache.
constexpr int kMaxDigitBits = 11;
using Counters = std::array<std::size_t, std::size_t{1} << kMaxDigitBits>;

struct Item {
  std::uint64_t key = 0;  // (row, col) within the generation
  kernels::Use use;
};

// From counts to the place of each digit's first item; returns how many items there are.
std::size_t to_places(Counters& counters) {
  std::size_t before = 0;
  for (std::size_t& counter : counters) before += std::exchange(counter, before);
  return before;
}

}  // namespace

void ExpertTape::add(Entry entry) {
  if (std::cmp_greater(entry.ids.numel(), std::numeric_limits<std::uint32_t>::max())) {
    throw Error("a backward over " + std::to_string(entry.ids.numel()) +
                " retrieved experts is too large; cut the batch");
  }
  entries_.push_back(std::move(entry));
}

at::Tensor ExpertTape::gradient_memory(std::int64_t rows, std::int64_t cols) {
  const std::int64_t floats = rows * cols;
  if (!gradient_memory_.defined() || gradient_memory_.numel() < floats ||
      gradient_memory_.storage().use_count() > 1) {
    gradient_memory_ = at::empty({0});  // what there was goes first
    const std::size_t bytes = static_cast<std::size_t>(floats) * sizeof(float);
    gradient_memory_ = bytes < kHugePageBytes ? at::empty({floats})
                                              : at::from_blob(
                                                    allocate_huge_pages(bytes), {floats},
                                                    [](void* memory) { std::free(memory); },
                                                    at::TensorOptions().dtype(at::kFloat));
  }
  return gradient_memory_.narrow(0, 0, floats).view({rows, cols});
}

ExpertUses ExpertTape::uses(const Generation& generation) const {
  ExpertUses result;
  for (const Entry& entry : entries_) {
    result.contributions.push_back(
        {entry.slots, entry.x.const_data_ptr<float>(), entry.dy.const_data_ptr<float>(),
         entry.cu.const_data_ptr<float>(), entry.cv.const_data_ptr<float>(),
         entry.cw.defined() ? entry.cw.const_data_ptr<float>() : nullptr});
  }
  // Keys are (row within the generation, col), side by side in as few bits as they need.
  const auto col_bits = static_cast<int>(std::bit_width(generation.cols - 1));
  const std::uint64_t col_mask = (std::uint64_t{1} << col_bits) - 1;
  const int key_bits =
      std::max(1, col_bits + static_cast<int>(std::bit_width(generation.rows - 1)));
  const auto from_entries = [&](auto visit) {
    for (std::size_t c = 0; c < entries_.size(); ++c) {
      const std::int64_t* ids = entries_[c].ids.const_data_ptr<std::int64_t>();
      const auto n = static_cast<std::size_t>(entries_[c].ids.numel());
      for (std::size_t i = 0; i < n; ++i) {
        const std::uint32_t row = kernels::row_of(ids[i]) - generation.first_row;
        if (row >= generation.rows) continue;
        visit(std::uint64_t{row} << col_bits | kernels::col_of(ids[i]),
              kernels::Use{static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(i)});
      }
    }
  };
  std::vector<Item> items, sorted;
  const auto from_items = [&](auto visit) {
    for (const Item& item : items) visit(item.key, item.use);
  };

  const int passes = (key_bits + kMaxDigitBits - 1) / kMaxDigitBits;
  const int digit_bits = (key_bits + passes - 1) / passes;
  const std::uint64_t digit_mask = (std::uint64_t{1} << digit_bits) - 1;
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = pass * digit_bits;
    const auto run = [&](auto each, std::vector<Item>& to) {
      Counters next{};
      each([&](std::uint64_t key, kernels::Use) { ++next[key >> shift & digit_mask]; });
      const std::size_t count = to_places(next);
      if (pass + 1 < passes) {
        to.resize(count);
        each([&](std::uint64_t key, kernels::Use use) {
          to[next[key >> shift & digit_mask]++] = {key, use};
        });
        return;
      }
      result.ids.resize(count);
      result.uses.resize(count);
      each([&](std::uint64_t key, kernels::Use use) {
        const std::size_t place = next[key >> shift & digit_mask]++;
        result.ids[place] =
            kernels::expert_id(generation.first_row + static_cast<std::uint32_t>(key >> col_bits),
                               static_cast<std::uint32_t>(key & col_mask));
        result.uses[place] = use;
      });
    };
    if (pass == 0) {
      run(from_entries, items);
    } else {
      run(from_items, sorted);
      if (pass + 1 < passes) items.swap(sorted);
    }
  }

  // One id an expert, in place.
  std::vector<std::int64_t>& ids = result.ids;
  std::size_t experts = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) experts += i == 0 || ids[i - 1] != ids[i];
  result.offsets.reserve(experts + 1);
  experts = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (experts > 0 && ids[experts - 1] == ids[i]) continue;
    ids[experts++] = ids[i];
    result.offsets.push_back(i);
  }
  ids.resize(experts);
  result.offsets.push_back(result.uses.size());
  return result;
}

}  // namespace perennial
