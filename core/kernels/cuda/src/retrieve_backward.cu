// SPDX-License-Identifier: Apache-2.0
// The backward of retrieval: gradients of scores to queries and, grouped by key, to sub-keys.
#include "key_terms.h"
#include "launch.h"
#include "perennial/kernels/cuda/optimizer.h"
#include "perennial/kernels/cuda/retrieve.h"

namespace perennial::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr std::int64_t kMostGrid = 1 << 14;

// A block a (token, head); a thread a column of the query.
__global__ void __launch_bounds__(kThreads)
    dquery_kernel(RetrieveArgs args, const float* dscores, float* dquery) {
  const std::int64_t index = blockIdx.x, head = index % args.heads, dim = args.sub_dim;
  const std::int64_t first = index * args.k;
  const float* row_keys = args.rows.keys + (args.rows.per_head ? head * args.rows.count * dim : 0);
  const float* col_keys = args.cols.keys + (args.cols.per_head ? head * args.cols.count * dim : 0);
  for (std::int64_t i = threadIdx.x; i < 2 * dim; i += blockDim.x) {
    float sum = 0;
    for (std::int64_t slot = first; slot < first + args.k; ++slot) {
      const float key = i < dim ? row_keys[args.row_index[slot] * dim + i]
                                : col_keys[col_of(args.ids[slot]) * dim + (i - dim)];
      sum = fmaf(dscores[slot], key, sum);
    }
    dquery[index * 2 * dim + i] = sum;
  }
}

// A thread a slot.
__global__ void __launch_bounds__(kThreads)
    key_ids_kernel(KeySlots slots, std::int64_t n, std::int64_t* out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < n) out[i] = slots.id(i);
}

// kPerKey threads a key, each its columns; grid-stride over as many keys as the device counted.
// count: keys a set.
template <int kPerKey>
__global__ void __launch_bounds__(kThreads)
    dkeys_kernel(KeySlots slots, ExpertUses found, std::int64_t count, float* dkeys) {
  constexpr int kKeys = kThreads / kPerKey;
  const std::int64_t local = threadIdx.x / kPerKey;
  for (std::int64_t key = std::int64_t{blockIdx.x} * kKeys + local; key < *found.experts;
       key += std::int64_t{gridDim.x} * kKeys) {
    const std::int64_t id = found.ids[key];
    const std::uint32_t begin = found.offsets[key], uses = found.offsets[key + 1] - begin;
    float* out = dkeys + (row_of(id) * count + col_of(id)) * slots.dim;
    for (std::int64_t i = threadIdx.x % kPerKey; i < slots.dim; i += kPerKey) {
      out[i] = slots.add(out[i], i, found.uses + begin, uses);
    }
  }
}

// The keys of a side as a generation of experts: sets are its rows.
OpenGeneration key_grid(const RetrieveArgs& args, const SubKeys& side) {
  return {0, static_cast<std::uint32_t>(side.per_head ? args.heads : 1),
          static_cast<std::uint32_t>(side.count)};
}

bool servable(const RetrieveArgs& args, std::int64_t tokens) {
  return args.k >= 1 && args.heads >= 1 && args.sub_dim >= 1 && tokens >= 0 &&
         tokens * args.heads < kMostBlocks && tokens * args.heads * args.k < kMostBlocks &&
         args.rows.count >= 1 && args.rows.count < kMostBlocks && args.cols.count >= 1 &&
         args.cols.count < kMostBlocks;
}

// The workspace of one side: the slots' keys, their uses grouped, and what grouping needs.
struct Workspace {
  std::int64_t* key_of = nullptr;
  ExpertUses uses;
  void* group = nullptr;
  std::size_t group_bytes = 0, bytes = 0;
};
Workspace lay_out(std::int64_t slots, std::size_t group_bytes, void* start) {
  Workspace w;
  auto* const base = static_cast<unsigned char*>(start);
  const auto take = [&](std::size_t bytes) {
    unsigned char* const at = base + w.bytes;
    w.bytes += (bytes + 255) / 256 * 256;
    return static_cast<void*>(at);
  };
  const auto n = static_cast<std::size_t>(slots);
  w.key_of = static_cast<std::int64_t*>(take(n * sizeof(std::int64_t)));
  w.uses.ids = static_cast<std::int64_t*>(take(n * sizeof(std::int64_t)));
  w.uses.offsets = static_cast<std::uint32_t*>(take((n + 1) * sizeof(std::uint32_t)));
  w.uses.uses = static_cast<Use*>(take(n * sizeof(Use)));
  w.uses.experts = static_cast<std::uint32_t*>(take(sizeof(std::uint32_t)));
  w.group = take(group_bytes);
  w.group_bytes = group_bytes;
  return w;
}

