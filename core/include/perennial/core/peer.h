// SPDX-License-Identifier: Apache-2.0
// The PEER layer: product-key retrieval over a growable pool of single-neuron experts
// (He, "Mixture of A Million Experts", arXiv 2407.04153).
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "perennial/core/amp.h"
#include "perennial/core/dense_entries.h"
#include "perennial/core/options.h"
#include "perennial/core/participant.h"
#include "perennial/core/pool.h"
#include "perennial/kernels/experts.h"

namespace perennial {

namespace kernels {
EnumNames<Activation> enum_names(Activation);
EnumNames<ScoreFunction> enum_names(ScoreFunction);
}  // namespace kernels

// isolated: every generation has its own query network, norm and sub-keys, frozen with it, so
// learning a newer one cannot change its output by one bit. shared: one query network, norm and
// column keys, a growing table of row keys; new rows are masked until unmask().
enum class Routing : std::uint8_t { isolated, shared };
EnumNames<Routing> enum_names(Routing);

// Norm of the query. batch: the paper's, with running statistics in evaluation, folded into the
// query network when an isolated generation freezes. layer, rms: per token and head.
enum class QueryNorm : std::uint8_t { batch, rms, none, layer };
EnumNames<QueryNorm> enum_names(QueryNorm);

enum class SubKeys : std::uint8_t { per_head, common };
EnumNames<SubKeys> enum_names(SubKeys);

// Of which forwards a backward leaves the experts' gradients to the SparseOptimizer: those in
// training mode, which spares whoever asks for gradients of inputs in evaluation, or all, or none.
enum class ExpertGradients : std::uint8_t { training, always, never };

// Every field is part of the stored format.
struct PeerOptions {
  std::int64_t d_in = 0;
  std::int64_t d_out = 0;
  std::int64_t heads = 4;
  std::int64_t top_k = 8;
  std::int64_t d_key = 64;
  std::int64_t rows = 32;
  std::int64_t cols = 32;
  Routing routing = Routing::isolated;
  SubKeys sub_keys = SubKeys::per_head;
  kernels::ScoreFunction score = kernels::ScoreFunction::softmax;
  kernels::Activation activation = kernels::Activation::gelu;
  bool glu = false;
  std::int64_t expert_width = 1;
  kernels::WeightType dtype = kernels::WeightType::f32;
  double dropout = 0;
  QueryNorm query_norm = QueryNorm::batch;
  double norm_eps = 1e-5;
  double norm_momentum = 0.1;
  double key_scale = 0.5;
  Distribution distribution = Distribution::normal;
  double u_scale = 0;
  double v_scale = 0.05;
  std::int64_t page_bytes = 32768;
  // Experts, query network, keys and dropout are drawn by it and by the names of pool and layer:
  // two layers of one seed, equal sizes and equal names are the same layer, bit for bit.
  std::int64_t seed = 1;

  // Throws InvalidOptions naming the field, its value and what is allowed.
  void validate() const;
  // Those of the pool that such a layer reads.
  PoolOptions pool() const;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("d_in", self.d_in, "input width", Range{1, 262144});
    visitor("d_out", self.d_out, "output width", Range{1, 262144});
    visitor("heads", self.heads, "query heads, H", Range{1, 1024});
    visitor("top_k", self.top_k, "experts retrieved per head, K", Range{1, 4096});
    visitor("d_key", self.d_key, "query width per head, even; half for rows, half for columns",
            Range{2, 65536});
    visitor("rows", self.rows, "rows of a generation", Range{1, 4294967295.});
    visitor("cols", self.cols, "columns of a generation", Range{1, 4294967295.});
    visitor("routing", self.routing,
            "isolated: each generation routes for itself; shared: one router");
    visitor("sub_keys", self.sub_keys, "sub-keys per head, or common to all heads (the paper's)");
    visitor("score", self.score, "normalisation of the K retained scores");
    visitor("activation", self.activation, "activation of an expert");
    visitor("glu", self.glu, "gated experts act(u.x)(w.x)v");
    visitor("expert_width", self.expert_width, "neurons an expert, r", Range{1, 65536});
    visitor("dtype", self.dtype,
            "type of the experts' weights; bf16 trains on an fp32 master in the optimizer state");
    visitor("dropout", self.dropout,
            "probability that training leaves a retrieved expert out of a token's sum",
            Range{0, 0.99});
    visitor("query_norm", self.query_norm, "norm of the query");
    visitor("norm_eps", self.norm_eps, "epsilon of the norm", Range{1e-12, 1e-2});
    visitor("norm_momentum", self.norm_momentum,
            "weight of a batch in batch norm's running statistics", Range{0, 1});
    visitor("key_scale", self.key_scale, "standard deviation of new sub-keys", Range{1e-6, 1e3});
    visitor("distribution", self.distribution, "distribution of new experts");
    visitor("u_scale", self.u_scale, "scale of new u and w; 0 = 1/sqrt(d_in)", Range{0, 1e3});
    visitor("v_scale", self.v_scale, "scale of new v; 0 = 1/sqrt(d_out)", Range{0, 1e3});
    visitor("page_bytes", self.page_bytes, "target size of a page", Range{1, 4194304});
    visitor("seed", self.seed,
            "seed of the initial values and of dropout; layers of one seed and one name start "
            "identical",
            Range{0, 9e15});
  }
};

