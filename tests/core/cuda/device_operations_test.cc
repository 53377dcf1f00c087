// SPDX-License-Identifier: Apache-2.0
// What pool, layer and optimizer do beside learning, on a device: digests, shard files, failed
// commits, unlearning, other rules, moves between devices.
#include <filesystem>
#include <memory>
#include <string>

#include "device_testing.h"
#include "perennial/core/gate.h"
#include "perennial/core/shard_file.h"
#include "perennial/core/unlearn.h"
#include "perennial/storage/memory_store.h"
#include "storage/store_testing.h"

namespace perennial::cuda {
namespace {

using testing::commit;
using testing::evaluate;
using ::testing::HasSubstr;
using testing::ids_of;
using testing::inputs;
using testing::message_of;
using testing::same_bits;
using testing::same_values;
using testing::small_options;

class DeviceOperationsTest : public DeviceTest {};

// Two frozen generations and an open one that has learnt.
std::shared_ptr<PeerImpl> learnt(const PeerOptions& options, storage::PageStore* store) {
  auto peer = std::make_shared<PeerImpl>(options, store, 0);
  place_layer(*peer, device_under_test());
  for (std::uint64_t g = 0; g < 3; ++g) {
    peer->grow(4 + static_cast<std::int64_t>(g), 7);
    SparseOptimizer experts(peer->pool(), {});
    train_on_device(*peer, experts, 2, g + 1);
    if (g < 2) peer->freeze();
  }
  return peer;
}

TEST_F(DeviceOperationsTest, DigestsAreThoseOfTheCpu) {
  const std::shared_ptr<PeerImpl> peer = learnt(small_options(), nullptr);
  EXPECT_TRUE(peer->frozen_intact());
  const storage::Digest open = peer->pool().shard_digest(2);
  const auto pages = peer->pool().written_pages(2).size();
  EXPECT_GT(pages, 0u);
  EXPECT_EQ(peer->pool().newest_trained(), 2u);
  to_host(*peer);
  EXPECT_TRUE(peer->frozen_intact());
  EXPECT_EQ(peer->pool().shard_digest(2), open);
  EXPECT_EQ(peer->pool().written_pages(2).size(), pages);
  place_layer(*peer, device_under_test());
  EXPECT_EQ(peer->pool().shard_digest(2), open);
  SparseOptimizer experts(peer->pool(), {});
  train_on_device(*peer, experts, 1, 9);
  EXPECT_NE(peer->pool().shard_digest(2), open);
}

TEST_F(DeviceOperationsTest, ShardsGoFromDeviceToDevice) {
  const storage::testing::TempFolder folder;
  const std::string path = (folder.path() / "shard").string();
  const std::shared_ptr<PeerImpl> from = learnt(small_options(), nullptr);
  PeerOptions options = small_options();
  options.seed = 99;
  const std::shared_ptr<PeerImpl> to = on_device(options);
  to->freeze();
  export_shard(*from, 1, path);
  const Generation added = import_shard(*to, path);
  EXPECT_EQ(shard_content_digest(*to, added.index), shard_content_digest(*from, 1));
  const at::Tensor x = to_device(inputs(5));
  EXPECT_TRUE(same_bits(evaluate(*to, x, added.index).cpu(), evaluate(*from, x, 1).cpu()));
  EXPECT_TRUE(same_values(to->pool().experts_at(ids_of(to->pool().generation(added.index))),
                          from->pool().experts_at(ids_of(from->pool().generation(1)))));
  to_host(*from);
  export_shard(*from, 1, path + "-cpu");
  EXPECT_EQ(storage::testing::read_text(path + "-cpu"), storage::testing::read_text(path));
}

TEST_F(DeviceOperationsTest, AFailedCommitLosesNothing) {
  const auto failing = storage::make_memory_store(), whole = storage::make_memory_store();
  const auto run = [](storage::PageStore& store, bool fails) {
    PeerImpl peer(small_options(), &store, 0);
    place_layer(peer, device_under_test());
    peer.grow();
    SparseOptimizer experts(peer.pool(), {});
    train_on_device(peer, experts, 2, 1);
    storage::CommitRequest lost;
    if (fails) peer.add_to_commit(lost);
    train_on_device(peer, experts, 1, 2);  // while the store would write
    if (fails) peer.commit_failed();
    train_on_device(peer, experts, 1, 3);
    commit(store, peer);
  };
  run(*failing, true);
  run(*whole, false);
  EXPECT_EQ(content_of(*failing), content_of(*whole));
}

TEST_F(DeviceOperationsTest, AnUnlearnedGenerationIsNotLoaded) {
  const auto store = storage::make_memory_store();
  at::Tensor kept;
  const at::Tensor x = to_device(inputs(5));
  {
    const std::shared_ptr<PeerImpl> peer = learnt(small_options(), store.get());
    peer->freeze();
    kept = evaluate(*peer, x, 2).cpu();
    commit(*store, *peer);
  }
  storage::CommitRequest request;
  drop_generation(*store, 1, request);
  (void)value_or_throw(store->commit(request));
  const std::shared_ptr<PeerImpl> peer = PeerImpl::load(*store, 0);
  place_layer(*peer, device_under_test());
  EXPECT_TRUE(same_bits(evaluate(*peer, x, 2).cpu(), kept));
  EXPECT_THAT(message_of<Error>([&] { (void)peer->forward(x, 1); }), HasSubstr("was unlearned"));
  peer->grow();
  SparseOptimizer experts(peer->pool(), {});
  train_on_device(*peer, experts, 2, 4);
  EXPECT_TRUE(same_bits(evaluate(*peer, x, 2).cpu(), kept));
}

TEST_F(DeviceOperationsTest, AnEarlierRoutingIsRemembered) {
  PeerOptions options = small_options();
  options.routing = Routing::shared;
  const std::shared_ptr<PeerImpl> peer = on_device(options);
  SparseOptimizer experts(peer->pool(), {});
  train_on_device(*peer, experts, 2, 1);
  peer->freeze();
  const at::Tensor x = to_device(inputs(5)), routing = peer->frozen_routing();
  const at::Tensor answer = evaluate(*peer, x);
  EXPECT_EQ(routing.device(), device_under_test());
  peer->grow();
  peer->unmask();
  train_on_device(*peer, experts, 2, 2);
  EXPECT_TRUE(same_bits(peer->forward_as(routing, x).cpu(), answer.cpu()));
  EXPECT_TRUE(same_bits(peer->forward_as(routing.cpu(), x).cpu(), answer.cpu()));
  EXPECT_FALSE(same_bits(evaluate(*peer, x).cpu(), answer.cpu()));
  EXPECT_EQ(peer->forward_as(routing, x.narrow(0, 0, 0)).numel(), 0);
}

TEST_F(DeviceOperationsTest, EveryRuleLearnsAsOnTheCpu) {
  using A = SparseAlgorithm;
  const std::vector<SparseOptimizerOptions> rules = {
      {.algorithm = A::sgd, .lr = 0.1, .momentum = 0.9},
      {.algorithm = A::sgd, .lr = 0.1, .momentum = 0.9, .nesterov = true, .weight_decay = 0.01},
      {.algorithm = A::adam, .lr = 0.01, .weight_decay = 0.01},
      {.algorithm = A::adamw, .lr = 0.01, .weight_decay = 0.1}};
  for (const kernels::WeightType type : {kernels::WeightType::f32, kernels::WeightType::bf16}) {
    for (const SparseOptimizerOptions& rule : rules) {
      PeerOptions options = small_options();
      options.dtype = type;
      PeerImpl cpu(options);
      const std::shared_ptr<PeerImpl> device = on_device(options);
      SparseOptimizer cpu_experts(cpu.pool(), rule), experts(device->pool(), rule);
      for (const double lr : {rule.lr, rule.lr / 10}) {
        cpu_experts.set_lr(lr);
        experts.set_lr(lr);
        testing::train(cpu, cpu_experts, 2, 1);
        train_on_device(*device, experts, 2, 1);
      }
      const auto ids = ids_of(cpu.pool().generation(0));
      const ExpertValues wanted = cpu.pool().experts_at(ids),
                         found = device->pool().experts_at(ids);
      // Rounding to bf16 makes a last bit of fp32 one of bf16 now and then.
      const double slack = type == kernels::WeightType::bf16 ? 1.0 / 64 : 0;
      EXPECT_LE((found.u - wanted.u).abs().max().item<double>(), kTolerance + slack);
      EXPECT_LE((found.v - wanted.v).abs().max().item<double>(), kTolerance + slack);
    }
  }
}

TEST_F(DeviceOperationsTest, LearningGoesOnAfterEveryMove) {
  PeerImpl still(small_options());
  const auto moved = std::make_shared<PeerImpl>(small_options());
  SparseOptimizer for_still(still.pool(), {}), for_moved(moved->pool(), {});
  for (std::uint64_t i = 0; i < 4; ++i) {
    testing::train(still, for_still, 2, i);
    if (i % 2 == 0) {
      to_host(*moved);
      testing::train(*moved, for_moved, 2, i);
    } else {
      place_layer(*moved, device_under_test());
      train_on_device(*moved, for_moved, 2, i);
    }
  }
  EXPECT_EQ(for_moved.experts_updated(), for_still.experts_updated());
  const auto ids = ids_of(still.pool().generation(0));
  expect_near(moved->pool().experts_at(ids).u, still.pool().experts_at(ids).u, "u");
}

TEST_F(DeviceOperationsTest, GradientsMayComeFromElsewhere) {
  const std::shared_ptr<PeerImpl> device = on_device(small_options()),
                                  cpu = std::make_shared<PeerImpl>(small_options());
  SparseOptimizer for_device(device->pool(), {}), for_cpu(cpu->pool(), {});
  testing::backward(*device, to_device(inputs(1)));
  testing::backward(*cpu, inputs(1));
  const CompactGradient of_device = device->pool().compact_gradient(),
                        of_cpu = cpu->pool().compact_gradient();
  for_device.step({of_cpu.ids, of_cpu.values});
  for_cpu.step({of_device.ids, of_device.values});
  const auto ids = ids_of(cpu->pool().generation(0));
  expect_near(device->pool().experts_at(ids).v, cpu->pool().experts_at(ids).v, "v");
  EXPECT_THROW(for_device.step({of_device.ids + 100, of_device.values}), Error);
  EXPECT_THROW(for_device.step({of_device.ids, of_device.values.narrow(1, 1, 2)}), Error);
}

// They live on the CPU.
TEST_F(DeviceOperationsTest, GatesAndHeadsRefuseTensorsOfTheDevice) {
  const at::Tensor x = inputs(1), there = to_device(x), classes = at::zeros({8}, at::kLong);
  AnalyticGateOptions options;
  options.features = 16;
  AnalyticGate gate(12, options);
  gate.add_generation();
  gate.observe(x, 0);
  for (const auto& work : std::vector<std::function<void()>>{
           [&] { gate.observe(there, 0); }, [&] { (void)gate.novelty(there, 0); },
           [&] { (void)gate.scores_of(gate.features(x).to(device_under_test())); }}) {
    EXPECT_THAT(message_of<Error>(work), HasSubstr("CPU"));
  }
}

}  // namespace
}  // namespace perennial::cuda
