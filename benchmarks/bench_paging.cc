// SPDX-License-Identifier: Apache-2.0
// Question: how fast does a PEER layer's expert part train when its pool pages to a store, beside
// the same pool in memory? A step is forward, backward and Adam over ids drawn from a Zipf
// distribution, through Pool and Pager as the layer and its optimizer go. Cannot show: routing (the
// ids are given), the dense layers around it, commits beside training (see bench_store).
//
//   bench_paging [--json FILE] [--smoke] [--dir FOLDER]
//
// The pool: 131,072 experts of width 256 on 8,192 pages, 0.27 GB and 0.55 GB of optimizer state.
// Placement: popular experts side by side (contiguous) or anywhere (shuffled). Every cell begins
// right after a commit. The store is read past the operating system's cache; the spill file is not,
// so that what comes back from there soon after may cost no read of the device.
//
// Symbols: B tokens, S = 128 slots a token.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <numeric>
#include <random>

#include "bench_store.h"
#include "machine.h"
#include "perennial/core/pool.h"
#include "perennial/core/sparse_optimizer.h"
#include "pool/expert_place.h"
#include "pool/pager.h"

namespace perennial::bench {
namespace {

constexpr std::int64_t kWidth = 256;
constexpr std::int64_t kSlots = 128;
constexpr std::int64_t kTile = 16;
constexpr std::int64_t kCols = 512;

struct Batch {
  at::Tensor ids;  // (B, S)
  at::Tensor x;    // (B, d)
  at::Tensor dy;   // (B, d)
};

// A pool with its optimizer.
class Trainer {
 public:
  Trainer(const storage::PageReader& store, std::int64_t budget_bytes)
      : pool_(Pool::load(0, store, budget_bytes)), optimizer_(*pool_, {}) {}

  Pool& pool() { return *pool_; }

  // Every page comes into a frame, as far as there are frames.
  void load_all() {
    std::vector<std::int64_t> ids;
    for (std::uint32_t row = 0; row < pool_->generation(0).rows; ++row) {
      for (std::uint32_t col = 0; col < kCols; col += kTile) {
        ids.push_back(kernels::expert_id(row, col));
      }
    }
    PagePin pin;
    for (std::size_t at = 0; at < ids.size();) {
      at += pool_->pager().pin_for_update(std::span(ids).subspan(at), pin);
    }
  }

  void step(const Batch& batch) {
    const std::int64_t tokens = batch.x.size(0);
    const at::Tensor weights = at::full({tokens, kSlots}, 1.0F / kSlots);
    const ExpertQuestion question{batch.ids, weights, batch.x};
    ExpertPlace& place = pool_->where();
    const ExpertBackward found = place.backward(question, place.forward(question), batch.dy, true);
    place.keep({kSlots, batch.ids, batch.x, batch.dy, found.cu, found.cv, at::Tensor()});
    optimizer_.step();
  }

 private:
  std::shared_ptr<Pool> pool_;
  SparseOptimizer optimizer_;
};

// Which experts a batch retrieves.
struct Draw {
  double exponent = 0;
  bool shuffled = false;
  std::int64_t tokens = 0;
};

class Batches {
 public:
  Batches(const Draw& draw, std::uint32_t rows) : draw_(draw) {
    const std::size_t experts = std::size_t{rows} * kCols;
    double sum = 0;
    for (std::size_t i = 0; i < experts; ++i) {
      cumulative_.push_back(sum += std::pow(static_cast<double>(i + 1), -draw.exponent));
      ids_.push_back(kernels::expert_id(static_cast<std::uint32_t>(i / kCols),
                                        static_cast<std::uint32_t>(i % kCols)));
    }
    if (draw.shuffled) std::ranges::shuffle(ids_, random_);
  }
  Batch next() {
    Batch batch{.ids = at::empty({draw_.tokens, kSlots}, at::kLong),
                .x = at::randn({draw_.tokens, kWidth}),
                .dy = at::randn({draw_.tokens, kWidth})};
    std::uniform_real_distribution<double> unit(0, cumulative_.back());
    std::span ids(batch.ids.mutable_data_ptr<std::int64_t>(),
                  static_cast<std::size_t>(batch.ids.numel()));
    for (std::int64_t& id : ids) {
      const auto found = std::ranges::lower_bound(cumulative_, unit(random_));
      id = ids_[std::min(ids_.size() - 1, static_cast<std::size_t>(found - cumulative_.begin()))];
    }
    return batch;
  }

