// SPDX-License-Identifier: Apache-2.0
// The expert pool: a grid of single-neuron experts that grows by generations, freezes them, and
// pages them between memory and a store.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/core/names.h"
#include "perennial/core/options.h"
#include "perennial/core/page_memory.h"
#include "perennial/core/pager_counters.h"
#include "perennial/kernels/expert_id.h"
#include "perennial/storage/page_store.h"

namespace perennial {

namespace kernels {
EnumNames<WeightType> enum_names(WeightType);
}  // namespace kernels

enum class Distribution : std::uint8_t { normal, uniform };
EnumNames<Distribution> enum_names(Distribution);

// How the experts of a generation get their initial values: a function of this record, the row and
// the column only, computed with integer and exactly rounded operations (kernels/philox.h), so that
// a page that was never written needs no storage; bf16 weights are these, rounded to the nearest
// (ties to even). Part of the stored format.
struct Recipe {
  std::int64_t version = 1;
  Distribution distribution = Distribution::normal;
  std::int64_t seed = 0;
  std::int64_t origin_pool = 0;  // pool and first row that the values were first drawn for
  std::int64_t origin_row = 0;
  double u_scale = 0;  // standard deviation (normal) or half-width (uniform) of u and w
  double v_scale = 0;  // of v; u_scale and v_scale are not both 0

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("version", self.version, "algorithm of the initial values", Range{1, 1});
    visitor("distribution", self.distribution, "shape of the initial values");
    visitor("seed", self.seed, "seed of the initial values", Range{0, 9e15});
    visitor("origin_pool", self.origin_pool, "pool the values were drawn for",
            Range{0, 4294967295.});
    visitor("origin_row", self.origin_row, "first row they were drawn for", Range{0, 4294967295.});
    visitor("u_scale", self.u_scale, "scale of u and w", Range{0, 1e6});
    visitor("v_scale", self.v_scale, "scale of v", Range{0, 1e6});
  }
};

// open: it trains; at most the newest of a pool. frozen: it never changes again. unlearned: its
// experts, keys and digests are gone for good, and it answers nothing; only its place is still
// taken, because ids never change.
enum class GenerationState : std::uint8_t { open, frozen, unlearned };
EnumNames<GenerationState> enum_names(GenerationState);

// A span of rows appended by one grow().
struct Generation {
  std::uint32_t index = 0;
  std::uint32_t first_row = 0;
  std::uint32_t rows = 0;
  std::uint32_t cols = 0;
  GenerationState state = GenerationState::open;
  Recipe recipe;
  // Frozen only: XXH3-128 over recipe, router and the sorted (row, tile, payload digest) list of
  // the written pages.
  storage::Digest digest;
  storage::Digest router_digest;
};

struct PoolOptions {
  std::int64_t d_in = 0;
  std::int64_t d_out = 0;
  bool glu = false;
  std::int64_t expert_width = 1;  // neurons an expert, r
  kernels::WeightType dtype = kernels::WeightType::f32;
  // Columns of the first generation. Part of the stored format (with page_bytes it fixes the tile).
  std::int64_t cols = 32;
  // Target size of a page; a page holds at least one expert. Part of the stored format.
  std::int64_t page_bytes = 32768;

  // Experts a page: max(1, min(cols, page_bytes / expert bytes)). Throws InvalidOptions when a page
  // of weights, or of optimizer state, would exceed storage::kMaxPageBytes.
  std::int64_t tile() const;
  // Pages that `cols` columns of a row take.
  std::uint32_t tiles(std::uint32_t cols) const;
  // Pages of a generation of rows x cols. Throws InvalidOptions beyond 2^31: the pager numbers the
  // pages of a generation in 32 bits.
  std::uint64_t pages(std::uint32_t rows, std::uint32_t cols) const;
  kernels::ExpertLayout layout() const { return {d_in, d_out, glu, expert_width, dtype}; }

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("d_in", self.d_in, "input width", Range{1, 262144});
    visitor("d_out", self.d_out, "output width", Range{1, 262144});
    visitor("glu", self.glu, "gated experts act(u.x)(w.x)v");
    visitor("expert_width", self.expert_width, "neurons an expert", Range{1, 65536});
    visitor("dtype", self.dtype, "type of the experts' weights");
    visitor("cols", self.cols, "columns of the first generation", Range{1, 4294967295.});
    visitor("page_bytes", self.page_bytes, "target size of a page in bytes", Range{1, 4194304});
  }
};

// Gradients of the experts that were retrieved since the last step, and of no others.
struct CompactGradient {
  at::Tensor ids;     // (U) int64, ascending
  at::Tensor values;  // (U, r (d_in + d_out [+ d_in])) fp32: du, dv [, dw]
};

// A copy of experts' weights, for inspection: rows u (r d_in), v (r d_out) [, w (r d_in)], neuron
// by neuron. fp32 whatever the type of the weights.
struct ExpertValues {
  at::Tensor u, v, w;  // (n, r d_in), (n, r d_out), (n, r d_in) or undefined
};

