// SPDX-License-Identifier: Apache-2.0
// Loading, updating and fetching experts on a device.
#include "device_pool.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "perennial/core/error.h"
#include "perennial/kernels/cuda/experts.h"
#include "perennial/kernels/cuda/records.h"
#include "pool/pager.h"
#include "runtime.h"
#include "token_threads.h"

namespace perennial::cuda {

using storage::PageKind;

namespace {

constexpr std::int64_t kFloat = sizeof(float);

// Host memory that may be given back, or used again, as soon as the copy was asked for.
template <class T>
void upload(const std::vector<T>& values, const at::Tensor& to) {
  const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(T));
  at::Tensor from = host_buffer(to.device(), bytes);
  std::memcpy(from.data_ptr(), values.data(), static_cast<std::size_t>(bytes));
  to.copy_(from, /*non_blocking=*/true);
}

}  // namespace

at::Tensor GrowingBuffer::bytes(std::int64_t bytes) {
  if (!memory_.defined() || memory_.numel() < bytes) {
    memory_.reset();  // what there was goes first
    memory_ = at::empty({std::max<std::int64_t>(bytes, 256)},
                        at::TensorOptions().dtype(at::kByte).device(device_));
  }
  return memory_.narrow(0, 0, bytes);
}

DevicePool::DevicePool(Pool& pool, const at::Device& device, std::int64_t staging_bytes)
    : pool_(pool),
      device_(device),
      weights_(device, pool.options().tile(), pool.options().layout().record_floats()),
      workspace_(device),
      ids_(device),
      offsets_(device),
      uses_(device),
      experts_(device),
      contributions_(device),
      rows_(device),
      staging_bytes_(staging_bytes) {
  const c10::DeviceGuard guard(device_);
  follow();
}

at::Tensor DevicePool::staging(std::int64_t least) {
  const std::int64_t bytes = std::max(least, staging_bytes_);
  if (!staging_.defined() || staging_.numel() < bytes) staging_ = host_buffer(device_, bytes);
  return staging_;
}

void DevicePool::load(std::uint32_t index, PageKind kind) {
  const Generation& generation = pool_.generation(index);
  DeviceFrames& frames = kind == PageKind::weights ? weights_ : *state_;
  frames.add(
      index, generation.first_row, generation.rows, pool_.options().tiles(generation.cols),
      [&](std::uint32_t page, std::span<std::byte> payload) {
        pool_.pager().copy_page(index, page, payload, kind);
      },
      staging(frames.bytes(1)));
}

void DevicePool::follow() {
  const std::vector<Generation>& generations = pool_.generations();
  for (const Generation& generation : generations) {
    const std::uint32_t tiles = pool_.options().tiles(generation.cols);
    if (generation.index < tiles_.size()) {
      if (tiles_[generation.index] == tiles) continue;
      // Wider now: its pages have other numbers. The pager's are up to date.
      weights_.remove(generation.index);
      if (state_) state_->remove(generation.index);
      tiles_[generation.index] = 0;
    }
    if (generation.state != GenerationState::unlearned) {
      load(generation.index, PageKind::weights);
    }
    tiles_.resize(std::max<std::size_t>(tiles_.size(), generation.index + 1));
    tiles_[generation.index] = tiles;
  }
  const std::optional<std::uint32_t> open = pool_.open_generation();
  if (!open) {
    state_.reset();
    changes_.reset();
    return;
  }
  const std::int64_t floats = pool_.state_floats();
  if (state_ && (state_->record_floats() != floats || !state_->holds(*open))) state_.reset();
  if (!state_ && floats > 0) {
    state_.emplace(device_, pool_.options().tile(), floats);
    load(*open, PageKind::state);
  }
  const Generation& generation = generations[*open];
  if (!changes_ || changes_->generation != *open || changes_->grid.cols != generation.cols) {
    const std::int64_t experts = std::int64_t{generation.rows} * generation.cols;
    changes_ = {
        *open,
        {generation.first_row, generation.rows, generation.cols},
        at::zeros({(experts + 31) / 32}, at::TensorOptions().dtype(at::kInt).device(device_)),
        false};
  }
}

