// SPDX-License-Identifier: Apache-2.0
// The interfaces of perennial/kernels/cuda/, answered by the CPU's kernels on the stand-in device:
// so that the code above them runs on any machine, and its results can be compared bit for bit.
// What the headers promise of pointers is checked.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include "host_device.h"
#include "perennial/kernels/cuda/experts.h"
#include "perennial/kernels/cuda/optimizer.h"
#include "perennial/kernels/cuda/records.h"
#include "perennial/kernels/cuda/retrieve.h"
#include "perennial/kernels/experts.h"
#include "perennial/kernels/optimizer.h"
#include "perennial/kernels/retrieve.h"

namespace perennial::kernels::cuda {

using perennial::cuda::all_of_device;
using perennial::cuda::DeviceAccess;
using perennial::cuda::host_device;
using perennial::cuda::of_device;

namespace {

constexpr Error kHostPointer = 700, kMisaligned = 716;  // as CUDA's

bool aligned16(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

bool all_there(const Frames& frames) {
  if (!all_of_device({frames.spans})) return false;
  for (std::uint32_t s = 0; s < frames.span_count; ++s) {
    const PageSpan& span = frames.spans[s];
    const std::size_t pages = std::size_t{span.rows} * span.tiles;
    if (!of_device(span.frames, pages * sizeof(float*))) return false;
    for (std::size_t i = 0; i < pages; ++i) {
      const std::size_t bytes = frames.tile * static_cast<std::size_t>(frames.record_floats) * 4;
      if (!of_device(span.frames[i], bytes) || !aligned16(span.frames[i])) return false;
    }
  }
  return true;
}

bool all_there(const ExpertArgs& args) {
  return all_there(args.frames) && all_of_device({args.ids, args.weights, args.x});
}

bool all_there(const RetrieveArgs& args) {
  return all_of_device({args.query, args.rows.keys, args.cols.keys, args.rounded_query,
                        args.rows.rounded, args.cols.rounded, args.device_segments, args.ids,
                        args.scores, args.row_index}) &&
         !of_device(args.segments);
}

// 0, or what is wrong with the contributions that are used.
Error error_in(const UpdateArgs& args) {
  if (!all_there(args.weights) || !all_there(args.state) || !of_device(args.ids) ||
      !of_device(args.experts) ||
      !all_of_device({args.rows, args.offsets, args.uses, args.contributions})) {
    return kHostPointer;
  }
  if (*args.experts > args.most_experts) return kInvalidValue;
  if (args.rows != nullptr) return 0;
  const bool wide = args.layout.d_in % 4 == 0 && args.layout.d_out % 4 == 0;
  for (std::uint32_t i = 0; i < args.offsets[*args.experts]; ++i) {
    const Contribution& c = args.contributions[args.uses[i].contribution];
    if (!of_device(c.x) || !of_device(c.dy) || !of_device(c.cu) || !of_device(c.cv) ||
        !all_of_device({c.cw})) {
      return kHostPointer;
    }
    if (wide && !(aligned16(c.x) && aligned16(c.dy))) return kMisaligned;
  }
  return 0;
}

// What a kernel leaves in its work memory is nobody's to read.
Error scribble(void* workspace, std::size_t bytes) {
  if (!of_device(workspace, bytes)) return kHostPointer;
  if (!aligned16(workspace)) return kMisaligned;
  std::memset(workspace, 0xFF, bytes);
  return 0;
}

FrameTable host_table(const Frames& frames) {
  return {{frames.spans, frames.span_count}, frames.tile, frames.record_floats};
}

kernels::ExpertArgs host_args(const ExpertArgs& args) {
  return {.layout = args.layout,
          .activation = args.activation,
          .frames = host_table(args.frames),
          .slots = args.slots,
          .ids = args.ids,
          .weights = args.weights,
          .x = args.x};
}

kernels::RetrieveArgs host_args(const RetrieveArgs& args) {
  return {
      .heads = args.heads,
      .k = args.k,
      .sub_dim = args.sub_dim,
      .query = args.query,
      .rows = {.count = args.rows.count, .per_head = args.rows.per_head, .keys = args.rows.keys},
      .cols = {.count = args.cols.count, .per_head = args.cols.per_head, .keys = args.cols.keys},
      .segments = {args.device_segments, static_cast<std::size_t>(args.segment_count)},
      .ids = args.ids,
      .scores = args.scores,
      .row_index = args.row_index};
}

std::vector<float> panels(std::int64_t heads, std::int64_t dim, kernels::SubKeys& side) {
  const std::int64_t sets = side.per_head ? heads : 1, floats = panel_floats(side.count, dim);
  std::vector<float> out(static_cast<std::size_t>(sets * floats));
  for (std::int64_t set = 0; set < sets; ++set) {
    pack_panels(side.count, dim, side.keys + set * side.count * dim, out.data() + set * floats);
  }
  side.panels = out.data();
  return out;
}

kernels::UpdateArgs host_args(const UpdateArgs& args, std::vector<std::size_t>& offsets) {
  const std::size_t n = *args.experts;
  if (args.rows == nullptr) offsets.assign(args.offsets, args.offsets + n + 1);
  return {.rule = args.rule,
          .layout = args.layout,
          .weights = host_table(args.weights),
          .state = host_table(args.state),
          .ids = {args.ids, n},
          .rows = args.rows,
          .offsets = offsets,
          .uses = {args.uses, offsets.empty() ? 0 : offsets.back()},
          .contributions = {args.contributions, std::size_t{1} << 20}};
}

}  // namespace

const char* error_text(Error error) {
  if (error == kHostPointer) return "a pointer is not to the device's memory";
  if (error == kMisaligned) return "a pointer is misaligned";
  return "invalid argument";
}

std::size_t retrieve_workspace(const RetrieveArgs& /*args*/, std::int64_t /*tokens*/) { return 64; }

Error retrieve(const RetrieveArgs& args, std::int64_t tokens, void* workspace,
               std::size_t workspace_bytes, Stream /*stream*/) {
  if (tokens == 0) return 0;
  const DeviceAccess access;
  if (!all_there(args)) return kHostPointer;
  if (const Error error = scribble(workspace, workspace_bytes); error != 0) return error;
  kernels::RetrieveArgs host = host_args(args);
  std::vector<float> query, row_keys, col_keys;
  if (args.rounded_query != nullptr) {
    const auto promoted = [](const BFloat16* values, std::int64_t n, std::vector<float>& kept) {
      for (std::int64_t i = 0; i < n; ++i) kept.push_back(to_float(values[i]));
      return kept.data();
    };
    const auto side = [&](const SubKeys& keys, std::vector<float>& kept) {
      const std::int64_t sets = keys.per_head ? args.heads : 1;
      return promoted(keys.rounded, sets * keys.count * args.sub_dim, kept);
    };
    host.query = promoted(args.rounded_query, tokens * args.heads * 2 * args.sub_dim, query);
    host.rows.keys = side(args.rows, row_keys);
    host.cols.keys = side(args.cols, col_keys);
  }
  const std::vector<float> rows = panels(args.heads, args.sub_dim, host.rows);
  const std::vector<float> cols = panels(args.heads, args.sub_dim, host.cols);
  kernels::retrieve(host, 0, tokens, 0, args.heads);
  return 0;
}

Error retrieve_backward_query(const RetrieveArgs& args, const float* dscores, std::int64_t tokens,
                              float* dquery, Stream /*stream*/) {
  const DeviceAccess access;
  if (!all_there(args) || !of_device(dscores) || !of_device(dquery)) return kHostPointer;
  kernels::retrieve_backward_query(host_args(args), dscores, 0, tokens, dquery);
  return 0;
}

std::size_t retrieve_backward_keys_workspace(const RetrieveArgs& /*args*/,
                                             std::int64_t /*tokens*/) {
  return 64;
}

Error retrieve_backward_keys(const RetrieveArgs& args, const float* dscores, std::int64_t tokens,
                             void* workspace, std::size_t workspace_bytes, float* drow_keys,
                             float* dcol_keys, Stream /*stream*/) {
  const DeviceAccess access;
  if (!all_there(args) || !of_device(dscores) || !of_device(drow_keys) || !of_device(dcol_keys)) {
    return kHostPointer;
  }
  if (const Error error = scribble(workspace, workspace_bytes); error != 0) return error;
  kernels::retrieve_backward_keys(host_args(args), dscores, tokens, 0, args.heads, drow_keys,
                                  dcol_keys);
  return 0;
}

Error experts_forward(const ExpertArgs& args, std::int64_t tokens, float* coefficients, float* y,
                      float* pre, float* gate, Stream /*stream*/) {
  const DeviceAccess access;
  if (!all_there(args) || !of_device(y) || !of_device(pre) || !all_of_device({gate})) {
    return kHostPointer;
  }
  const auto neurons = static_cast<std::size_t>(tokens * args.slots * args.layout.width);
  if (const Error error = scribble(coefficients, neurons * sizeof(float)); error != 0) return error;
  kernels::experts_forward(host_args(args), y, pre, gate, 0, tokens);
  return 0;
}

Error experts_backward_tokens(const ExpertArgs& args, std::int64_t tokens, const float* pre,
                              const float* gate, const float* dy, float* dx, float* dweights,
                              float* cu, float* cv, float* cw, Stream /*stream*/) {
  const DeviceAccess access;
  if (!all_there(args) || !of_device(pre) || !of_device(dy) || !of_device(dweights) ||
      !of_device(cu) || !of_device(cv) || !all_of_device({gate, dx, cw})) {
    return kHostPointer;
  }
  kernels::experts_backward_tokens(host_args(args), pre, gate, dy, dx, dweights, cu, cv, cw, 0,
                                   tokens);
  return 0;
}

Error score_forward(ScoreFunction function, std::int64_t heads, std::int64_t k, const float* scores,
                    float* weights, std::int64_t tokens, Stream /*stream*/) {
  if (tokens == 0) return 0;
  const DeviceAccess access;
  if (!of_device(scores) || !of_device(weights)) return kHostPointer;
  kernels::score_forward(function, heads, k, scores, weights, 0, tokens);
  return 0;
}

Error score_backward(ScoreFunction function, std::int64_t heads, std::int64_t k,
                     const float* weights, const float* dweights, float* dscores,
                     std::int64_t tokens, Stream /*stream*/) {
  const DeviceAccess access;
  if (!of_device(weights) || !of_device(dweights) || !of_device(dscores)) return kHostPointer;
  kernels::score_backward(function, heads, k, weights, dweights, dscores, 0, tokens);
  return 0;
}

Error dropout(std::uint64_t seed, std::uint64_t draw, double p, const float* in, float* out,
              std::int64_t n, Stream /*stream*/) {
  const DeviceAccess access;
  if (!of_device(in) || !of_device(out)) return kHostPointer;
  kernels::dropout(seed, draw, p, in, out, 0, n);
  return 0;
}

std::size_t group_uses_workspace(std::int64_t /*uses*/, const OpenGeneration& /*generation*/) {
  return 64;
}

Error group_uses(const RetrievedIds* contributions, std::int64_t count,
                 const OpenGeneration& generation, void* workspace, std::size_t workspace_bytes,
                 const ExpertUses& out, Stream /*stream*/) {
  const DeviceAccess access;
  if (of_device(contributions) || !of_device(out.ids) || !of_device(out.offsets) ||
      !of_device(out.uses) || !of_device(out.experts)) {
    return kHostPointer;
  }
  if (const Error error = scribble(workspace, workspace_bytes); error != 0) return error;
  std::vector<std::pair<std::uint64_t, Use>> found;
  for (std::int64_t c = 0; c < count; ++c) {
    if (!of_device(contributions[c].ids)) return kHostPointer;
    for (std::int64_t i = 0; i < contributions[c].n; ++i) {
      const std::int64_t id = contributions[c].ids[i];
      if (row_of(id) - generation.first_row >= generation.rows) continue;
      found.push_back({static_cast<std::uint64_t>(id),
                       {static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(i)}});
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::uint32_t experts = 0;
  for (std::uint32_t i = 0; i < found.size(); ++i) {
    out.uses[i] = found[i].second;
    if (i > 0 && found[i].first == found[i - 1].first) continue;
    out.ids[experts] = static_cast<std::int64_t>(found[i].first);
    out.offsets[experts++] = i;
  }
  out.offsets[experts] = static_cast<std::uint32_t>(found.size());
  *out.experts = experts;
  return 0;
}

Error compact_gradient(const UpdateArgs& args, float* rows, Stream /*stream*/) {
  const DeviceAccess access;
  if (!of_device(rows)) return kHostPointer;
  if (const Error error = error_in(args); error != 0) return error;
  std::vector<std::size_t> offsets;
  const kernels::UpdateArgs host = host_args(args, offsets);
  std::vector<float> one(static_cast<std::size_t>(args.layout.stride()));
  for (std::size_t i = 0; i < host.ids.size(); ++i) {
    kernels::expert_gradient(args.layout, host.contributions,
                             host.uses.subspan(offsets[i], offsets[i + 1] - offsets[i]),
                             one.data());
    std::copy_n(one.data(), args.layout.used(),
                rows + static_cast<std::int64_t>(i) * args.layout.used());
  }
  return 0;
}

Error update_experts(const UpdateArgs& args, Stream /*stream*/) {
  if (args.most_experts == 0) return 0;
  const DeviceAccess access;
  if (const Error error = error_in(args); error != 0) return error;
  if (args.rows == nullptr && args.rule.algorithm == UpdateAlgorithm::rowwise_adagrad &&
      args.layout.used() > kMostAdagradFloats) {
    return kInvalidValue;
  }
  std::vector<std::size_t> offsets;
  std::vector<float> scratch(static_cast<std::size_t>(args.layout.stride()));
  kernels::update_experts(host_args(args, offsets), 0, *args.experts, scratch.data());
  return 0;
}

Error gather_records(const Frames& frames, const std::int64_t* ids, std::int64_t n, float* rows,
                     Stream /*stream*/) {
  const DeviceAccess access;
  if (!all_there(frames) || !of_device(ids) || !of_device(rows)) return kHostPointer;
  if (frames.record_floats % 4 != 0 || !aligned16(rows)) return kMisaligned;
  host_device().gathered += n;
  for (std::int64_t i = 0; i < n; ++i) {
    std::memcpy(rows + i * frames.record_floats, frames.record(ids[i]),
                static_cast<std::size_t>(frames.record_floats) * sizeof(float));
  }
  return 0;
}

Error mark_experts(const std::int64_t* ids, const std::uint32_t* experts, std::int64_t most_experts,
                   const OpenGeneration& generation, std::uint32_t* bits, Stream /*stream*/) {
  if (most_experts == 0) return 0;
  const DeviceAccess access;
  if (!of_device(ids) || !of_device(experts) || !of_device(bits)) return kHostPointer;
  for (std::uint32_t i = 0; i < *experts; ++i) {
    const std::uint64_t bit =
        std::uint64_t{row_of(ids[i]) - generation.first_row} * generation.cols + col_of(ids[i]);
    bits[bit / 32] |= 1u << bit % 32;
  }
  return 0;
}

}  // namespace perennial::kernels::cuda