 private:
  Draw draw_;
  std::vector<double> cumulative_;
  std::vector<std::int64_t> ids_;  // by rank
  std::mt19937_64 random_{1};
};

// Bytes that read and write calls of this process moved.
struct Moved {
  double read = 0;
  double written = 0;
};
Moved moved() {
  std::ifstream file("/proc/self/io");
  Moved result;
  std::string word;
  double value = 0;
  while (file >> word >> value) {
    if (word == "rchar:") result.read = value;
    if (word == "wchar:") result.written = value;
  }
  return result;
}

class Paging {
 public:
  Paging(StoreRun& run, const std::filesystem::path& folder)
      : run_(run), rows_(static_cast<std::uint32_t>(run.size(256, 16))) {
    make_store(folder);
    store_ = open_store(folder, {.mode = storage::OpenMode::existing,
                                 .direct_reads = true,
                                 .reclaim_in_background = false});
    measure_bandwidth();
    resident_ = std::make_unique<Trainer>(*store_, 0);
    pages_ = static_cast<std::int64_t>(resident_->pool().pages());
    pair_bytes_ = static_cast<std::int64_t>(resident_->pool().pager().weights_page_bytes() +
                                            resident_->pool().pager().state_page_bytes());
    whole_ = std::make_unique<Trainer>(*store_, pages_ * pair_bytes_);
    // A token's pages must fit, also those of a smoke run.
    const std::int64_t tenth = std::max(pages_ / 10, 2 * kSlots);
    tenth_ = std::make_unique<Trainer>(*store_, tenth * pair_bytes_);
    resident_->load_all();
    whole_->load_all();
  }

  void measure(const Draw& draw) {
    char text[96];
    std::snprintf(text, sizeof text, "train, s = %.1f, %s, %d tokens", draw.exponent,
                  draw.shuffled ? "shuffled" : "contiguous", static_cast<int>(draw.tokens));
    const std::size_t steps =
        run_.size(std::clamp<std::size_t>(2048 / static_cast<std::size_t>(draw.tokens), 2, 32), 1);
    Batches source(draw, rows_);
    std::vector<Batch> batches;
    const std::size_t repetitions = run_.repetitions(3);
    for (std::size_t i = 0; i < steps * (repetitions + 1); ++i) batches.push_back(source.next());
    commit(*tenth_);

    std::array<std::size_t, 3> at{};
    Moved paged;
    const auto side = [&](std::size_t index, Trainer& trainer) {
      return [&, index] {
        const Moved before = moved();
        const double start = now();
        for (std::size_t i = 0; i < steps; ++i) trainer.step(batches[at[index]++]);
        const double seconds = now() - start;
        if (&trainer == tenth_.get() && at[index] > steps) {
          const Moved after = moved();
          paged.read += after.read - before.read;
          paged.written += after.written - before.written;
        }
        return seconds;
      };
    };
    const Sides sides{side(0, *resident_), side(1, *whole_), side(2, *tenth_)};
    for (const auto& warm_up : sides) (void)warm_up();
    const PagerCounters before = tenth_->pool().counters();
    const auto seconds = interleave(repetitions, sides);
    const PagerCounters after = tenth_->pool().counters();

    const std::string name(text);
    const auto done = static_cast<double>(steps);
    run_.rows.push_back(rate_row(name + ", cache of 100%; beside memory", "steps/s", done,
                                 seconds[1], seconds[0], 0.95));
    const double hits = static_cast<double>(after.hits - before.hits);
    const double misses =
        static_cast<double>(after.read + after.unspilled - before.read - before.unspilled);
    const bool fits = misses == 0;
    run_.rows.push_back(rate_row(name + ", cache of 10%; beside memory", "steps/s", done,
                                 seconds[2], seconds[0],
                                 fits ? std::optional(0.95) : std::nullopt));
    const double read = paged.read / static_cast<double>(repetitions);
    std::vector<double> bound;
    for (const double compute : seconds[0]) bound.push_back(std::max(compute, read / bandwidth_));
    run_.rows.push_back(rate_row(name + ", cache of 10%; beside the bound of compute and reads",
                                 "steps/s", done, seconds[2], bound,
                                 fits ? std::nullopt : std::optional(0.8)));
    const auto info = [&](const char* what, const char* unit, double value, double whole) {
      run_.rows.push_back({.name = name + ", cache of 10%, " + what,
                           .unit = unit,
                           .ours = summarize({value}),
                           .baseline = summarize({whole}),
                           .ratio = whole > 0 ? value / whole : 0});
    };
    const double pool_mb = 1e-6 * static_cast<double>(pages_ * pair_bytes_);
    info("hits", "%", 100 * hits / (hits + misses), 100);
    info("read a step; beside the pool", "MB", 1e-6 * read / done, pool_mb);
    info("spilled a step; beside the pool", "MB",
         1e-6 * paged.written / static_cast<double>(repetitions) / done, pool_mb);
  }

