// SPDX-License-Identifier: Apache-2.0
// Learns one task, freezes it, grows, learns another, and keeps both in a store that a later
// process opens. Usage: 01_grow_freeze_and_keep FOLDER   (a new folder)
#include <perennial/core/peer.h>
#include <perennial/core/sparse_optimizer.h>
#include <perennial/storage/rocksdb_store.h>
#include <torch/nn/functional/loss.h>
#include <torch/optim/adam.h>

#include <iostream>

namespace storage = perennial::storage;

// Two regression tasks on the same inputs.
torch::Tensor answer(const torch::Tensor& x, int task) {
  return task == 0 ? x.sin().narrow(1, 0, 2) : x.cos().narrow(1, 2, 2);
}

// The routers' dense parameters take any torch optimizer, the experts the sparse one.
double learn(perennial::Peer& layer, int task) {
  std::vector<torch::Tensor> parameters;
  for (auto& [name, tensor] : layer->trainable()) parameters.push_back(tensor);
  torch::optim::Adam dense(parameters, 1e-3);
  perennial::SparseOptimizer experts(layer->pool(), {.lr = 3e-3});
  layer->train();
  double loss = 0;
  for (int step = 0; step < 300; ++step) {
    const torch::Tensor x = torch::randn({128, 8});
    dense.zero_grad();
    const torch::Tensor error = torch::mse_loss(layer->forward(x), answer(x, task));
    error.backward();
    dense.step();
    experts.step();
    loss = error.item<double>();
  }
  return loss;
}

// Everything the layer is made of, durable and whole, under a name.
void keep(perennial::Peer& layer, storage::PageStore& store, const std::string& name) {
  storage::CommitRequest request;
  layer->add_to_commit(request);
  request.snapshot = name;
  const auto info = perennial::value_or_throw(store.commit(request));
  layer->committed();
  std::cout << "snapshot " << name << ": " << info.pages_written << " pages written\n";
}

int main(int argc, char** argv) try {
  if (argc != 2) throw perennial::Error("usage: 01_grow_freeze_and_keep FOLDER");
  torch::manual_seed(1);
  const torch::Tensor probe = torch::randn({5, 8});
  torch::Tensor before;
  {
    const auto store = perennial::value_or_throw(
        storage::open_rocksdb_store(argv[1], {.mode = storage::OpenMode::create}));
    perennial::Peer layer(perennial::PeerOptions{.d_in = 8, .d_out = 2, .rows = 16, .cols = 16},
                          store.get(), /*budget_bytes=*/0);
    layer->grow();
    std::cout << "task 0: loss " << learn(layer, 0) << "\n";
    layer->freeze();
    layer->eval();
    before = layer->forward(probe, 0);
    keep(layer, *store, "first");

    layer->grow();
    std::cout << "task 1: loss " << learn(layer, 1) << "\n";
    layer->freeze();
    keep(layer, *store, "second");
  }
  // Another process, another day.
  const auto store = perennial::value_or_throw(storage::open_rocksdb_store(argv[1]));
  perennial::Peer layer(perennial::PeerImpl::load(*store, /*budget_bytes=*/0));
  layer->eval();
  const bool same = layer->forward(probe, 0).equal(before);
  std::cout << layer->pool().experts() << " experts in " << layer->pool().generations().size()
            << " generations; the first answers " << (same ? "with the same bits" : "DIFFERENTLY")
            << "\n";
  return same ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