std::vector<std::int64_t> DevicePool::changed_experts() {
  const at::Tensor bits = changes_->bits.cpu();
  const auto* words = reinterpret_cast<const std::uint32_t*>(bits.const_data_ptr<std::int32_t>());
  const kernels::cuda::OpenGeneration& grid = changes_->grid;
  std::vector<std::int64_t> ids;
  for (std::int64_t w = 0; w < bits.numel(); ++w) {
    for (std::uint32_t left = words[w]; left != 0; left &= left - 1) {
      const auto i = static_cast<std::uint64_t>(w * 32 + std::countr_zero(left));
      ids.push_back(kernels::expert_id(grid.first_row + static_cast<std::uint32_t>(i / grid.cols),
                                       static_cast<std::uint32_t>(i % grid.cols)));
    }
  }
  return ids;
}

void DevicePool::fetch() {
  if (!changes_ || !changes_->any) return;
  const c10::DeviceGuard guard(device_);
  const std::vector<std::int64_t> ids = changed_experts();
  const kernels::cuda::Stream stream = current_stream(device_);
  const std::int64_t weights = weights_.record_floats();
  const std::int64_t state = state_ ? state_->record_floats() : 0;
  const std::int64_t bytes = (weights + state) * kFloat;  // an expert
  const at::Tensor host = staging(bytes);
  const auto all = static_cast<std::int64_t>(ids.size());
  const std::int64_t at_once = std::min(all, host.numel() / bytes);
  PagePin pin;
  for (std::int64_t first = 0; first < all; first += at_once) {
    const std::int64_t n = std::min(at_once, all - first);
    const std::vector<std::int64_t> some(ids.begin() + first, ids.begin() + first + n);
    const at::Tensor on_device = ids_.bytes(n * static_cast<std::int64_t>(sizeof(std::int64_t)));
    upload(some, on_device);
    const auto* list = static_cast<const std::int64_t*>(on_device.data_ptr());
    const at::Tensor records = rows_.bytes(n * bytes);
    auto* const rows = static_cast<float*>(records.data_ptr());
    check(kernels::cuda::gather_records(weights_.table(), list, n, rows, stream), "a fetch");
    if (state_) {
      check(kernels::cuda::gather_records(state_->table(), list, n, rows + n * weights, stream),
            "a fetch");
    }
    host.narrow(0, 0, n * bytes).copy_(records);  // waits
    const auto* from = static_cast<const float*>(host.const_data_ptr());
    for (std::int64_t begin = 0; begin < n;) {
      const std::int64_t end =
          begin + static_cast<std::int64_t>(pool_.pager().pin_for_update(
                      std::span(some).subspan(static_cast<std::size_t>(begin)), pin));
      const kernels::FrameTable to = pool_.pager().table(PageKind::weights);
      const kernels::FrameTable to_state = pool_.pager().table(PageKind::state);
      at::parallel_for(begin, end, 64, [&](std::int64_t i, std::int64_t last) {
        for (; i < last; ++i) {
          const std::int64_t id = some[static_cast<std::size_t>(i)];
          std::memcpy(to.record(id), from + i * weights,
                      static_cast<std::size_t>(weights * kFloat));
          if (state == 0) continue;
          std::memcpy(to_state.record(id), from + n * weights + i * state,
                      static_cast<std::size_t>(state * kFloat));
        }
      });
      begin = end;
    }
  }
  changes_->bits.zero_();
  changes_->any = false;
}

namespace {

kernels::cuda::ExpertArgs expert_args(const kernels::ExpertLayout& layout,
                                      const kernels::cuda::Frames& frames,
                                      const ExpertQuestion& question) {
  kernels::cuda::ExpertArgs args;
  args.layout = layout;
  args.activation = question.activation;
  args.frames = frames;
  args.slots = question.ids.size(1);
  args.ids = question.ids.const_data_ptr<std::int64_t>();
  args.weights = data(question.weights);
  args.x = data(question.x);
  return args;
}

}  // namespace

