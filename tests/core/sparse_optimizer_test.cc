// SPDX-License-Identifier: Apache-2.0
// The sparse optimizer against torch's dense ones, expert by expert.
#include "perennial/core/sparse_optimizer.h"

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <set>

#include "core/core_testing.h"
#include "pool/tape.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::HasSubstr;

// Both sides work in fp32 with another order of operations; a few steps of lr 0.01 to 0.1.
constexpr double kUpdateTolerance = 2e-6;

at::Tensor rows_of(const ExpertValues& values) {
  std::vector<at::Tensor> parts = {values.u, values.v};
  if (values.w.defined()) parts.push_back(values.w);
  return at::cat(parts, 1);
}

std::unique_ptr<torch::optim::Optimizer> torch_twin(const SparseOptimizerOptions& o,
                                                    const std::vector<at::Tensor>& parameters) {
  const auto adam = [&](auto options) {
    return options.betas({o.beta1, o.beta2}).eps(o.eps).weight_decay(o.weight_decay);
  };
  switch (o.algorithm) {
    case SparseAlgorithm::sgd:
      return std::make_unique<torch::optim::SGD>(parameters, torch::optim::SGDOptions(o.lr)
                                                                 .momentum(o.momentum)
                                                                 .nesterov(o.nesterov)
                                                                 .weight_decay(o.weight_decay));
    case SparseAlgorithm::adam:
      return std::make_unique<torch::optim::Adam>(parameters,
                                                  adam(torch::optim::AdamOptions(o.lr)));
    case SparseAlgorithm::adamw:
      return std::make_unique<torch::optim::AdamW>(parameters,
                                                   adam(torch::optim::AdamWOptions(o.lr)));
    case SparseAlgorithm::rowwise_adagrad:
      break;  // not in torch
  }
  return nullptr;
}

class AgainstTorch : public ::testing::TestWithParam<SparseOptimizerOptions> {};

TEST_P(AgainstTorch, TouchedExpertsFollowAndOthersKeepTheirBytes) {
  const SparseOptimizerOptions options = GetParam();
  PeerOptions layer = small_options();
  layer.glu = true;
  PeerImpl peer(layer);
  SparseOptimizer sparse(peer.pool(), options);
  const std::vector<std::int64_t> ids = ids_of(0, 8, 8);
  const at::Tensor start = rows_of(peer.pool().experts_at(ids));
  // One dense parameter an expert: torch skips those without a gradient, so each has its own count.
  std::vector<at::Tensor> dense;
  for (std::int64_t i = 0; i < 64; ++i) dense.push_back(start[i].clone().requires_grad_());
  const std::unique_ptr<torch::optim::Optimizer> torch_optimizer = torch_twin(options, dense);
  std::vector<int> counts(64);
  std::uint64_t updated = 0;
  for (std::uint64_t step = 0; step < 12; ++step) {
    const at::Tensor before = rows_of(peer.pool().experts_at(ids));
    backward(peer, inputs(100 + step, 4));
    const CompactGradient gradient = peer.pool().compact_gradient();
    std::set<std::int64_t> touched;
    torch_optimizer->zero_grad();
    for (std::int64_t i = 0; i < gradient.ids.numel(); ++i) {
      const auto id = gradient.ids[i].item<std::int64_t>();
      const std::int64_t at = kernels::row_of(id) * 8 + kernels::col_of(id);
      touched.insert(at);
      ++counts[static_cast<std::size_t>(at)];
      dense[static_cast<std::size_t>(at)].mutable_grad() = gradient.values[i].clone();
    }
    torch_optimizer->step();
    sparse.step();
    updated += touched.size();
    const at::Tensor after = rows_of(peer.pool().experts_at(ids));
    for (std::int64_t i = 0; i < 64; ++i) {
      if (!touched.contains(i)) {
        EXPECT_TRUE(same_bits(after[i], before[i])) << "untouched expert " << i;
      } else {
        EXPECT_FALSE(at::equal(after[i], before[i]));
      }
      EXPECT_LE((after[i] - dense[static_cast<std::size_t>(i)].detach()).abs().max().item<double>(),
                kUpdateTolerance)
          << "expert " << i << " after step " << step;
    }
    EXPECT_EQ(sparse.experts_updated(), updated);
  }
  // The counts must differ for "own step count" to mean anything.
  EXPECT_GT(*std::max_element(counts.begin(), counts.end()), 3);
  EXPECT_NE(std::count(counts.begin(), counts.end(), 1), 0);
}