 private:
  // All pages of weights and of optimizer state, so that nothing is left to recipes.
  void make_store(const std::filesystem::path& folder) {
    const PoolOptions options{.d_in = kWidth,
                              .d_out = kWidth,
                              .cols = kCols,
                              .page_bytes = kTile * 2 * kWidth * std::int64_t{sizeof(float)}};
    Pool pool(0, options, nullptr, 0);
    pool.grow(rows_, kCols, {.seed = 1, .u_scale = 0.06, .v_scale = 0.05});
    const SparseOptimizer optimizer(pool, {});
    storage::CommitRequest request;
    request.retention = storage::Retention{.keep_last = 1};
    pool.add_to_commit(request);
    std::vector<float> weights(pool.payload_bytes() / sizeof(float));
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.05F);
    for (float& weight : weights) weight = normal(random);
    const std::vector<float> state(static_cast<std::size_t>(kTile * pool.state_floats()));
    for (const storage::PageKind kind : {storage::PageKind::weights, storage::PageKind::state}) {
      const std::vector<float>& content = kind == storage::PageKind::weights ? weights : state;
      const storage::PageShape shape{
          .experts = kTile, .record_floats = static_cast<std::uint32_t>(content.size() / kTile)};
      for (std::uint32_t row = 0; row < rows_; ++row) {
        for (std::uint32_t tile = 0; tile < kCols / kTile; ++tile) {
          request.pages.push_back({.id = {.kind = kind, .row = row, .tile = tile},
                                   .shape = shape,
                                   .payload = [&content] {
                                     return storage::Result(std::as_bytes(std::span(content)));
                                   }});
        }
      }
    }
    must(open_store(folder)->commit(request));
  }

  // Bytes a second of whole pages in random order, by eight threads.
  void measure_bandwidth() {
    std::vector<storage::PageId> ids = store_->pages();
    std::ranges::shuffle(ids, std::mt19937(1));
    ids.resize(std::min<std::size_t>(ids.size(), run_.size(4096, 64)));
    const std::size_t page_bytes =
        must(store_->page_shape({.kind = storage::PageKind::state})).payload_bytes();
    double bytes = 0;
    for (const storage::PageId& id : ids) {
      bytes += static_cast<double>(must(store_->page_shape(id)).payload_bytes());
    }
    std::vector<std::vector<std::byte>> buffers(8, std::vector<std::byte>(page_bytes));
    std::vector<double> rates;
    for (std::size_t i = 0; i < run_.repetitions(5); ++i) {
      const double seconds = run_threads(8, ids.size(), [&](std::size_t thread, std::size_t at) {
        const storage::PageShape shape = must(store_->page_shape(ids[at]));
        must(store_->read_page(ids[at], std::span(buffers[thread]).first(shape.payload_bytes())));
      });
      rates.push_back(bytes / seconds);
    }
    bandwidth_ = summarize(rates).median;
    for (double& rate : rates) rate *= 1e-9;
    run_.rows.push_back({.name = "read pages of the pool, 8 threads",
                         .unit = "GB/s",
                         .ours = summarize(rates),
                         .baseline = summarize(rates),
                         .ratio = 1});
  }

  void commit(Trainer& trainer) {
    storage::CommitRequest request;
    trainer.pool().add_to_commit(request);
    must(store_->commit(request));
    trainer.pool().committed();
    (void)must(store_->reclaim({}));
  }

  StoreRun& run_;
  std::uint32_t rows_;
  std::unique_ptr<storage::PageStore> store_;
  std::unique_ptr<Trainer> resident_;  // without a budget
  std::unique_ptr<Trainer> whole_;     // with one that all pages fit
  std::unique_ptr<Trainer> tenth_;     // and one that a tenth fits
  std::int64_t pages_ = 0;
  std::int64_t pair_bytes_ = 0;  // of a page of weights and its page of state
  double bandwidth_ = 0;         // bytes a second
};

int run_paging(const Arguments& arguments) {
  const auto dir = arguments.own.find("--dir");
  const TemporaryFolder folder(dir == arguments.own.end() ? "." : dir->second);
  const boost::json::object machine = describe_machine(folder.path());
  StoreRun run{.smoke = arguments.smoke, .folder = folder.path(), .rows = {}};
  {
    Paging paging(run, folder.path() / "pool");
    for (const double exponent : {1.1, 1.5}) {
      for (const bool shuffled : {false, true}) {
        for (const std::int64_t tokens : {16, 128, 1024}) {
          if (run.smoke && tokens > 16) continue;
          paging.measure({.exponent = exponent, .shuffled = shuffled, .tokens = tokens});
        }
      }
    }
  }
  return report_rows(arguments, machine, run.rows);
}

}  // namespace
}  // namespace perennial::bench

int main(int argc, char** argv) {
  const auto arguments =
      perennial::bench::parse_arguments(argc, argv, {{.name = "--dir", .value = "FOLDER"}});
  try {
    return perennial::bench::run_paging(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_paging: %s\n", error.what());
    return 1;
  }
}