ExpertAnswer DevicePool::forward(const ExpertQuestion& question) {
  const c10::DeviceGuard guard(device_);
  follow();
  const kernels::ExpertLayout layout = pool_.options().layout();
  const at::TensorOptions like = question.x.options();
  const std::int64_t tokens = question.ids.size(0), neurons = question.ids.size(1) * layout.width;
  ExpertAnswer answer{
      at::empty({tokens, layout.d_out}, like), at::empty({tokens, neurons}, like), {}};
  if (layout.glu) answer.gate = at::empty({tokens, neurons}, like);
  at::Tensor coefficients = at::empty({tokens, neurons}, like);
  check(kernels::cuda::experts_forward(expert_args(layout, weights_.table(), question), tokens,
                                       out(coefficients), out(answer.y), out(answer.pre),
                                       out(answer.gate), current_stream(device_)),
        "the experts' forward");
  return answer;
}

ExpertBackward DevicePool::backward(const ExpertQuestion& question, const ExpertAnswer& answer,
                                    const at::Tensor& dy, bool wants_dx) {
  const c10::DeviceGuard guard(device_);
  follow();
  const kernels::ExpertLayout layout = pool_.options().layout();
  const std::int64_t tokens = question.ids.size(0), slots = question.ids.size(1);
  ExpertBackward found;
  if (wants_dx) found.dx = at::empty_like(question.x);
  found.dweights = at::empty({tokens, slots}, question.x.options());
  found.cu = at::empty({tokens, slots * layout.width}, question.x.options());
  found.cv = at::empty_like(found.cu);
  if (layout.glu) found.cw = at::empty_like(found.cu);
  check(kernels::cuda::experts_backward_tokens(
            expert_args(layout, weights_.table(), question), tokens, data(answer.pre),
            data(answer.gate), data(dy), out(found.dx), out(found.dweights), out(found.cu),
            out(found.cv), out(found.cw), current_stream(device_)),
        "the experts' backward");
  return found;
}

void DevicePool::keep(ExpertTape::Entry entry) {
  std::int64_t uses = entry.ids.numel();
  for (const ExpertTape::Entry& other : entries_) uses += other.ids.numel();
  if (uses >= std::numeric_limits<std::int32_t>::max()) {
    throw Error("a step over " + std::to_string(uses) +
                " retrieved experts is too large; cut the batch");
  }
  entries_.push_back(std::move(entry));
}

DevicePool::Uses DevicePool::group() {
  std::vector<kernels::cuda::RetrievedIds> from;
  std::vector<kernels::Contribution> contributions;
  std::int64_t n = 0;
  for (const ExpertTape::Entry& entry : entries_) {
    from.push_back({entry.ids.const_data_ptr<std::int64_t>(), entry.ids.numel()});
    contributions.push_back({entry.slots, data(entry.x), data(entry.dy), data(entry.cu),
                             data(entry.cv), data(entry.cw)});
    n += entry.ids.numel();
  }
  const kernels::cuda::OpenGeneration& grid = changes_->grid;
  const auto bytes = static_cast<std::int64_t>(kernels::cuda::group_uses_workspace(n, grid));
  if (bytes == 0) throw DeviceError("the uses of experts cannot be grouped on " + device_.str());
  Uses uses;
  uses.found = {ids_.of<std::int64_t>(n), offsets_.of<std::uint32_t>(n + 1),
                uses_.of<kernels::Use>(n), experts_.of<std::uint32_t>(1)};
  uses.most = std::min(n, std::int64_t{grid.rows} * grid.cols);
  check(
      kernels::cuda::group_uses(from.data(), static_cast<std::int64_t>(from.size()), grid,
                                workspace_.bytes(bytes).data_ptr(), static_cast<std::size_t>(bytes),
                                uses.found, current_stream(device_)),
      "grouping uses of experts");
  const at::Tensor list = contributions_.bytes(
      static_cast<std::int64_t>(contributions.size() * sizeof(kernels::Contribution)));
  upload(contributions, list);
  uses.contributions = static_cast<const kernels::Contribution*>(list.data_ptr());
  return uses;
}

kernels::cuda::UpdateArgs DevicePool::update_args(const kernels::UpdateRule& rule) {
  kernels::cuda::UpdateArgs args;
  args.rule = rule;
  args.layout = pool_.options().layout();
  args.weights = weights_.table();
  if (state_) args.state = state_->table();
  args.experts = experts_.of<std::uint32_t>(1);
  return args;
}

