// SPDX-License-Identifier: Apache-2.0
// Memory of a training step, by counting what is allocated: tensors and everything made by new.
// Pages of weights and state come from elsewhere (FrameSlab) and are not counted.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "core/core_testing.h"

namespace {

std::atomic<std::int64_t> live_bytes{0}, peak_bytes{0};

void count(void* memory, std::int64_t sign) {
  const auto bytes = static_cast<std::int64_t>(malloc_usable_size(memory));
  const std::int64_t now = live_bytes += sign * bytes;
  std::int64_t peak = peak_bytes;
  while (now > peak && !peak_bytes.compare_exchange_weak(peak, now)) {
  }
}

void* counted(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  count(memory, 1);
  return memory;
}

void release(void* memory) {
  if (memory != nullptr) count(memory, -1);
  std::free(memory);
}

class CountingAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    void* memory = bytes == 0 ? nullptr : counted(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
    return {memory, memory, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

}  // namespace

void* operator new(std::size_t bytes) { return counted(std::malloc(bytes)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  const auto to = static_cast<std::size_t>(alignment);
  return counted(std::aligned_alloc(to, (bytes + to - 1) / to * to));
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }

namespace perennial {
namespace {

using namespace perennial::testing;

enum class Route { fused, compact };

class StepMemory : public ::testing::TestWithParam<std::tuple<QueryNorm, Route>> {};

// Symbols: B tokens, C = H d_key query channels, S = H K slots.
TEST_P(StepMemory, IsLittleMoreThanActivationsAndTheCompactGradient) {
  const auto& [norm, route] = GetParam();
  static CountingAllocator allocator;
  c10::SetCPUAllocator(&allocator, 10);
  PeerOptions options = small_options();
  options.d_in = options.d_out = 64;
  options.heads = 4;
  options.top_k = 8;
  options.d_key = 64;
  options.rows = options.cols = 64;
  options.page_bytes = 8192;
  options.query_norm = norm;
  PeerImpl peer(options);
  SparseOptimizer adam(peer.pool(), {});
  // All pages are in memory and known to have changed, and the optimizer has what it keeps.
  const std::vector<std::int64_t> ids = ids_of(0, 64, 64);
  adam.step({at::tensor(ids), at::zeros({64 * 64, 128})});
  const at::Tensor warm = inputs(1, 2, 64);
  train_step(peer, adam, warm);
  peer.zero_grad();

  const std::int64_t B = 1024, C = options.heads * options.d_key, S = options.heads * options.top_k,
                     d = options.d_in;
  const at::Tensor x = inputs(2, B, d).requires_grad_();
  const at::Tensor dy = inputs(3, B, d);
  const std::int64_t before = live_bytes;
  peak_bytes = before;
  std::int64_t unique = 0;
  const at::Tensor y = peer.forward(x);
  y.backward(dy);
  if (route == Route::compact) {
    const CompactGradient gradient = peer.pool().compact_gradient();
    unique = gradient.ids.numel();
    adam.step(gradient);
  } else {
    adam.step();
  }
  const auto transient = static_cast<double>(peak_bytes - before);

  // Forward: query, its normed form, ids (8 bytes), rows, weights, pre-activations, y. Backward:
  // gradients of the query in both forms, of scores and weights, the experts' coefficients cu and
  // cv, dx. Without a norm the two forms of the query are one.
  const std::int64_t query = norm == QueryNorm::none ? C : 2 * C;
  const std::int64_t activations = B * (2 * query + (2 + 3) * S + 4 * S + 2 * d);
  const std::int64_t parameters = C * d + 2 * options.heads * 64 * options.d_key / 2;
  const std::int64_t compact = unique * (2 * d + 2);
  const auto needed = static_cast<double>(4 * (activations + parameters + compact));
  RecordProperty("percent", static_cast<int>(100 * transient / needed));
  EXPECT_LT(transient, 1.2 * needed)
      << "activations " << activations * 4 << ", compact gradient " << compact * 4;
  // Nothing is left over but the compact gradient's memory, which the next step uses again, and
  // that goes with the gradients.
  peer.pool().clear_gradients();
  EXPECT_LT(static_cast<double>(live_bytes - before), 0.3 * needed);
}

INSTANTIATE_TEST_SUITE_P(Routes, StepMemory,
                         ::testing::Combine(::testing::Values(QueryNorm::batch, QueryNorm::rms,
                                                              QueryNorm::none),
                                            ::testing::Values(Route::fused, Route::compact)));

}  // namespace
}  // namespace perennial
