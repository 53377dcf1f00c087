// SPDX-License-Identifier: Apache-2.0
// Forward, backward and steps of experts over the kernels, chunk by chunk of what the pager can
// hold.
#include "pool/host_place.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "token_threads.h"

namespace perennial {

namespace {

// Experts a thread takes at once: enough that each finds the next one's lines on their way.
constexpr std::int64_t kExpertGrain = 16;

kernels::ExpertArgs args_of(const ExpertQuestion& question, const kernels::ExpertLayout& layout) {
  kernels::ExpertArgs args;
  args.layout = layout;
  args.activation = question.activation;
  args.slots = question.ids.size(1);
  args.ids = question.ids.const_data_ptr<std::int64_t>();
  args.weights = data(question.weights);
  args.x = data(question.x);
  return args;
}

// Calls work(begin, end) for chunks of tokens whose experts are in frames, which args.frames are.
void over_pinned_tokens(Pager& pager, std::int64_t tokens, kernels::ExpertArgs& args, PinUse use,
                        const std::function<void(std::int64_t, std::int64_t)>& work) {
  PagePin pin;
  for (std::int64_t begin = 0; begin < tokens;) {
    const std::int64_t end = pager.pin_tokens(args.ids, args.slots, begin, tokens, pin, use);
    if (end < tokens) pager.prefetch_tokens(args.ids, args.slots, end, tokens);
    args.frames = pager.table(storage::PageKind::weights);
    work(begin, end);
    begin = end;
  }
}

// kernels::experts_forward over tokens whose experts are in frames, shared out between threads: by
// tokens, or, where they are fewer than threads, within each.
void forward_experts(const kernels::ExpertArgs& args, float* y, float* pre, float* gate,
                     std::int64_t begin, std::int64_t end) {
  if (end - begin >= sharing_threads()) {
    over_experts_tokens(begin, end, [&](auto from, auto to) {
      kernels::experts_forward(args, y, pre, gate, from, to);
    });
    return;
  }
  // Threads share each token: its neurons first, then its outputs by cache lines.
  constexpr std::int64_t kLine = 16;
  const std::int64_t d_out = args.layout.d_out, neurons = args.slots * args.layout.width;
  std::vector<float> coefficients(static_cast<std::size_t>(neurons));
  for (std::int64_t token = begin; token < end; ++token) {
    share_out(0, kernels::expert_groups(args), 1, [&](auto from, auto to) {
      kernels::expert_coefficients(args, token, pre + token * neurons,
                                   gate == nullptr ? nullptr : gate + token * neurons,
                                   coefficients.data(), from, to);
    });
    share_out(0, (d_out + kLine - 1) / kLine, 4, [&](auto from, auto to) {
      kernels::expert_sums(args, token, coefficients.data(), y + token * d_out, from * kLine,
                           std::min(to * kLine, d_out));
    });
  }
}

}  // namespace

ExpertAnswer HostPlace::forward(const ExpertQuestion& question) {
  const kernels::ExpertLayout layout = pool_.options().layout();
  const std::int64_t tokens = question.ids.size(0), neurons = question.ids.size(1) * layout.width;
  ExpertAnswer answer{at::empty({tokens, layout.d_out}), at::empty({tokens, neurons}), {}};
  if (layout.glu) answer.gate = at::empty({tokens, neurons});
  kernels::ExpertArgs args = args_of(question, layout);
  over_pinned_tokens(pool_.pager(), tokens, args, PinUse::read, [&](auto begin, auto end) {
    forward_experts(args, out(answer.y), out(answer.pre), out(answer.gate), begin, end);
  });
  return answer;
}

ExpertBackward HostPlace::backward(const ExpertQuestion& question, const ExpertAnswer& answer,
                                   const at::Tensor& dy, bool wants_dx) {
  const kernels::ExpertLayout layout = pool_.options().layout();
  const std::int64_t tokens = question.ids.size(0), slots = question.ids.size(1);
  ExpertBackward found;
  if (wants_dx) found.dx = at::empty_like(question.x);
  found.dweights = at::empty({tokens, slots});
  found.cu = at::empty({tokens, slots * layout.width});
  found.cv = at::empty_like(found.cu);
  if (layout.glu) found.cw = at::empty_like(found.cu);
  kernels::ExpertArgs args = args_of(question, layout);
  over_pinned_tokens(pool_.pager(), tokens, args, PinUse::again, [&](auto first, auto last) {
    over_experts_tokens(first, last, [&](auto begin, auto end) {
      kernels::experts_backward_tokens(args, data(answer.pre), data(answer.gate), data(dy),
                                       out(found.dx), out(found.dweights), out(found.cu),
                                       out(found.cv), out(found.cw), begin, end);
    });
  });
  return found;
}

CompactGradient HostPlace::compact_gradient() {
  const std::optional<std::uint32_t> open = pool_.open_generation();
  const kernels::ExpertLayout layout = pool_.options().layout();
  const ExpertUses uses = open ? tape_.uses(pool_.generation(*open)) : ExpertUses();
  const auto n = static_cast<std::int64_t>(uses.ids.size());
  CompactGradient gradient{at::empty({n}, at::kLong), tape_.gradient_memory(n, layout.used())};
  std::copy(uses.ids.begin(), uses.ids.end(), gradient.ids.data_ptr<std::int64_t>());
  float* rows = gradient.values.data_ptr<float>();
  const bool padded = layout.stride() != layout.used();
  at::parallel_for(0, n, kExpertGrain, [&](auto begin, auto end) {
    std::vector<float> record(static_cast<std::size_t>(padded ? layout.stride() : 0));
    for (std::int64_t i = begin; i < end; ++i) {
      float* row = rows + i * layout.used();
      kernels::expert_gradient(layout, uses.contributions, uses.of(static_cast<std::size_t>(i)),
                               padded ? record.data() : row);
      if (padded) std::copy_n(record.data(), layout.used(), row);
    }
  });
  return gradient;
}

// Pins weight and state pages of as many experts at a time as fit, and updates those.
at::Tensor HostPlace::update(kernels::UpdateArgs& args) {
  const struct Release {
    PagePin& pin;
    ~Release() { pin.release(); }
  } release{pin_};
  Pager& pager = pool_.pager();
  const auto experts = static_cast<std::int64_t>(args.ids.size());
  if (experts > 0) pool_.experts_changed();
  for (std::int64_t begin = 0; begin < experts;) {
    const auto end = begin + static_cast<std::int64_t>(pager.pin_for_update(
                                 args.ids.subspan(static_cast<std::size_t>(begin)), pin_));
    args.weights = pager.table(storage::PageKind::weights);
    args.state = pager.table(storage::PageKind::state);
    at::parallel_for(begin, end, kExpertGrain, [&](std::int64_t from, std::int64_t to) {
      thread_local std::vector<float> scratch;
      scratch.resize(static_cast<std::size_t>(args.layout.stride()));
      kernels::update_experts(args, from, to, scratch.data());
    });
    begin = end;
  }
  tape_.clear();
  return at::full({1}, experts, at::kLong);
}

at::Tensor HostPlace::step(const kernels::UpdateRule& rule) {
  const std::optional<std::uint32_t> open = pool_.open_generation();
  const ExpertUses uses = open ? tape_.uses(pool_.generation(*open)) : ExpertUses();
  kernels::UpdateArgs args;
  args.rule = rule;
  args.layout = pool_.options().layout();
  args.ids = uses.ids;
  args.offsets = uses.offsets;
  args.uses = uses.uses;
  args.contributions = uses.contributions;
  return update(args);
}

at::Tensor HostPlace::step(const kernels::UpdateRule& rule, const CompactGradient& gradient) {
  const at::Tensor ids = gradient.ids.cpu().contiguous();
  const at::Tensor values = gradient.values.cpu().contiguous();
  kernels::UpdateArgs args;
  args.rule = rule;
  args.layout = pool_.options().layout();
  args.ids = {ids.const_data_ptr<std::int64_t>(), static_cast<std::size_t>(ids.numel())};
  args.rows = values.const_data_ptr<float>();
  return update(args);
}

}  // namespace perennial
