// SPDX-License-Identifier: Apache-2.0
// Groups the uses of experts: keys, CUB's stable radix sort, and a scan over the places where an
// expert begins.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "launch.h"
#include "perennial/kernels/cuda/optimizer.h"
#include "use_terms.h"

namespace perennial::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// CUB moves a use as one word.
static_assert(sizeof(Use) == sizeof(std::uint64_t));

__global__ void __launch_bounds__(kThreads)
    keys_kernel(UseKeys keys, std::uint32_t contribution, const std::int64_t* ids, std::int64_t n,
                std::uint64_t* out, Use* uses) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n) return;
  out[i] = keys.key(ids[i]);
  uses[i] = {contribution, static_cast<std::uint32_t>(i)};
}

__global__ void __launch_bounds__(kThreads) begins_kernel(UseKeys keys, const std::uint64_t* sorted,
                                                          std::int64_t n, std::uint32_t* begins) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) begins[i] = keys.begins(sorted, i) ? 1 : 0;
}

__global__ void __launch_bounds__(kThreads)
    scatter_kernel(UseKeys keys, const std::uint64_t* sorted, std::int64_t n,
                   const std::uint32_t* experts_to_here, ExpertUses out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) keys.scatter(sorted, n, i, experts_to_here[i], out);
}

// The workspace, laid out from its start; every part starts at a multiple of 256 bytes.
struct Workspace {
  std::uint64_t *keys = nullptr, *sorted = nullptr;
  Use* uses = nullptr;
  std::uint32_t *begins = nullptr, *experts_to_here = nullptr;
  void* cub = nullptr;
  std::size_t cub_bytes = 0, bytes = 0;
};

const std::uint64_t* words(const Use* uses) { return reinterpret_cast<const std::uint64_t*>(uses); }
std::uint64_t* words(Use* uses) { return reinterpret_cast<std::uint64_t*>(uses); }

Error sort(const Workspace& w, std::size_t& bytes, void* cub, const ExpertUses& out, int n,
           int bits, Stream stream) {
  return static_cast<Error>(cub::DeviceRadixSort::SortPairs(cub, bytes, w.keys, w.sorted,
                                                            words(static_cast<const Use*>(w.uses)),
                                                            words(out.uses), n, 0, bits, stream));
}
Error scan(const Workspace& w, std::size_t& bytes, void* cub, int n, Stream stream) {
  return static_cast<Error>(
      cub::DeviceScan::InclusiveSum(cub, bytes, w.begins, w.experts_to_here, n, stream));
}

Error lay_out(std::int64_t n, int bits, void* start, Workspace& w) {
  std::size_t for_sort = 0, for_scan = 0;
  if (const Error error = sort(w, for_sort, nullptr, {}, static_cast<int>(n), bits, nullptr)) {
    return error;
  }
  if (const Error error = scan(w, for_scan, nullptr, static_cast<int>(n), nullptr)) return error;
  w.cub_bytes = for_sort > for_scan ? for_sort : for_scan;
  auto* const base = static_cast<unsigned char*>(start);
  const auto take = [&](auto*& pointer, std::size_t bytes) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + w.bytes);
    w.bytes += (bytes + 255) / 256 * 256;
  };
  const auto count = static_cast<std::size_t>(n);
  take(w.keys, count * sizeof(std::uint64_t));
  take(w.sorted, count * sizeof(std::uint64_t));
  take(w.uses, count * sizeof(Use));
  take(w.begins, count * sizeof(std::uint32_t));
  take(w.experts_to_here, count * sizeof(std::uint32_t));
  auto* cub = static_cast<unsigned char*>(nullptr);
  take(cub, w.cub_bytes);
  w.cub = cub;
  return 0;
}

bool servable(std::int64_t uses, const UseKeys& keys) {
  return uses >= 0 && uses < 0x7FFFFFFF && keys.bits <= 64;
}

}  // namespace

std::size_t group_uses_workspace(std::int64_t uses, const OpenGeneration& generation) {
  const UseKeys keys(generation);
  Workspace w;
  if (!servable(uses, keys) || lay_out(uses, keys.bits, nullptr, w) != 0) return 0;
  return w.bytes;
}

Error group_uses(const RetrievedIds* contributions, std::int64_t count,
                 const OpenGeneration& generation, void* workspace, std::size_t workspace_bytes,
                 const ExpertUses& out, Stream stream) {
  std::int64_t n = 0;
  for (std::int64_t c = 0; c < count; ++c) n += contributions[c].n;
  const UseKeys keys(generation);
  if (!servable(n, keys)) return kInvalidValue;
  if (n == 0) {
    if (const cudaError_t error = cudaMemsetAsync(out.experts, 0, sizeof(std::uint32_t), stream)) {
      return static_cast<Error>(error);
    }
    return static_cast<Error>(cudaMemsetAsync(out.offsets, 0, sizeof(std::uint32_t), stream));
  }
  Workspace w;
  if (const Error error = lay_out(n, keys.bits, workspace, w)) return error;
  if (workspace_bytes < w.bytes) return kInvalidValue;
  std::int64_t first = 0;
  for (std::int64_t c = 0; c < count; ++c) {
    const RetrievedIds& from = contributions[c];
    if (from.n == 0) continue;
    keys_kernel<<<static_cast<unsigned>(blocks_for(from.n, kThreads)), kThreads, 0, stream>>>(
        keys, static_cast<std::uint32_t>(c), from.ids, from.n, w.keys + first, w.uses + first);
    if (const Error error = last_error()) return error;
    first += from.n;
  }
  const auto grid = static_cast<unsigned>(blocks_for(n, kThreads));
  if (const Error error =
          sort(w, w.cub_bytes, w.cub, out, static_cast<int>(n), keys.bits, stream)) {
    return error;
  }
  begins_kernel<<<grid, kThreads, 0, stream>>>(keys, w.sorted, n, w.begins);
  if (const Error error = last_error()) return error;
  if (const Error error = scan(w, w.cub_bytes, w.cub, static_cast<int>(n), stream)) return error;
  scatter_kernel<<<grid, kThreads, 0, stream>>>(keys, w.sorted, n, w.experts_to_here, out);
  return last_error();
}

}  // namespace perennial::kernels::cuda
