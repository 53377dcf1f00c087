// SPDX-License-Identifier: Apache-2.0
// Commits and loads the state of a strategy.
#include "strategies/strategy_state.h"

#include <ATen/ops/full.h>

#include <set>
#include <string>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace {

const std::string kPrefix = "strategy/";

}  // namespace

class StrategyState::Saver : public StateVisitor {
 public:
  explicit Saver(DenseEntries::Offer& offer) : offer_(offer) {}

  void tensor(const std::string& name, torch::Tensor& value) override {
    offer_.tensor(kPrefix + name, value);
  }
  void integer(const std::string& name, std::int64_t& value) override {
    offer_.bytes(kPrefix + name, bytes_from(at::full({}, value, at::kLong)));
  }

 private:
  DenseEntries::Offer& offer_;
};

class StrategyState::Loader : public StateVisitor {
 public:
  Loader(const storage::PageReader& store, const at::Device& device, DenseEntries& entries)
      : store_(store), device_(device), entries_(entries) {
    for (const std::string& name : store.dense_names()) {
      if (!name.starts_with(kPrefix)) continue;
      there_.insert(name);
      entries_.stored(name);
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
  }

 private:
  torch::Tensor read(const std::string& entry) const {
    return tensor_from(value_or_throw(store_.read_dense(entry)), entry);
  }
  void load(const std::string& name, torch::Tensor& value, const at::Device& device) {
    const std::string entry = kPrefix + name;
    value = there_.contains(entry) ? read(entry).to(device) : torch::Tensor();
    if (value.defined()) entries_.stored(entry, value);
  }

  const storage::PageReader& store_;
  at::Device device_;
  DenseEntries& entries_;
  std::set<std::string> there_;
};

void StrategyState::add_to_commit(storage::CommitRequest& request) {
  DenseEntries::Offer offer = entries_.offer(request);
  Saver saver(offer);
  strategy_->visit_state(saver);
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

void StrategyState::load(const storage::PageReader& store, const at::Device& device) {
  entries_ = DenseEntries();
  Loader loader(store, device, entries_);
  strategy_->visit_state(loader);
}

}  // namespace perennial::continual
