// SPDX-License-Identifier: Apache-2.0
// One call into each installed module that the example does not use by name.
#include <cstdio>
#include <cstdlib>

#include "perennial/continual/metrics.h"
#include "perennial/kernels/matmul.h"
#include "perennial/storage/memory_store.h"

namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

}  // namespace

int main() {
  const float a[3] = {1, 2, 3};
  const float b[3] = {4, 5, 6};
  float product = 0;
  perennial::kernels::matmul_nt(1, 1, 3, a, 3, b, 3, nullptr, &product, 1);
  require(product == 32, "kernels: 1*4 + 2*5 + 3*6 is 32");

  const auto store = perennial::storage::make_memory_store();
  perennial::storage::CommitRequest request;
  request.dense["name"] = perennial::storage::Bytes{std::byte{7}};
  request.snapshot = "first";
  require(store->commit(request).ok(), "storage: a commit succeeds");
  require(store->resolve("first").ok(), "storage: its snapshot is found");

  perennial::continual::ScoreMatrix matrix(1);
  matrix.set_row(1, {0.5});
  require(perennial::continual::acc(matrix) == 0.5,
          "continual: the mean of one accuracy is itself");
}
