// SPDX-License-Identifier: Apache-2.0
// Reads the owners of experiences.
#include "model/owners.h"

#include <algorithm>
#include <string>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"

namespace perennial::continual {

std::vector<std::int64_t> read_numbers(const storage::PageReader& store, const std::string& name) {
  const auto names = store.dense_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) return {};
  const at::Tensor list = tensor_from(value_or_throw(store.read_dense(name)), name);
  if (list.dim() != 1 || list.scalar_type() != at::kLong) {
    throw DataError("dense entry '" + name + "' is not a list of numbers");
  }
  const std::int64_t* first = list.const_data_ptr<std::int64_t>();
  return {first, first + list.numel()};
}

std::vector<std::int64_t> read_owners(const storage::PageReader& store) {
  return read_numbers(store, kOwners);
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
