// SPDX-License-Identifier: Apache-2.0
// Commits and loads the state of a strategy.
#include "strategies/strategy_state.h"

#include <ATen/ops/full.h>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace {

const std::string kPrefix = "strategy/";

}  // namespace

class StrategyState::Saver : public StateVisitor {
 public:
  Saver(const std::map<std::string, Seen>& stored, storage::CommitRequest& request)
      : stored_(stored), request_(request) {}

  void tensor(const std::string& name, torch::Tensor& value) override {
    if (!value.defined()) return;
    const std::string entry = kPrefix + name;
    const Seen now{value, static_cast<std::int64_t>(value._version()), 0};
    const auto before = stored_.find(entry);
    if (before == stored_.end() || !before->second.tensor.is_same(value) ||
        before->second.version != now.version) {
      request_.dense[entry] = bytes_from(value);
    }
    seen[entry] = now;
  }
  void integer(const std::string& name, std::int64_t& value) override {
    const std::string entry = kPrefix + name;
    const auto before = stored_.find(entry);
    if (before == stored_.end() || before->second.integer != value) {
      request_.dense[entry] = bytes_from(at::full({}, value, at::kLong));
    }
    seen[entry] = {torch::Tensor(), 0, value};
  }
  std::map<std::string, Seen> seen;

 private:
  const std::map<std::string, Seen>& stored_;
  storage::CommitRequest& request_;
};

class StrategyState::Loader : public StateVisitor {
 public:
  Loader(const storage::PageReader& store, const at::Device& device)
      : store_(store), device_(device) {
    for (const std::string& name : store.dense_names()) {
      if (name.starts_with(kPrefix)) there_[name] = {};
    }
  }

  void tensor(const std::string& name, torch::Tensor& value) override {
    load(name, value, at::kCPU);
  }
  void beside_parameters(const std::string& name, torch::Tensor& value) override {
    load(name, value, device_);
  }
  void integer(const std::string& name, std::int64_t& value) override {
    const std::string entry = kPrefix + name;
    if (!there_.contains(entry)) throw DataError("the store lacks dense entry '" + entry + "'");
    const torch::Tensor stored = read(entry);
    if (stored.scalar_type() != at::kLong || stored.numel() != 1) {
      throw DataError("dense entry '" + entry + "' is not an integer");
    }
    value = stored.item<std::int64_t>();
    there_[entry] = {torch::Tensor(), 0, value};
  }
  std::map<std::string, Seen> take() { return std::move(there_); }

 private:
  torch::Tensor read(const std::string& entry) const {
    return tensor_from(value_or_throw(store_.read_dense(entry)), entry);
  }
  void load(const std::string& name, torch::Tensor& value, const at::Device& device) {
    const std::string entry = kPrefix + name;
    value = there_.contains(entry) ? read(entry).to(device) : torch::Tensor();
    if (value.defined()) {
      there_[entry] = {value, static_cast<std::int64_t>(value._version()), 0};
    }
  }

  const storage::PageReader& store_;
  at::Device device_;
  std::map<std::string, Seen> there_;
};

void StrategyState::add_to_commit(Strategy& strategy, storage::CommitRequest& request) {
  Saver saver(stored_, request);
  strategy.visit_state(saver);
  for (const auto& [entry, seen] : stored_) {
    if (!saver.seen.contains(entry)) request.removed_dense.push_back(entry);
  }
  offered_ = std::move(saver.seen);
}

std::int64_t state_bytes(Strategy& strategy) {
  class Counter : public StateVisitor {
   public:
    void tensor(const std::string&, torch::Tensor& value) override {
      if (value.defined()) bytes += static_cast<std::int64_t>(value.nbytes());
    }
    void integer(const std::string&, std::int64_t&) override { bytes += sizeof(std::int64_t); }
    std::int64_t bytes = 0;
  } counter;
  strategy.visit_state(counter);
  return counter.bytes;
}

void StrategyState::committed() { stored_ = offered_; }

void StrategyState::load(Strategy& strategy, const storage::PageReader& store,
                         const at::Device& device) {
  Loader loader(store, device);
  strategy.visit_state(loader);
  stored_ = loader.take();
}

}  // namespace perennial::continual