class LayerMath;
class Router;
struct ForwardMode;

// A torch module whose parameters() are the routers' tensors; the experts live in pool() and are
// updated by a SparseOptimizer. Single-threaded from outside. float32 (the experts' weights may be
// bf16), on the CPU, or where place_on() of perennial/core/cuda.h has put it.
//
// Symbols: B tokens, H heads, K top-k, r neurons an expert. A token costs
// O(H (rows + cols) d_key + H K r (d_in + d_out)).
// In evaluation mode, and in training unless the norm is batch norm or there is dropout, what is
// computed for a token does not depend on the batch around it, the thread count, the page layout or
// the memory budget.
//
// Experts are to autograd as parameters are: their gradients add up over backward passes until a
// step or zero_grad(), whatever else has a gradient, and a backward after a step that changed
// experts of the pool since its forward is an Error where that forward read the open generation.
//
// Dropout draws from Philox by (seed, number of the training forward, place in the batch); the
// number is committed with the layer, so a resumed run draws the same.
class PeerImpl : public torch::nn::Module, public Participant {
 public:
  // A layer with one open generation of rows x cols experts, in memory. Throws InvalidOptions.
  explicit PeerImpl(const PeerOptions& options);
  // A layer without generations yet, whose pool pages to `store` (may be null) within
  // `budget_bytes` (0: no limit). Nothing is written before a commit. The store must outlive the
  // layer.
  PeerImpl(const PeerOptions& options, const storage::PageReader* store, std::int64_t budget_bytes);
  // A layer over a pool that others may read, too. Several layers over one pool, or over pools of
  // one store, have names of their own, and grow and freeze as one: see ExpertLayers. Throws
  // InvalidOptions for options that are the pool's and differ, Error for a pool that has
  // generations already: this layer has no routers for them.
  PeerImpl(const PeerOptions& options, std::shared_ptr<Pool> pool, std::string name);
  // The layer of the default name that the store's current state holds, over a pool of its own.
  // Throws StorageError, DataError.
  static std::shared_ptr<PeerImpl> load(const storage::PageReader& store,
                                        std::int64_t budget_bytes);
  // A layer by its name; `pool` is the one of stored_pool(). Throws StorageError, DataError.
  static std::shared_ptr<PeerImpl> load(const storage::PageReader& store, const std::string& name,
                                        std::shared_ptr<Pool> pool);
  // The names of the layers that the state has, in their order, and the number of the pool that one
  // reads. Throws StorageError, DataError.
  static std::vector<std::string> stored_layers(const storage::PageReader& store);
  static std::uint32_t stored_pool(const storage::PageReader& store, const std::string& name);
  // Throws Error where the state has a layer of that name.
  static void require_new(const storage::PageReader& store, const std::string& name);
  // The same of a stored layer, as Pool's; its pool is not touched. Throws Error for shared
  // routing.
  static void drop_generations_from(const storage::PageReader& store, const std::string& name,
                                    std::uint32_t keep, storage::CommitRequest& request);
  static void drop_generation(const storage::PageReader& store, const std::string& name,
                              std::uint32_t generation, storage::CommitRequest& request);
  ~PeerImpl() override;

