// SPDX-License-Identifier: Apache-2.0
// Models that a trainer teaches: an MLP, or PEER layers over growable pools.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "perennial/continual/placement.h"
#include "perennial/continual/run_config.h"
#include "perennial/continual/task.h"
#include "perennial/core/expert_layers.h"
#include "perennial/core/generation_gate.h"
#include "perennial/core/participant.h"
#include "perennial/core/peer.h"
#include "perennial/storage/page_store.h"

namespace perennial::continual {

// Answers for a batch of B rows, of a model with C outputs.
struct Prediction {
  torch::Tensor answers;  // (B, C): what the outputs mean (answers_of), of classes probabilities
  // (B) int64: which generation answered, of a mixed answer the one with the largest share; -1
  // without generations
  torch::Tensor generations;
};

// What a dense layer y = x W' + b got and gave in a forward, where it computes.
struct LayerUse {
  std::size_t weight = 0, bias = 0;  // places in Model::trainable()
  torch::Tensor input;               // (B, in)
  torch::Tensor output;              // (B, out), in the graph
};

// Single-threaded. Inputs and answers are the host's float32 wherever the model computes, and
// gradients pass from one to the other; parameters are where it computes.
class Model : public Participant {
 public:
  // Outputs (B, C) for a training batch, with gradients: of classes, logits.
  virtual torch::Tensor train_forward(const torch::Tensor& x) = 0;
  // Outputs as at test, without dropout and with a norm's running statistics, of the newest
  // generation where generations route for themselves; with gradients. Throws Error for models that
  // do not learn by gradient.
  virtual torch::Tensor test_forward(const torch::Tensor& x);
  // The same of a model whose every parameter belongs to a dense layer, telling what each layer
  // did; the last use is the output layer's. Throws Error for other models.
  virtual torch::Tensor traced_forward(const torch::Tensor& x, std::vector<LayerUse>& uses);
  // `generation`: what an oracle says; empty lets the gate decide.
  virtual Prediction predict(const torch::Tensor& x, std::optional<std::uint32_t> generation) = 0;

  // Dense parameters that train now, by stable names.
  virtual std::vector<std::pair<std::string, torch::Tensor>> trainable() = 0;
  virtual std::int64_t dense_parameters() const = 0;

  // False: steps call observe() instead of forward, backward and the optimizers.
  virtual bool learns_by_gradient() const { return true; }
  // Adds a batch to statistics. Only for models that do not learn by gradient.
  virtual void observe(const torch::Tensor& /*x*/, const torch::Tensor& /*y*/) {}

  // The newest of what may be asked for by number at test: generations of the pool or columns. A
  // model that has neither answers to every number.
  virtual std::int64_t newest_generation();
  // Adds a column for the next experience; those before it train no more. Throws Error for models
  // that have none.
  virtual void add_column();

  // The PEER layers and their pools, which grow, freeze, unlearn and commit as one; null where the
  // model has none.
  virtual ExpertLayers* experts() { return nullptr; }
  // (B, d_in), where the layer is: what the layer of this name gets of inputs x; without gradients.
  // Throws Error where there is none.
  virtual torch::Tensor layer_inputs(const std::string& layer, const torch::Tensor& x);
  // Outputs (B, C) as at test, of one generation; without gradients. Only where generations route
  // for themselves.
  virtual torch::Tensor generation_outputs(std::uint32_t generation, const torch::Tensor& x);
  // The only PEER layer; null where there are several or none.
  PeerImpl* only_layer();

  // Who answers where generations route for themselves; null where nobody is asked.
  virtual GenerationGate* gate() { return nullptr; }

  // Generations begin and end in pool and gate at once. Throw Error for a model without a pool.
  //
  // Opens a generation of rows x cols experts a pool (0: as each layer's options say), and returns
  // its number; as ExpertLayers::grow().
  std::uint32_t grow(std::int64_t rows = 0, std::int64_t cols = 0);
  // Closes the open one and returns its digest; as ExpertLayers::freeze().
  storage::Digest freeze();
  // Writes a frozen generation to a file, or to a folder of files where there are several layers;
  // as export_shard() and export_shards().
  void export_generation(std::uint32_t generation, const std::filesystem::path& path);
  // Appends the frozen generation of a shard file, or of a folder of them where there are several
  // layers, of which the gate has seen no inputs, and returns its number; as import_shard() and
  // import_shards().
  std::uint32_t import_generation(const std::filesystem::path& path);

  // The generation that learnt an experience: `experience` itself, unless that was found to return
  // and an older one was assigned to it. Committed with the model.
  virtual std::int64_t generation_of(std::int64_t experience) const { return experience; }
  virtual void assign(std::int64_t /*experience*/, std::int64_t /*generation*/) {}

 private:
  ExpertLayers& pooled();
};

// A new model. `store` may be null (nothing is kept); budget_bytes as in Pool; `image` is what the
// inputs are, for features of images. Throws DeviceError where `placement` has no room for it.
std::unique_ptr<Model> make_model(const RunConfig& config, std::int64_t features,
                                  std::int64_t classes, const storage::PageReader* store,
                                  std::int64_t budget_bytes, ImageShape image = {},
                                  const Placement& placement = {});
// The model of the store's current state. With `learnt_classes` below `classes` it takes new
// classes: its last layer's rows for those that were learnt keep their bits, and the others get the
// initial values of a new model; an analytic head has seen none of them; frozen generations never
// give them. Throws InvalidOptions for a model that cannot: experts that answer with the classes
// themselves have as many outputs as were made, with spare_classes.
std::unique_ptr<Model> load_model(const RunConfig& config, std::int64_t features,
                                  std::int64_t classes, const storage::PageReader& store,
                                  std::int64_t budget_bytes, std::int64_t learnt_classes = 0,
                                  const Placement& placement = {});

}  // namespace perennial::continual