kernels::cuda::UpdateArgs DevicePool::update_args(const kernels::UpdateRule& rule,
                                                  const Uses& uses) {
  kernels::cuda::UpdateArgs args = update_args(rule);
  args.ids = uses.found.ids;
  args.most_experts = uses.most;
  args.offsets = uses.found.offsets;
  args.uses = uses.found.uses;
  args.contributions = uses.contributions;
  return args;
}

at::Tensor DevicePool::update(const kernels::cuda::UpdateArgs& args) {
  const kernels::cuda::Stream stream = current_stream(device_);
  changes_->any = true;
  pool_.experts_changed();
  // Marked first: what an update that fails has changed is known.
  check(kernels::cuda::mark_experts(
            args.ids, args.experts, args.most_experts, changes_->grid,
            reinterpret_cast<std::uint32_t*>(changes_->bits.mutable_data_ptr<std::int32_t>()),
            stream),
        "marking experts");
  check(kernels::cuda::update_experts(args, stream), "updating experts");
  entries_.clear();
  return experts_.bytes(sizeof(std::uint32_t)).view(at::kInt).to(at::kLong);
}

at::Tensor DevicePool::step(const kernels::UpdateRule& rule) {
  const c10::DeviceGuard guard(device_);
  follow();
  if (entries_.empty()) {
    return at::zeros({1}, at::TensorOptions().dtype(at::kLong).device(device_));
  }
  const Uses uses = group();
  kernels::cuda::UpdateArgs args = update_args(rule, uses);
  const std::int64_t used = args.layout.used();
  if (rule.algorithm == kernels::UpdateAlgorithm::rowwise_adagrad &&
      used > kernels::cuda::kMostAdagradFloats) {
    // Such a gradient does not fit a block's shared memory, and takes a pass of its own.
    args.most_experts = experts_.bytes(sizeof(std::uint32_t)).view(at::kInt).item<std::int32_t>();
    auto* const rows = rows_.of<float>(args.most_experts * used);
    check(kernels::cuda::compact_gradient(args, rows, current_stream(device_)),
          "the experts' gradient");
    args.rows = rows;
  }
  return update(args);
}

at::Tensor DevicePool::step(const kernels::UpdateRule& rule, const CompactGradient& gradient) {
  const c10::DeviceGuard guard(device_);
  follow();
  const at::Tensor ids = gradient.ids.to(device_).contiguous();
  const at::Tensor values = gradient.values.to(device_).contiguous();
  if (ids.numel() == 0) {
    entries_.clear();
    return at::zeros({1}, at::TensorOptions().dtype(at::kLong).device(device_));
  }
  experts_.bytes(sizeof(std::uint32_t)).view(at::kInt).fill_(ids.numel());
  kernels::cuda::UpdateArgs args = update_args(rule);
  args.ids = ids.const_data_ptr<std::int64_t>();
  args.most_experts = ids.numel();
  args.rows = values.const_data_ptr<float>();
  return update(args);
}

CompactGradient DevicePool::compact_gradient() {
  const c10::DeviceGuard guard(device_);
  follow();
  const std::int64_t used = pool_.options().layout().used();
  const at::TensorOptions on_device = at::TensorOptions().device(device_);
  std::int64_t n = 0;
  Uses uses;
  if (changes_ && !entries_.empty()) {
    uses = group();
    n = experts_.bytes(sizeof(std::uint32_t)).view(at::kInt).item<std::int32_t>();
  }
  CompactGradient gradient{at::empty({n}, on_device.dtype(at::kLong)),
                           at::empty({n, used}, on_device)};
  if (n == 0) return gradient;
  gradient.ids.copy_(
      ids_.bytes(n * static_cast<std::int64_t>(sizeof(std::int64_t))).view(at::kLong));
  kernels::cuda::UpdateArgs args = update_args({}, uses);
  args.most_experts = n;
  check(kernels::cuda::compact_gradient(args, gradient.values.mutable_data_ptr<float>(),
                                        current_stream(device_)),
        "the experts' gradient");
  return gradient;
}

}  // namespace perennial::cuda