  // x: (..., d_in) float32 to (..., d_out). Isolated routing: through the newest generation.
  // Shared: through all visible ones.
  torch::Tensor forward(const torch::Tensor& x);
  // Isolated routing only: through one generation.
  torch::Tensor forward(const torch::Tensor& x, std::uint32_t generation);

  struct Retrieval {
    torch::Tensor ids;      // (B, H, K) int64, best first
    torch::Tensor scores;   // (B, H, K)
    torch::Tensor weights;  // (B, H, K): the scores normalised
  };
  // Shared routing only, to hold the layer to what it was: a copy of what routes to the frozen
  // generations (query network, norm, keys), one vector.
  torch::Tensor frozen_routing() const;
  // What the layer answered in evaluation mode when that copy was taken, while only frozen
  // generations were visible: they have the same experts still. No gradient. Throws Error for a
  // copy of another layer.
  torch::Tensor forward_as(const torch::Tensor& routing, const torch::Tensor& x);

  // What forward would retrieve in evaluation mode; no gradient.
  Retrieval retrieve(const torch::Tensor& x, std::uint32_t generation);

  // What begins, ends or brings a generation is for a layer that reads its pool alone, and an Error
  // otherwise: ExpertLayers does it to all layers of a pool.
  //
  // Opens a generation of rows x cols new experts (0: as in the options). An Error while one is
  // open. Isolated: with a router of its own, ready to train. Shared: masked until unmask().
  const Generation& grow(std::int64_t rows = 0, std::int64_t cols = 0);
  // Appends columns to the open generation, masked until unmask().
  void grow_columns(std::int64_t cols);
  // Makes every row and column retrievable. Changes outputs of the shared routing and of the open
  // generation.
  void unmask();
  bool has_masked() const;
  // Closes the open generation, an Error while columns of it are masked: folds its batch norm
  // (isolated routing), drops optimizer state, and returns the digest of its shard.
  storage::Digest freeze();
  // True if each frozen shard's pages and router are what they were when it froze.
  bool frozen_intact();
  // The same of one generation; false for an open one.
  bool frozen_intact(std::uint32_t generation);

  // Isolated routing only, for shard files: the tensors that route to a generation, by names that
  // do not depend on its place ("query", "row_keys_00000"), and a frozen generation from elsewhere,
  // appended with such tensors. The layer is as before when it throws: DataError for tensors that
  // do not fit the layer and the generation, and as Pool::add_frozen.
  using RouterTensors = std::map<std::string, torch::Tensor>;
  RouterTensors router_tensors(std::uint32_t generation) const;
  const Generation& add_frozen(const ForeignGeneration& content, const RouterTensors& tensors);

  // What forwards from now on leave; no part of the layer's state.
  void set_expert_gradients(ExpertGradients when) { expert_gradients_ = when; }
  // As torch's, of the experts too: of all that the pool gathered, whichever layer read them.
  void zero_grad(bool set_to_none = true) override;

  // From now on batch norm normalises with its running statistics in training, too, and leaves them
  // as they are, in every router that there is; no part of the layer's state. While the router's
  // parameters stay, an input then retrieves in training what it does in evaluation.
  void hold_statistics();

  // What the products of the query network and of queries with sub-keys are computed in from now
  // on, of every generation; no part of the layer's state. Scores are sums in float32; sub-keys,
  // norm and experts stay as they are.
  void set_amp(Amp amp);

  // For place_on(), once the pool's experts have moved: moves the routers to them, where `math`
  // computes; null: on the host. Optimizers of router parameters keep their state where it is.
  void compute_with(std::shared_ptr<LayerMath> math);

  const std::string& name() const { return name_; }
  Pool& pool() { return *pool_; }
  const Pool& pool() const { return *pool_; }
  const PeerOptions& options() const { return options_; }
  // Parameters that train: the open generation's router (isolated), or the shared query network
  // with the open generation's sub-keys. Names are stable: they name the moments in a commit.
  std::vector<std::pair<std::string, torch::Tensor>> trainable();