// A page of weights that was ever written. All others hold their recipe's values.
struct WrittenPage {
  std::uint32_t page = 0;  // row within the generation * tiles a row + tile
  storage::Digest digest;  // of its payload
};

// The pages of one kind that are not what they were at first.
struct PageContents {
  at::Tensor places;    // (n, 2) int64: generation, page within it
  at::Tensor payloads;  // (n, bytes of a page) uint8
};

// A frozen generation that was learnt in another pool of the same layout and tile.
struct ForeignGeneration {
  std::uint32_t rows = 0;
  std::uint32_t cols = 0;
  Recipe recipe;                     // keeps its origin, so that unwritten pages keep their values
  std::vector<WrittenPage> written;  // ascending, below PoolOptions::pages(rows, cols)
  // Copies the payload of a written page; may throw.
  std::function<void(std::uint32_t page, std::span<std::byte> payload)> read;
};

class Pager;
class ExpertPlace;

// Owns the generations, the pager and the gradients that wait for the optimizer. A store tells its
// pools apart by number and by name; both enter the draws of new experts. Single-threaded from
// outside; uses ATen's threads inside. Members that read or write experts may do I/O.
class Pool {
 public:
  // An empty pool whose pages are in a memory that it shares with other pools; Error when that, or
  // its store, has a pool of this number. Too small a budget is refused when it is used, with the
  // figures.
  Pool(std::uint32_t id, const PoolOptions& options, std::shared_ptr<PageMemory> memory,
       std::string name = std::string(kDefaultName));
  // With a memory of its own, PageMemory(store, budget_bytes).
  Pool(std::uint32_t id, const PoolOptions& options, const storage::PageReader* store,
       std::int64_t budget_bytes, std::string name = std::string(kDefaultName));
  // The pool as the current state of the memory's store has it. Throws StorageError, DataError.
  static std::shared_ptr<Pool> load(std::uint32_t id, std::shared_ptr<PageMemory> memory);
  // `listed`: what pages() of that store gives, so that several pools need one list.
  static std::shared_ptr<Pool> load(std::uint32_t id, std::shared_ptr<PageMemory> memory,
                                    std::span<const storage::PageId> listed);
  static std::shared_ptr<Pool> load(std::uint32_t id, const storage::PageReader& store,
                                    std::int64_t budget_bytes);
  // The numbers of the pools that the state has, ascending.
  static std::vector<std::uint32_t> stored_pools(const storage::PageReader& store);
  // Its generations, without loading it. Throws StorageError, DataError.
  static std::vector<Generation> stored_generations(std::uint32_t id,
                                                    const storage::PageReader& store);
  // Takes generations out of a stored pool, loading nothing: adds to `request` what
  // drop_generations_from() and drop_generation() of unlearn.h say.
  static void drop_generations_from(const storage::PageReader& store, std::uint32_t id,
                                    std::uint32_t keep, storage::CommitRequest& request);
  static void drop_generation(const storage::PageReader& store, std::uint32_t id,
                              std::uint32_t generation, storage::CommitRequest& request);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  const PoolOptions& options() const { return options_; }
  std::uint32_t id() const { return id_; }
  const std::string& name() const { return name_; }
  const std::shared_ptr<PageMemory>& memory() const { return memory_; }
  std::int64_t budget_bytes() const { return memory_->budget_bytes(); }
  const std::vector<Generation>& generations() const { return generations_; }
  const Generation& generation(std::uint32_t index) const;
  // The generation that trains, if any.
  std::optional<std::uint32_t> open_generation() const;
  // The oldest generation that was not unlearned; 0 in an empty pool.
  std::uint32_t oldest_kept() const;
  // The newest generation that has ever trained (a page of it was written), if any.
  std::optional<std::uint32_t> newest_trained() const;
  std::uint64_t experts() const;
  std::uint64_t pages() const;  // pages of weights that the generations span

  // Appends rows x cols experts as a new open generation; writes no page and renumbers nothing.
  // Throws Error while another generation is open.
  const Generation& grow(std::uint32_t rows, std::uint32_t cols, const Recipe& recipe);
  // Appends columns to the open generation; an Error without one. require_columns() only looks
  // whether that can be.
  void grow_columns(std::uint32_t cols);
  void require_columns(std::uint32_t cols) const;
  // Closes the open generation for good: drops its optimizer state, records its digest and returns
  // it. `router_digest` covers what routes to it.
  storage::Digest freeze(const storage::Digest& router_digest);
  // The same where all pages were read: `written` is written_pages() of the open generation now.
  storage::Digest freeze(const storage::Digest& router_digest,
                         const std::vector<WrittenPage>& written);
  // The digest of a frozen generation as its pages are now; equal to Generation::digest unless
  // something is badly wrong. Cost: reads what was not committed yet, else the page list.
  storage::Digest shard_digest(std::uint32_t generation);