using Options = SparseOptimizerOptions;
constexpr auto kSgd = SparseAlgorithm::sgd, kAdamW = SparseAlgorithm::adamw;
INSTANTIATE_TEST_SUITE_P(
    Rules, AgainstTorch,
    ::testing::Values(
        Options{.lr = 0.01},
        Options{.lr = 0.05, .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.1},
        Options{.algorithm = kAdamW, .lr = 0.05, .eps = 1e-3, .weight_decay = 0.1},
        Options{.algorithm = kSgd, .lr = 0.1},
        Options{.algorithm = kSgd, .lr = 0.1, .weight_decay = 0.05},
        Options{.algorithm = kSgd, .lr = 0.02, .momentum = 0.9},
        Options{
            .algorithm = kSgd, .lr = 0.02, .momentum = 0.8, .nesterov = true, .weight_decay = 0.1}),
    [](const auto& info) {
      std::string name(enum_name(info.param.algorithm));
      if (info.param.momentum > 0) name += info.param.nesterov ? "_nesterov" : "_momentum";
      return name + (info.param.weight_decay > 0 ? "_decay" : "");
    });

TEST(SparseOptimizer, TouchedWithAZeroGradientCounts) {
  // v of zero width of influence: with dy = 0 every gradient is 0, yet Adam's step count moves on.
  PeerImpl peer(small_options()), other(small_options());
  SparseOptimizer adam(peer.pool(), {.lr = 0.01}), reference(other.pool(), {.lr = 0.01});
  const at::Tensor ids = at::zeros({1}, at::kLong);
  const at::Tensor before = rows_of(peer.pool().experts_at({0}));
  adam.step({ids, at::zeros({1, 18})});
  EXPECT_TRUE(same_bits(rows_of(peer.pool().experts_at({0})), before));
  EXPECT_EQ(adam.experts_updated(), 1u);
  adam.step({ids, at::ones({1, 18})});
  reference.step({ids, at::ones({1, 18})});
  // The first step of size lr became a second one: m^ / sqrt(v^) is not 1 any more.
  const double first = (rows_of(other.pool().experts_at({0})) - before).abs().max().item<double>();
  const double second = (rows_of(peer.pool().experts_at({0})) - before).abs().max().item<double>();
  EXPECT_NEAR(first, 0.01, 1e-5);
  EXPECT_LT(second, 0.0099);
}

TEST(SparseOptimizer, StateSurvivesTheStore) {
  const auto store = storage::make_memory_store();
  PeerImpl peer(small_options(), store.get(), 0);
  peer.grow();
  SparseOptimizer adam(peer.pool(), {.lr = 0.03});
  train(peer, adam, 3, 1);
  commit(*store, peer);
  const std::shared_ptr<PeerImpl> loaded = PeerImpl::load(*store, 0);
  EXPECT_EQ(loaded->pool().state_floats(), 2 * 32 + 16);
  SparseOptimizer again(loaded->pool(), {.lr = 0.03});
  train(peer, adam, 3, 2);
  train(*loaded, again, 3, 2);
  EXPECT_TRUE(same_values(loaded->pool().experts_at(ids_of(0, 8, 8)),
                          peer.pool().experts_at(ids_of(0, 8, 8))));
  for (const SparseOptimizerOptions& other :
       {Options{.algorithm = kSgd}, Options{.algorithm = kSgd, .momentum = 0.9},
        Options{.algorithm = SparseAlgorithm::rowwise_adagrad}}) {
    EXPECT_THAT(message_of<InvalidOptions>([&] { SparseOptimizer(loaded->pool(), other); }),
                HasSubstr("80 floats"));
  }
}