  // Retrieval reads the sub-keys from a packed copy, which follows every change that torch counts
  // and every gradient. Call this after writing to them in another way: through data(), or a
  // pointer.
  void keys_changed();

  // Call it when the optimizer is attached; too small a budget is also refused when it is used.
  // Throws InvalidOptions, with the figures, when the memory budget cannot hold the pages that one
  // token may retrieve, with the optimizer state attached now; DeviceError, with the figures, when
  // the layer is on a device that cannot hold all of that.
  void require_budget() const;

  // Adds what changed since the last commit to `request`, as it is now: training may go on while
  // the store writes it. Call committed() when the commit has succeeded and commit_failed() when it
  // has not; see Pool.
  void add_to_commit(storage::CommitRequest& request) override;
  void committed() override;
  void commit_failed() override;

  // For torch::save() and torch::load(): the whole layer, also its generations and the experts'
  // optimizer state, so that training goes on bit for bit. An Error for a pool of more than
  // kMaxArchiveBytes of weights, trained or not, and for one that other layers read: such layers
  // belong into a store.
  static constexpr std::uint64_t kMaxArchiveBytes = std::uint64_t{256} << 20;
  void save(torch::serialize::OutputArchive& archive) const override;
  // Into a layer of equal options, on the CPU, that no store holds. Parameters that both have stay
  // who they are; generations that the layer has not in that state, or not at all, bring theirs, so
  // their dense optimizers are made afterwards. A SparseOptimizer stays attached. Throws Error,
  // DataError; the layer is then as before.
  void load(torch::serialize::InputArchive& archive) override;

 private:
  const Router& router_of(std::uint32_t generation) const;
  void require_known(std::uint32_t generation) const;
  torch::Tensor run(std::uint32_t generation, const torch::Tensor& x);
  torch::Tensor through(const std::shared_ptr<Router>& router, const torch::Tensor& x,
                        const ForwardMode& mode);
  struct Loading {};
  PeerImpl(const PeerOptions& options, std::shared_ptr<Pool> pool, std::string name, Loading);

  friend class ExpertLayers;  // what it does to each of its layers:
  // Throws Error where other layers read the pool. what: "grow".
  void require_alone(std::string_view what) const;
  Recipe recipe() const;  // of experts that are to be drawn
  // Routers for what the pool has grown.
  void follow_pool();
  void require_unmasked() const;
  // Stops the open generation's router for good, and returns its digest.
  storage::Digest close_router();
  storage::Digest router_digest(std::uint32_t generation) const;
  // A router that froze elsewhere, for a generation of this pool; DataError when it does not fit.
  std::shared_ptr<Router> frozen_router(const Generation& place, const RouterTensors& tensors);
  void append_router(std::shared_ptr<Router> router);
  // Throws Error where the request has a layer of this name.
  void require_absent(const storage::CommitRequest& request) const;
  void offer_layer(storage::CommitRequest& request);

  std::shared_ptr<Router> new_router(std::uint32_t index) const;
  void add_router(std::shared_ptr<Router> router);
  void take_routers(PeerImpl& from, const std::vector<Generation>& before);
  std::string record() const;
  // Brings routers that were just made to where, and to how, the layer computes.
  void place_routers();
  void require_isolated() const;
  storage::Digest digest_of(const Router& router, std::uint32_t generation) const;

  PeerOptions options_;
  std::string name_;
  std::shared_ptr<Pool> pool_;
  std::shared_ptr<LayerMath> math_;  // null on the host
  DenseEntries entries_;
  // One a generation, null for one that was unlearned; or one in all (shared).
  std::vector<std::shared_ptr<Router>> routers_;
  Amp amp_ = Amp::off;
  ExpertGradients expert_gradients_ = ExpertGradients::training;
  std::uint64_t dropout_draws_ = 0;     // training forwards that had dropout
  torch::Tensor remembered_routing_;    // what the next was made of
  std::shared_ptr<Router> remembered_;  // the router of the last forward_as()
};

TORCH_MODULE(Peer);

}  // namespace perennial
