// SPDX-License-Identifier: Apache-2.0
// Our layer beside dense feed-forward layers: of as many active parameters as ours has (hidden
// width H K), and of as many in all, where N is small enough for that to be a layer anyone runs.
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>

#include <cmath>

#include "bench_peer.h"
#include "peer_sides.h"

namespace perennial::bench {
namespace {

class Dense {
 public:
  Dense(std::int64_t width, std::int64_t hidden) {
    const auto leaf = [](std::int64_t rows, std::int64_t cols) {
      return (at::randn({rows, cols}) / std::sqrt(static_cast<double>(rows))).requires_grad_();
    };
    in_ = leaf(width, hidden);
    out_ = leaf(hidden, width);
    optimizer_ = std::make_unique<FusedAdam>(std::vector{in_, out_});
  }
  at::Tensor run(const at::Tensor& x) const {
    return at::matmul(at::gelu(at::matmul(x, in_)), out_);
  }
  void forward(const at::Tensor& x) const {
    const at::NoGradGuard no_grad;
    (void)run(x);
  }
  void step(const at::Tensor& x, const at::Tensor& dy) {
    in_.mutable_grad().reset();
    out_.mutable_grad().reset();
    run(x.detach().requires_grad_()).backward(dy);
    optimizer_->step();
  }

 private:
  at::Tensor in_, out_;
  std::unique_ptr<FusedAdam> optimizer_;
};

void beside(PeerRun& run, OurSide& ours, const std::string& name, std::int64_t hidden) {
  const PeerSizes& sizes = ours.sizes();
  Dense dense(sizes.width, hidden);
  for (const std::int64_t wanted : {std::int64_t{1024}, std::int64_t{1}}) {
    const Batches batches(run, sizes, run.tokens(wanted));
    const at::Tensor dy = at::ones_like(batches.all().front());
    const std::string what = count_of(wanted, "token") + name;
    const auto x = batches.turn();
    const auto forward = time_sides(run, run.repetitions(5),
                                    {[&] { ours.forward(x()); }, [&] { dense.forward(x()); }});
    run.rows.push_back(
        rate_row("forward, " + what, "tokens/s", batches.tokens(), forward[0], forward[1]));
    if (!ours.trains()) continue;
    const auto step = time_sides(run, run.repetitions(5),
                                 {[&] { ours.step(x(), dy); }, [&] { dense.step(x(), dy); }});
    run.rows.push_back(rate_row("forward + backward + Adam, " + what, "tokens/s", batches.tokens(),
                                step[0], step[1]));
  }
}

}  // namespace

void bench_dense(PeerRun& run) {
  beside(run, run.ours(), ", N = 1M; beside a dense layer of equal active parameters",
         run.ours().sizes().slots());
  OurSide small(run.sizes(128, 256));
  small.attach_optimizer();
  beside(run, small, ", N = 16,384; beside a dense layer of equal parameters in all",
         small.sizes().experts());
}

}  // namespace perennial::bench