std::size_t group_bytes_of(const RetrieveArgs& args, std::int64_t slots) {
  const std::size_t rows = group_uses_workspace(slots, key_grid(args, args.rows));
  const std::size_t cols = group_uses_workspace(slots, key_grid(args, args.cols));
  return rows == 0 || cols == 0 ? 0 : rows > cols ? rows : cols;
}

Error backward_side(const RetrieveArgs& args, const float* dscores, std::int64_t slots, bool is_row,
                    const Workspace& w, float* dkeys, Stream stream) {
  const SubKeys& side = is_row ? args.rows : args.cols;
  const OpenGeneration grid = key_grid(args, side);
  const KeySlots of{args.heads, args.k,         args.sub_dim, is_row, side.per_head,
                    args.ids,   args.row_index, args.query,   dscores};
  key_ids_kernel<<<static_cast<unsigned>(blocks_for(slots, kThreads)), kThreads, 0, stream>>>(
      of, slots, w.key_of);
  if (const Error error = last_error()) return error;
  const RetrievedIds ids{w.key_of, slots};
  if (const Error error = group_uses(&ids, 1, grid, w.group, w.group_bytes, w.uses, stream)) {
    return error;
  }
  const std::int64_t keys = std::int64_t{grid.rows} * grid.cols;
  const std::int64_t most = keys < slots ? keys : slots;
  const auto blocks = [most](int each) {
    const std::int64_t n = blocks_for(most, each);
    return static_cast<unsigned>(n < kMostGrid ? n : kMostGrid);
  };
  if (args.sub_dim <= 32) {
    dkeys_kernel<32><<<blocks(4), kThreads, 0, stream>>>(of, w.uses, side.count, dkeys);
  } else if (args.sub_dim <= 64) {
    dkeys_kernel<64><<<blocks(2), kThreads, 0, stream>>>(of, w.uses, side.count, dkeys);
  } else {
    dkeys_kernel<128><<<blocks(1), kThreads, 0, stream>>>(of, w.uses, side.count, dkeys);
  }
  return last_error();
}

}  // namespace

Error retrieve_backward_query(const RetrieveArgs& args, const float* dscores, std::int64_t tokens,
                              float* dquery, Stream stream) {
  if (!servable(args, tokens)) return kInvalidValue;
  if (tokens == 0) return 0;
  dquery_kernel<<<static_cast<unsigned>(tokens * args.heads), kThreads, 0, stream>>>(args, dscores,
                                                                                     dquery);
  return last_error();
}

std::size_t retrieve_backward_keys_workspace(const RetrieveArgs& args, std::int64_t tokens) {
  if (!servable(args, tokens)) return 0;
  const std::int64_t slots = tokens * args.heads * args.k;
  const std::size_t group = group_bytes_of(args, slots);
  return group == 0 ? 0 : lay_out(slots, group, nullptr).bytes;
}

Error retrieve_backward_keys(const RetrieveArgs& args, const float* dscores, std::int64_t tokens,
                             void* workspace, std::size_t workspace_bytes, float* drow_keys,
                             float* dcol_keys, Stream stream) {
  if (!servable(args, tokens)) return kInvalidValue;
  const std::int64_t slots = tokens * args.heads * args.k;
  if (slots == 0) return 0;
  const std::size_t group = group_bytes_of(args, slots);
  const Workspace w = lay_out(slots, group, workspace);
  if (group == 0 || workspace_bytes < w.bytes) return kInvalidValue;
  if (const Error error = backward_side(args, dscores, slots, true, w, drow_keys, stream)) {
    return error;
  }
  return backward_side(args, dscores, slots, false, w, dcol_keys, stream);
}

}  // namespace perennial::kernels::cuda
