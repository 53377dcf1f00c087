// SPDX-License-Identifier: Apache-2.0
// A million and 16 million experts in pools that page, at an equal hit rate: every page that the
// batches name fits the budget, and is there. (bench_paging measures misses.)
#include "bench_peer.h"
#include "peer_kernels.h"
#include "peer_sides.h"
#include "perennial/storage/memory_store.h"

namespace perennial::bench {
namespace {

// Two experts of d = 256: at random each of 16 million experts brings a page of its own into a
// frame, so that pages are small where frames are to hold what is used.
constexpr std::int64_t kExpertPageBytes = 4096;

class PagedSide {
 public:
  PagedSide(PeerRun& run, std::int64_t side, std::int64_t budget_bytes)
      : sizes_(run.sizes(side, 256)), store_(storage::make_memory_store()) {
    PeerOptions options = peer_options(sizes_);
    options.page_bytes = kExpertPageBytes;
    layer_ = std::make_shared<PeerImpl>(options, store_.get(), budget_bytes);
    layer_->grow();
    layer_->eval();
    batches_.emplace(run, sizes_, run.tokens(1024));
    stages_.emplace(*layer_, sizes_, *batches_);  // every page that they name comes into a frame
    loaded_ = layer_->pool().counters().initialised;
  }
  std::function<void()> forward() {
    return [this, x = batches_->turn()] {
      const at::NoGradGuard no_grad;
      (void)layer_->forward(x());
    };
  }
  std::function<void()> experts() {
    return [this] { stages_->experts_forward(); };
  }
  // True while every page was where it was needed.
  bool only_hits() const { return layer_->pool().counters().initialised == loaded_; }

 private:
  PeerSizes sizes_;
  std::unique_ptr<storage::PageStore> store_;
  std::shared_ptr<PeerImpl> layer_;
  std::optional<Batches> batches_;
  std::optional<Stages> stages_;
  std::uint64_t loaded_ = 0;
};

}  // namespace

void bench_paged(PeerRun& run) {
  run.drop_sides();
  // 8 batches of 1,024 tokens name a million experts at most, each with the other one of its page.
  const double bytes = 8.0 * 1024 * 128 * static_cast<double>(kExpertPageBytes);
  if (!run.fits("paged, N = 4096^2, d = 256", 1.5 * bytes + 3e9)) return;
  // Half of the frames are left to the tokens that come next.
  const auto budget = static_cast<std::int64_t>(2 * bytes);
  PagedSide large(run, 4096, budget), small(run, 1024, budget);
  const auto seconds =
      time_sides(run, run.repetitions(7),
                 {large.experts(), small.experts(), large.forward(), small.forward()});
  if (!large.only_hits() || !small.only_hits()) fail("paged: a page had to be loaded again");
  const auto ms = [&](std::size_t side) {
    std::vector<double> values = seconds[side];
    for (double& value : values) value *= 1e3;
    return values;
  };
  run.rows.push_back(
      limit_row("expert part of 16 million experts, paged <= 1.5 that of a million, 1,024 tokens",
                "ms", ms(0), ms(1), 1.5));
  run.rows.push_back(
      limit_row("forward over 16 million experts, paged <= 3 that over a million, 1,024 tokens",
                "ms", ms(2), ms(3), 3));
}

}  // namespace perennial::bench
