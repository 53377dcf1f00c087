// SPDX-License-Identifier: Apache-2.0
// Compares retrievals.
#include "perennial/continual/routing_metrics.h"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <string>

#include "perennial/core/error.h"

namespace perennial::continual {

namespace {

void require_ids(const at::Tensor& ids) {
  if (ids.dim() == 3 && ids.scalar_type() == at::kLong && ids.numel() > 0) return;
  throw Error("retrieved ids are (B, H, K) int64 with B > 0, not " +
              std::string(c10::toString(ids.scalar_type())) + " " + c10::str(ids.sizes()));
}

}  // namespace

double routing_drift(const at::Tensor& ids_then, const at::Tensor& ids_now) {
  require_ids(ids_then);
  require_ids(ids_now);
  if (ids_then.sizes() != ids_now.sizes()) {
    throw Error("retrieved ids then are " + c10::str(ids_then.sizes()) + ", now " +
                c10::str(ids_now.sizes()));
  }
  const at::Tensor then = ids_then.contiguous(), now = ids_now.contiguous();
  const std::int64_t inputs = then.size(0), heads = then.size(1), k = then.size(2);
  std::vector<std::int64_t> a(static_cast<std::size_t>(k)), b(a.size());
  std::int64_t changed = 0;
  for (std::int64_t i = 0; i < inputs; ++i) {
    bool same = true;
    for (std::int64_t h = 0; h < heads && same; ++h) {
      const std::int64_t at = (i * heads + h) * k;
      std::copy_n(then.const_data_ptr<std::int64_t>() + at, k, a.begin());
      std::copy_n(now.const_data_ptr<std::int64_t>() + at, k, b.begin());
      std::sort(a.begin(), a.end());
      std::sort(b.begin(), b.end());
      same = a == b;
    }
    changed += same ? 0 : 1;
  }
  return static_cast<double>(changed) / static_cast<double>(inputs);
}

double routing_leak(const at::Tensor& ids_now, std::uint32_t first_newer_row) {
  require_ids(ids_now);
  const at::Tensor ids = ids_now.contiguous();
  const std::int64_t* id = ids.const_data_ptr<std::int64_t>();
  const auto newer = std::count_if(id, id + ids.numel(), [&](std::int64_t value) {
    return static_cast<std::uint64_t>(value) >> 32 >= first_newer_row;
  });
  return static_cast<double>(newer) / static_cast<double>(ids.numel());
}

double weight_forgetting(const std::vector<double>& accuracy_then,
                         const std::vector<double>& accuracy_now) {
  if (accuracy_then.empty() || accuracy_then.size() != accuracy_now.size()) {
    throw Error("weight forgetting of " + std::to_string(accuracy_then.size()) + " and " +
                std::to_string(accuracy_now.size()) + " accuracies");
  }
  double sum = 0;
  for (std::size_t i = 0; i < accuracy_then.size(); ++i) sum += accuracy_then[i] - accuracy_now[i];
  return sum / static_cast<double>(accuracy_then.size());
}

}  // namespace perennial::continual
