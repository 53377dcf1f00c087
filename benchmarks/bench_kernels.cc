// SPDX-License-Identifier: Apache-2.0
// Question: what does one core make of the CPU kernels of a PEER layer, beside the same steps
// written with eager LibTorch? Cannot show: threads, the pager, the backward, sizes other than
// these.
//
// Symbols: B tokens, H heads, K top-k, S = H K slots, D width of a sub-key, W width of a token.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "comparison.h"
#include "perennial/kernels/experts.h"
#include "perennial/kernels/matmul.h"
#include "perennial/kernels/retrieve.h"

namespace {

using perennial::bench::Comparison;
namespace kernels = perennial::kernels;

struct Sizes {
  std::int64_t tokens = 1024;
  std::int64_t heads = 8;
  std::int64_t top_k = 16;
  std::int64_t sub_dim = 64;
  std::int64_t side = 256;  // rows and columns of the pool: 65,536 experts, 128 MiB
  std::int64_t width = 256;
  std::int64_t tile = 16;  // experts a page: 32 KiB
};

void require_close(const at::Tensor& ours, const at::Tensor& baseline, const char* what) {
  // Both sum some hundred products of unit normals in float32, in different orders.
  if (at::allclose(ours, baseline, 1e-3, 1e-3)) return;
  std::fprintf(stderr, "%s: ours and the baseline disagree\n", what);
  std::exit(1);
}

// A pool and tokens that look for its experts, in the forms both sides use.
class Layer {
 public:
  explicit Layer(const Sizes& sizes)
      : n_(sizes),
        layout_{.d_in = n_.width, .d_out = n_.width},
        x_(at::randn({n_.tokens, n_.width})),
        query_(at::randn({n_.tokens, n_.heads, 2 * n_.sub_dim})),
        row_keys_(at::randn({n_.heads, n_.side, n_.sub_dim})),
        col_keys_(at::randn({n_.heads, n_.side, n_.sub_dim})),
        records_(at::randn({n_.side * n_.side, layout_.stride()}) * 0.05),
        u_(records_.narrow(1, layout_.u(), n_.width).contiguous()),
        v_(records_.narrow(1, layout_.v(), n_.width).contiguous()),
        ids_(at::empty({n_.tokens, n_.heads, n_.top_k}, at::kLong)),
        scores_(at::empty({n_.tokens, n_.heads, n_.top_k})),
        row_index_(at::empty({n_.tokens, n_.heads, n_.top_k}, at::kInt)),
        y_(at::empty({n_.tokens, n_.width})),
        pre_(at::empty({n_.tokens, n_.heads * n_.top_k})),
        row_panels_(packed(row_keys_)),
        col_panels_(packed(col_keys_)),
        segment_{.key_begin = 0, .rows = n_.side, .cols = n_.side, .first_row = 0} {
    for (std::int64_t first = 0; first < n_.side * n_.side; first += n_.tile) {
      frames_.push_back(records_.data_ptr<float>() + first * layout_.stride());
    }
    span_ = {.first_row = 0,
             .rows = static_cast<std::uint32_t>(n_.side),
             .tiles = static_cast<std::uint32_t>(n_.side / n_.tile),
             .frames = frames_.data()};
    retrieve();
    eager_retrieve();
    require_close(scores_, eager_scores_, "retrieve");
    weights_ = at::softmax(scores_, -1).reshape({n_.tokens, n_.heads * n_.top_k}).contiguous();
    flat_ids_ = (ids_.bitwise_right_shift(32) * n_.side + ids_.bitwise_and(0xffffffff))
                    .reshape({n_.tokens, n_.heads * n_.top_k});
    experts();
    require_close(y_, eager_experts(), "experts_forward");
  }
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  void retrieve() {
    kernels::RetrieveArgs args;
    args.heads = n_.heads;
    args.k = n_.top_k;
    args.sub_dim = n_.sub_dim;
    args.query = query_.data_ptr<float>();
    args.rows = {.count = n_.side, .panels = row_panels_.data()};
    args.cols = {.count = n_.side, .panels = col_panels_.data()};
    args.segments = {&segment_, 1};
    args.ids = ids_.data_ptr<std::int64_t>();
    args.scores = scores_.data_ptr<float>();
    args.row_index = row_index_.data_ptr<std::int32_t>();
    kernels::retrieve(args, 0, n_.tokens, 0, n_.heads);
  }
  // The usual way: top-k of rows, top-k of columns, top-k of their K x K sums.
  void eager_retrieve() {
    const auto best = [&](std::int64_t half, const at::Tensor& keys) {
      const at::Tensor q = query_.narrow(2, half * n_.sub_dim, n_.sub_dim);
      return at::topk(at::einsum("bhd,hnd->bhn", {q, keys}), n_.top_k);  // (B, H, K) each
    };
    const auto [row_scores, row_ids] = best(0, row_keys_);
    const auto [col_scores, col_ids] = best(1, col_keys_);
    const at::Tensor sums = (row_scores.unsqueeze(-1) + col_scores.unsqueeze(-2)).flatten(2);
    const auto [scores, pairs] = at::topk(sums, n_.top_k);
    eager_scores_ = scores;
    eager_ids_ = row_ids.gather(2, at::floor_divide(pairs, n_.top_k)) * n_.side +
                 col_ids.gather(2, at::remainder(pairs, n_.top_k));
  }

