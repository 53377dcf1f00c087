// SPDX-License-Identifier: Apache-2.0
// Groups the uses of experts.
#include "pool/tape.h"

#include <algorithm>
#include <tuple>

#include "perennial/kernels/expert_id.h"

namespace perennial {

ExpertUses ExpertTape::uses(std::uint32_t first_row, std::uint32_t rows) const {
  struct Item {
    std::int64_t id;
    kernels::Use use;
  };
  ExpertUses result;
  std::vector<Item> items;
  for (const Entry& entry : entries_) {
    const auto contribution = static_cast<std::uint32_t>(result.contributions.size());
    result.contributions.push_back(
        {entry.slots, entry.x.const_data_ptr<float>(), entry.dy.const_data_ptr<float>(),
         entry.cu.const_data_ptr<float>(), entry.cv.const_data_ptr<float>(),
         entry.cw.defined() ? entry.cw.const_data_ptr<float>() : nullptr});
    const std::int64_t* ids = entry.ids.const_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < entry.ids.numel(); ++i) {
      if (kernels::row_of(ids[i]) - first_row >= rows) continue;
      items.push_back({ids[i], {contribution, static_cast<std::uint32_t>(i)}});
    }
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::tie(a.id, a.use.contribution, a.use.position) <
           std::tie(b.id, b.use.contribution, b.use.position);
  });
  result.uses.reserve(items.size());
  for (const Item& item : items) {
    if (result.ids.empty() || result.ids.back() != item.id) {
      result.ids.push_back(item.id);
      result.offsets.push_back(result.uses.size());
    }
    result.uses.push_back(item.use);
  }
  result.offsets.push_back(result.uses.size());
  return result;
}

}  // namespace perennial
