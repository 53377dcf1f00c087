// SPDX-License-Identifier: Apache-2.0
// Reads the owners of experiences.
#include "owners.h"

#include <algorithm>
#include <string>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"

namespace perennial::continual {

std::vector<std::int64_t> read_owners(const storage::PageReader& store) {
  const auto names = store.dense_names();
  if (std::find(names.begin(), names.end(), kOwners) == names.end()) return {};
  const at::Tensor owners = tensor_from(value_or_throw(store.read_dense(kOwners)), kOwners);
  if (owners.dim() != 1 || owners.scalar_type() != at::kLong) {
    throw DataError(std::string("dense entry '") + kOwners + "' is not a list of generations");
  }
  const std::int64_t* first = owners.const_data_ptr<std::int64_t>();
  return {first, first + owners.numel()};
}

std::int64_t owner_of(const std::vector<std::int64_t>& owners, std::int64_t experience) {
  if (owners.empty()) return experience;
  if (std::cmp_less(experience, owners.size())) {
    return owners[static_cast<std::size_t>(experience)];
  }
  // Those that returned opened none.
  const std::int64_t returned = static_cast<std::int64_t>(owners.size()) - 1 -
                                *std::max_element(owners.begin(), owners.end());
  return experience - returned;
}

}  // namespace perennial::continual
