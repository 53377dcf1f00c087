// SPDX-License-Identifier: Apache-2.0
// What a commit of a dense model costs the thread that trains: 100 million parameters and their
// moments of Adam, all of them changed. It copies them and goes on; the store's thread cuts, hashes
// and writes. Beside it: a memcpy of the same tensors into memory that was used before.
#include <ATen/ops/rand.h>
#include <torch/types.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "bench_store.h"
#include "perennial/core/dense_entries.h"

namespace perennial::bench {
namespace {

constexpr double kMegabyte = 1e6;
constexpr std::int64_t kWidth = 1000;  // a layer has its square of weights

class DenseModel {
 public:
  explicit DenseModel(std::int64_t layers) {
    for (std::int64_t i = 0; i < layers; ++i) {
      const std::string name = "layer" + std::to_string(i);
      for (const char* part : {"/weight", "/m", "/v"}) {
        at::Tensor tensor = at::rand({kWidth, kWidth});
        tensors_[name + part] = tensor.requires_grad_(std::string(part) == "/weight");
      }
    }
    plain_ = aligned_bytes(bytes());
    std::memset(plain_.get(), 1, bytes());
  }

  std::size_t bytes() const { return tensors_.size() * kWidth * kWidth * sizeof(float); }
  std::size_t copied_bytes() const { return static_cast<std::size_t>(entries_.copied_bytes()); }
  void step() {
    const torch::NoGradGuard no_grad;
    for (auto& [name, tensor] : tensors_) tensor.add_(1.0F);
  }
  void offer(storage::CommitRequest& request) {
    DenseEntries::Offer offer = entries_.offer(request);
    for (const auto& [name, tensor] : tensors_) offer.tensor(name, tensor);
  }
  void committed() { entries_.committed(); }
  double copy_plainly() {
    const double start = now();
    std::byte* to = plain_.get();
    for (const auto& [name, tensor] : tensors_) {
      std::memcpy(to, tensor.const_data_ptr(), tensor.nbytes());
      to += tensor.nbytes();
    }
    return now() - start;
  }

 private:
  std::map<std::string, at::Tensor> tensors_;
  DenseEntries entries_;
  AlignedBytes plain_;
};

}  // namespace

void bench_dense(StoreRun& run) {
  DenseModel model(static_cast<std::int64_t>(run.size(100, 2)));
  auto store = open_store(run.folder / "dense");
  std::vector<double> durable;
  const auto commit = [&] {
    model.step();
    const double start = now();
    storage::CommitRequest request;
    request.retention = storage::Retention{.keep_last = 1};
    model.offer(request);
    auto done = store->commit_async(std::move(request));
    const double stood = now() - start;
    (void)must(done.get());
    durable.push_back(now() - start);
    model.committed();
    (void)must(store->reclaim({}));
    return stood;
  };
  const double first = commit();
  durable.clear();
  const auto seconds =
      interleave(run.repetitions(7), {commit, [&] { return model.copy_plainly(); }});
  const auto in = [](std::vector<double> values, double unit) {
    for (double& value : values) value *= unit;
    return values;
  };
  const std::string name = "commit of 100M dense parameters with moments of Adam, ";
  run.rows.push_back(limit_row(name + "standstill; beside a memcpy", "ms", in(seconds[0], 1e3),
                               in(seconds[1], 1e3), 1.2));
  run.rows.push_back(less_row(name + "standstill of the first; beside a memcpy", "ms",
                              {1e3 * first}, in(seconds[1], 1e3)));
  run.rows.push_back(less_row(name + "until durable; beside a memcpy", "ms", in(durable, 1e3),
                              in(seconds[1], 1e3)));
  run.rows.push_back(less_row(name + "memory of the copies; beside what changed", "MB",
                              {static_cast<double>(model.copied_bytes()) / kMegabyte},
                              {static_cast<double>(model.bytes()) / kMegabyte}));
  store.reset();
  std::filesystem::remove_all(run.folder / "dense");
}

}  // namespace perennial::bench