  // The same of any generation of this pool's tile, had it these pages written.
  storage::Digest shard_digest(const Generation& generation,
                               const std::vector<WrittenPage>& written) const;

  // The pages of a generation that were ever written, ascending. Cost as shard_digest().
  std::vector<WrittenPage> written_pages(std::uint32_t generation);
  // Bytes of a page of weights: tile() records of layout().record_bytes(), the last ones of a row
  // for experts that do not exist when the columns are no multiple of the tile.
  std::size_t payload_bytes() const;
  // Copies a page of weights, written or not; the cache stays as it is.
  void read_page(std::uint32_t generation, std::uint32_t page, std::span<std::byte> payload) const;
  // What a page of such a generation, of this pool or not, holds before it is written.
  // Thread-safe.
  void initial_page(const Generation& generation, std::uint32_t page,
                    std::span<std::byte> payload) const;
  // The generation that would be appended now, open, with that recipe. Throws as grow() does.
  Generation next_generation(std::uint32_t rows, std::uint32_t cols, const Recipe& recipe) const;
  // Appends a frozen generation; its written pages go into the next commit. Throws DataError when
  // a page has not the digest it should have, and what `read` throws; the pool is then as before.
  const Generation& add_frozen(const ForeignGeneration& content,
                               const storage::Digest& router_digest);
  // Takes the last add_frozen() back, before a commit has begun.
  void remove_added();

  // For an archive: what is in the pages, the record that commits have, and the pool that has these
  // generations and pages instead of its own. restore() throws Error for a pool that a store holds
  // or that is on a device, and DataError for pages that do not fit; the pool is then as before.
  // An optimizer stays attached.
  PageContents contents(storage::PageKind kind) const;
  std::string record() const;
  void restore(const std::vector<Generation>& generations, const PageContents& weights,
               const PageContents& state);

  // Copies of experts in any order. Throws Error for an id that does not exist.
  ExpertValues experts_at(const std::vector<std::int64_t>& ids);
  bool exists(std::int64_t id) const;

  // Gradients gathered since they were last cleared, summed per expert in (backward, token, head)
  // order; experts of frozen generations have none. Allocates (U, d), or takes the memory of the
  // last one when nobody holds that any more.
  CompactGradient compact_gradient();
  // Forgets them. The memory of the last compact gradient stays, as between steps.
  void zero_grad();
  // Forgets them and gives that memory back.
  void clear_gradients();

  // Floats of optimizer state an expert has (0 before a SparseOptimizer is attached).
  std::int64_t state_floats() const;

  // Adds the pool's record to `request`. The pages of a shared memory are added by its
  // add_to_commit(), before the records of its pools: an Error otherwise. A pool with a memory of
  // its own adds its pages, too, and passes committed() and commit_failed() on to it.
  void add_to_commit(storage::CommitRequest& request);
  void committed();
  void commit_failed();
  // Of all pools of the memory.
  PagerCounters counters() const { return memory_->counters(); }

  // Where the experts live: in the pager's frames, or elsewhere. What reads or changes pages of a
  // pool whose experts live elsewhere brings the pages up to date first.
  ExpertPlace& where() const { return *place_; }
  at::Device device() const;
  // Takes the experts from where they live to there; null: into the pager's frames. Gathered
  // gradients are dropped.
  void place(std::shared_ptr<ExpertPlace> place);

  // Layers that read the pool. Throws Error where there are several; why: ", which move as one".
  std::size_t readers() const { return readers_; }
  void require_one_reader(std::string_view why) const;
  void add_reader() { ++readers_; }
  void remove_reader() { --readers_; }

  // For the module and the optimizer of this library. The version counts steps that had gradients.
  std::uint64_t experts_version() const { return experts_version_; }
  void experts_changed() { ++experts_version_; }
  Pager& pager() { return *pager_; }

 private:
  enum class Memory : std::uint8_t { own, shared };
  Pool(std::uint32_t id, const PoolOptions& options, std::shared_ptr<PageMemory> memory,
       std::string name, Memory whose);
  static std::shared_ptr<Pool> load(std::uint32_t id, std::shared_ptr<PageMemory> memory,
                                    std::span<const storage::PageId> listed, Memory whose);
  // Throws Error where the memory's store has a pool of this number.
  void require_new() const;
  void fetch() const;

  std::uint32_t id_;
  std::string name_;
  PoolOptions options_;
  std::vector<Generation> generations_;
  std::uint64_t experts_version_ = 0;
  std::size_t readers_ = 0;
  std::shared_ptr<PageMemory> memory_;
  Memory whose_;
  std::unique_ptr<Pager> pager_;
  std::shared_ptr<ExpertPlace> place_;
  bool in_store_;  // reads from a store, or was committed to one
};

}  // namespace perennial