  void experts() {
    kernels::ExpertArgs args;
    args.layout = layout_;
    args.frames = {.spans = {&span_, 1},
                   .tile = static_cast<std::uint32_t>(n_.tile),
                   .record_floats = layout_.stride()};
    args.slots = n_.heads * n_.top_k;
    args.ids = ids_.data_ptr<std::int64_t>();
    args.weights = weights_.data_ptr<float>();
    args.x = x_.data_ptr<float>();
    kernels::experts_forward(args, y_.data_ptr<float>(), pre_.data_ptr<float>(), nullptr, 0,
                             n_.tokens);
  }
  // The usual way: gathers (B, S, W) of u and of v.
  at::Tensor eager_experts() {
    const at::Tensor u = at::embedding(u_, flat_ids_);
    const at::Tensor h = at::gelu(at::einsum("bsw,bw->bs", {u, x_})) * weights_;
    return at::einsum("bs,bsw->bw", {h, at::embedding(v_, flat_ids_)});
  }

  at::Tensor read_all() const { return records_.sum(); }
  double bytes() const { return static_cast<double>(records_.nbytes()); }

 private:
  std::vector<float> packed(const at::Tensor& keys) const {
    const std::int64_t floats = kernels::panel_floats(n_.side, n_.sub_dim);
    std::vector<float> panels(static_cast<std::size_t>(n_.heads * floats));
    for (std::int64_t head = 0; head < n_.heads; ++head) {
      kernels::pack_panels(n_.side, n_.sub_dim,
                           keys.data_ptr<float>() + head * n_.side * n_.sub_dim,
                           panels.data() + head * floats);
    }
    return panels;
  }

  Sizes n_;
  kernels::ExpertLayout layout_;
  at::Tensor x_, query_, row_keys_, col_keys_;
  at::Tensor records_, u_, v_;
  at::Tensor ids_, scores_, row_index_, y_, pre_, weights_, flat_ids_;
  at::Tensor eager_scores_, eager_ids_;
  std::vector<float> row_panels_, col_panels_;
  kernels::KeySegment segment_;
  std::vector<float*> frames_;
  kernels::PageSpan span_;
};

}  // namespace

int main(int argc, char** argv) {
  const auto arguments = perennial::bench::parse_arguments(argc, argv);
  at::set_num_threads(1);
  at::manual_seed(1);
  const Sizes n = arguments.smoke ? Sizes{.tokens = 16, .side = 32, .width = 64} : Sizes{};
  Layer layer(n);

  // What retrieval multiplies: tokens by one head's keys.
  const at::Tensor a = at::randn({n.tokens, n.sub_dim});
  const at::Tensor b = at::randn({n.side, n.sub_dim});
  at::Tensor out = at::empty({n.tokens, n.side});
  const auto multiply = [&] {
    kernels::matmul_nt(n.tokens, n.side, n.sub_dim, a.data_ptr<float>(), n.sub_dim,
                       b.data_ptr<float>(), n.sub_dim, nullptr, out.data_ptr<float>(), n.side);
  };
  multiply();
  require_close(out, at::matmul(a, b.t()), "matmul_nt");
  const std::int64_t large = arguments.smoke ? 64 : 1024;
  const at::Tensor square = at::randn({large, large});

  const auto tokens = static_cast<double>(n.tokens);
  const auto slots = static_cast<double>(n.heads * n.top_k);
  const auto cube = static_cast<double>(large) * static_cast<double>(large * large);
  return perennial::bench::run_comparisons(
      arguments, {{.name = "matmul_nt",
                   .unit = "GFLOP/s",
                   .work = 2e-9 * tokens * static_cast<double>(n.side * n.sub_dim),
                   .ours = multiply,
                   .baseline = [&] { at::matmul_out(out, a, b.t()); },
                   .target = {},
                   .ceiling = [&] { at::matmul(square, square); },
                   .ceiling_work = 2e-9 * cube},
                  {.name = "retrieve",
                   .unit = "tokens/s",
                   .work = tokens,
                   .ours = [&] { layer.retrieve(); },
                   .baseline = [&] { layer.eager_retrieve(); },
                   .target = {},
                   .ceiling = {}},
                  {.name = "experts_forward",
                   .unit = "GB/s of experts",
                   .work = 1e-9 * tokens * slots * static_cast<double>(2 * n.width) * sizeof(float),
                   .ours = [&] { layer.experts(); },
                   .baseline = [&] { layer.eager_experts(); },
                   .target = {},
                   .ceiling = [&] { layer.read_all(); },
                   .ceiling_work = 1e-9 * layer.bytes()}});
}
