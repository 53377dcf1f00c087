// SPDX-License-Identifier: Apache-2.0
// Gradients and updates of the experts on the device: uses grouped by expert, the compact gradient,
// and the sparse update rules. perennial/kernels/optimizer.h states rules and state; bits are the
// CPU's. Symbols: P uses of all contributions, U experts of a step (known on the device only).
#pragma once

#include <cstddef>
#include <cstdint>

#include "perennial/kernels/contribution.h"
#include "perennial/kernels/cuda/device.h"
#include "perennial/kernels/update_rule.h"

namespace perennial::kernels::cuda {

// The generation whose experts learn: uses of other experts are left out.
struct OpenGeneration {
  std::uint32_t first_row = 0, rows = 1, cols = 1;
};
// The ids of one backward, n = B S of them, on the device.
struct RetrievedIds {
  const std::int64_t* ids = nullptr;
  std::int64_t n = 0;
};
// Each expert once, ascending by id; those of expert i are uses[offsets[i] .. offsets[i + 1]), in
// the order in which they came: contribution, token, slot.
struct ExpertUses {
  std::int64_t* ids = nullptr;       // (P), the first U
  std::uint32_t* offsets = nullptr;  // (P + 1), the first U + 1
  Use* uses = nullptr;               // (P)
  std::uint32_t* experts = nullptr;  // (1): U
};

// Bytes of workspace that group_uses needs for `uses` uses, or 0 where it cannot be told.
std::size_t group_uses_workspace(std::int64_t uses, const OpenGeneration& generation);
// Groups the uses of the contributions (host array, in their order) by a stable radix sort. Fewer
// than 2^31 uses in all. Deterministic.
Error group_uses(const RetrievedIds* contributions, std::int64_t count,
                 const OpenGeneration& generation, void* workspace, std::size_t workspace_bytes,
                 const ExpertUses& out, Stream stream);

struct UpdateArgs {
  UpdateRule rule;
  ExpertLayout layout;
  Frames weights, state;                   // hold the experts worked on; no state: not read
  const std::int64_t* ids = nullptr;       // (U)
  const std::uint32_t* experts = nullptr;  // (1): U, on the device
  std::int64_t most_experts = 0;           // at least U: sizes the launch
  const float* rows = nullptr;             // (U, used), or null: then
  const std::uint32_t* offsets = nullptr;  // (U + 1), into
  const Use* uses = nullptr;               // by expert, of
  // An array on the device. Its x and dy start at multiples of 16 bytes where d_in and d_out are
  // multiples of 4.
  const Contribution* contributions = nullptr;
};

// rows: (U, used), overwritten with each expert's gradient (args.rows is not read).
Error compact_gradient(const UpdateArgs& args, float* rows, Stream stream);

// Updates every expert of args.ids once: gradient, moments, weights and step count in one pass.
// Row-wise Adagrad over uses holds an expert's gradient in shared memory and takes layouts of at
// most kMostAdagradFloats; larger ones go through compact_gradient and rows.
inline constexpr std::int64_t kMostAdagradFloats = 11 * 1024;
Error update_experts(const UpdateArgs& args, Stream stream);

}  // namespace perennial::kernels::cuda