TEST(SparseOptimizer, RefusesWhatItCannotApply) {
  PeerImpl peer(small_options());
  SparseOptimizer adam(peer.pool(), {});
  const auto two = [](std::int64_t a, std::int64_t b) { return at::tensor({a, b}); };
  const at::Tensor values = at::ones({2, 18});
  const ExpertValues before = peer.pool().experts_at(ids_of(0, 8, 8));
  EXPECT_THAT(message_of<Error>([&] {
                adam.step({two(0, 1), at::ones({2, 17})});
              }),
              HasSubstr("(U, 18)"));
  EXPECT_THROW(adam.step({two(0, 1), at::ones({1, 18})}), Error);
  EXPECT_THAT(message_of<Error>([&] { adam.step({two(1, 0), values}); }), HasSubstr("ascend"));
  EXPECT_THROW(adam.step({two(1, 1), values}), Error);
  EXPECT_THAT(message_of<Error>([&] { adam.step({two(0, 8), values}); }), HasSubstr("expert 8"));
  EXPECT_THROW(adam.step({two(-1, 0), values}), Error);
  EXPECT_TRUE(same_values(peer.pool().experts_at(ids_of(0, 8, 8)), before));
  EXPECT_THAT(message_of<InvalidOptions>([&] { SparseOptimizer(peer.pool(), {.lr = -1}); }),
              HasSubstr("lr is -1"));
  EXPECT_THAT(message_of<InvalidOptions>([&] { SparseOptimizer(peer.pool(), {.beta1 = 1}); }),
              HasSubstr("beta1 is 1"));
  EXPECT_THAT(message_of<InvalidOptions>([&] { SparseOptimizer(peer.pool(), {.momentum = 0.9}); }),
              HasSubstr("only sgd has momentum"));
  EXPECT_THAT(message_of<InvalidOptions>(
                  [&] { SparseOptimizer(peer.pool(), {.algorithm = kSgd, .nesterov = true}); }),
              HasSubstr("nesterov"));
}

// Options that earlier versions wrote.
TEST(SparseOptimizer, ReadsOldOptions) {
  const auto adam = from_json<SparseOptimizerOptions>({{"algorithm", "adam"},
                                                       {"lr", 0.5},
                                                       {"beta1", 0.8},
                                                       {"beta2", 0.9},
                                                       {"eps", 1e-3},
                                                       {"weight_decay", 0.0}});
  EXPECT_EQ(adam.algorithm, SparseAlgorithm::adam);
  EXPECT_EQ(adam.momentum, 0);
  EXPECT_FALSE(adam.nesterov);
  EXPECT_EQ(from_json<SparseOptimizerOptions>({{"algorithm", "sgd"}}).algorithm, kSgd);
}

TEST(SparseOptimizer, AfterFreezingThereIsNothingToDo) {
  PeerImpl peer(small_options());
  SparseOptimizer adam(peer.pool(), {});
  backward(peer, inputs(1));
  peer.freeze();
  const ExpertValues before = peer.pool().experts_at(ids_of(0, 8, 8));
  adam.step();
  EXPECT_TRUE(same_values(peer.pool().experts_at(ids_of(0, 8, 8)), before));
  EXPECT_EQ(adam.experts_updated(), 0u);
  // A later generation may use another algorithm: the state went with the old one.
  EXPECT_NO_THROW(SparseOptimizer(peer.pool(), {.algorithm = SparseAlgorithm::sgd}));
}

TEST(CompactGradients, TakeMemoryAgainUnlessItIsHeld) {
  PeerImpl peer(small_options());
  const auto next = [&](std::uint64_t seed) {
    peer.pool().zero_grad();
    backward(peer, inputs(seed, 16));
    return peer.pool().compact_gradient();
  };
  CompactGradient first = next(1);
  const float* memory = first.values.const_data_ptr<float>();
  const at::Tensor expected = first.values.clone();
  first = {};
  CompactGradient second = next(1);
  EXPECT_EQ(second.values.const_data_ptr<float>(), memory);
  EXPECT_TRUE(same_bits(second.values, expected));
  const CompactGradient third = next(2);
  EXPECT_NE(third.values.const_data_ptr<float>(), memory);
  EXPECT_TRUE(same_bits(second.values, expected)) << "held, and written over";
}

}  // namespace
}  // namespace perennial
