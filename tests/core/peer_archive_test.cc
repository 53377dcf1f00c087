// SPDX-License-Identifier: Apache-2.0
// Layers in torch archives: whole, in place, and what is refused.
#include <torch/serialize.h>

#include <sstream>

#include "core/core_testing.h"
#include "perennial/core/unlearn.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string saved(const Peer& peer) {
  std::ostringstream stream;
  torch::save(peer, stream);
  return stream.str();
}

void load_into(Peer& peer, const std::string& bytes) {
  std::istringstream stream(bytes);
  torch::load(peer, stream);
}

PeerOptions options_of(Routing routing, QueryNorm norm, double dropout = 0) {
  PeerOptions options = small_options();
  options.routing = routing;
  options.query_norm = norm;
  options.dropout = dropout;
  return options;
}

// Two frozen generations, and an open one with more columns, part of them masked.
Peer grown(const PeerOptions& options, SparseOptimizer** adam) {
  Peer peer(options);
  *adam = new SparseOptimizer(peer->pool(), {.lr = 0.03});
  for (std::uint64_t g = 0; g < 2; ++g) {
    train(*peer, **adam, 3, g + 1);
    peer->freeze();
    peer->grow(4, 8);
    peer->unmask();
  }
  train(*peer, **adam, 2, 5);
  peer->grow_columns(3);
  return peer;
}

void expect_restored(PeerImpl& found, PeerImpl& wanted) {
  ASSERT_EQ(found.pool().record(), wanted.pool().record());
  EXPECT_TRUE(found.frozen_intact());
  EXPECT_EQ(found.has_masked(), wanted.has_masked());
  for (const Generation& g : wanted.pool().generations()) {
    EXPECT_TRUE(
        same_values(found.pool().experts_at(ids_of(g)), wanted.pool().experts_at(ids_of(g))));
  }
  const at::Tensor x = inputs(77, 32);
  EXPECT_TRUE(same_bits(evaluate(found, x), evaluate(wanted, x)));
  const auto names = found.trainable(), expected = wanted.trainable();
  ASSERT_EQ(names.size(), expected.size());
  for (std::size_t i = 0; i < names.size(); ++i) EXPECT_EQ(names[i].first, expected[i].first);
}

TEST(Archive, HasTheWholeLayerAndTrainingGoesOn) {
  for (const Routing routing : {Routing::isolated, Routing::shared}) {
    for (const QueryNorm norm : {QueryNorm::batch, QueryNorm::rms}) {
      SCOPED_TRACE(std::string(enum_name(routing)) + " " + std::string(enum_name(norm)));
      const PeerOptions options = options_of(routing, norm, 0.2);
      SparseOptimizer* made = nullptr;
      Peer peer = grown(options, &made);
      const std::unique_ptr<SparseOptimizer> adam(made);
      const std::string bytes = saved(peer);
      Peer fresh(options);
      SparseOptimizer attached(fresh->pool(), {.lr = 0.03});
      train(*fresh, attached, 2, 9);  // what it was goes
      load_into(fresh, bytes);
      expect_restored(*fresh, *peer);
      for (const auto& [layer, optimizer] :
           {std::pair{&fresh, &attached}, std::pair{&peer, adam.get()}}) {
        (*layer)->unmask();
        train(**layer, *optimizer, 3, 6);
        (*layer)->freeze();
      }
      expect_restored(*fresh, *peer);
      // What is frozen is written, too.
      const auto store = storage::make_memory_store();
      commit(*store, *fresh);
      expect_restored(*PeerImpl::load(*store, 0), *peer);
    }
  }
}

TEST(Archive, ParametersStayWhoTheyAre) {
  const PeerOptions options = options_of(Routing::isolated, QueryNorm::batch);
  Peer peer(options), other(options);
  SparseOptimizer adam(peer->pool(), {});
  train(*peer, adam, 3, 1);
  const std::vector<at::Tensor> before = other->parameters();
  before[0].requires_grad_(false);
  load_into(other, saved(peer));
  EXPECT_EQ(other->pool().record(), peer->pool().record());
  EXPECT_TRUE(same_bits(evaluate(*other, inputs(4)), evaluate(*peer, inputs(4))));
  const std::vector<at::Tensor> after = other->parameters();
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(after[i].is_same(before[i]));
  EXPECT_FALSE(after[0].requires_grad()) << "what trains is the caller's to say";
  // Back to where it was, after more training.
  const std::string best = saved(peer);
  const at::Tensor x = inputs(4), y = evaluate(*peer, x);
  train(*peer, adam, 2, 8);
  EXPECT_FALSE(same_bits(evaluate(*peer, x), y));
  load_into(peer, best);
  EXPECT_TRUE(same_bits(evaluate(*peer, x), y));
}

struct AroundImpl : torch::nn::Module {
  AroundImpl() : peer(register_module("peer", Peer(small_options()))) {}
  Peer peer;
};
TORCH_MODULE(Around);

TEST(Archive, ALayerIsSavedWithTheModuleAround) {
  Around one, two;
  SparseOptimizer adam(one->peer->pool(), {});
  train(*one->peer, adam, 3, 1);
  std::stringstream stream;
  torch::save(one, stream);
  torch::load(two, stream);
  expect_restored(*two->peer, *one->peer);
}

TEST(Archive, UnlearnedGenerationsStaySo) {
  const PeerOptions options = options_of(Routing::isolated, QueryNorm::rms);
  SparseOptimizer* made = nullptr;
  Peer peer = grown(options, &made);
  const std::unique_ptr<SparseOptimizer> adam(made);
  const auto store = storage::make_memory_store();
  commit(*store, *peer);
  storage::CommitRequest request;
  drop_generation(*store, 0, request);
  ASSERT_TRUE(store->commit(request).ok());
  const Peer left(PeerImpl::load(*store, 0));
  Peer fresh(options);
  load_into(fresh, saved(left));
  EXPECT_EQ(fresh->pool().generation(0).state, GenerationState::unlearned);
  EXPECT_EQ(fresh->pool().record(), left->pool().record());
  const at::Tensor x = inputs(3);
  EXPECT_TRUE(same_bits(evaluate(*fresh, x, 1), evaluate(*peer, x, 1)));
  EXPECT_THROW(evaluate(*fresh, x, 0), Error);
}

TEST(Archive, OfALargeLayerIsRefusedWithTheRemedy) {
  PeerOptions options = small_options();
  options.d_in = options.d_out = 1024;
  options.rows = options.cols = 256;
  const Peer peer(options);
  const std::string message = message_of<Error>([&] { (void)saved(peer); });
  EXPECT_THAT(message, AllOf(HasSubstr("536870912 bytes"), HasSubstr("268435456"),
                             HasSubstr("add_to_commit()")));
}

TEST(Archive, RefusesLayersThatItDoesNotFit) {
  Peer peer(small_options());
  const std::string bytes = saved(peer);
  PeerOptions options = small_options();
  options.top_k = 4;
  Peer other(options);
  EXPECT_THAT(message_of<Error>([&] { load_into(other, bytes); }), HasSubstr("top_k 3, not 4"));

  Peer sgd(small_options());
  SparseOptimizer adam(peer->pool(), {});
  train(*peer, adam, 1, 1);
  const SparseOptimizer plain(sgd->pool(), {.algorithm = SparseAlgorithm::rowwise_adagrad});
  EXPECT_THAT(message_of<Error>([&] { load_into(sgd, saved(peer)); }),
              HasSubstr("optimizer state"));

  const auto store = storage::make_memory_store();
  Peer stored(small_options());
  commit(*store, *stored);
  EXPECT_THAT(message_of<Error>([&] { load_into(stored, bytes); }), HasSubstr("a store holds"));

  std::ostringstream without;
  torch::serialize::OutputArchive routers;
  peer->torch::nn::Module::save(routers);
  routers.save_to(without);
  Peer fresh(small_options());
  const at::Tensor x = inputs(1), before = evaluate(*fresh, x);
  EXPECT_THAT(message_of<DataError>([&] { load_into(fresh, without.str()); }),
              HasSubstr("without the experts"));
  EXPECT_TRUE(same_bits(evaluate(*fresh, x), before));
}

// An archive with one of its tensors changed.
std::string altered(const std::string& bytes, const std::string& key,
                    const std::function<at::Tensor(at::Tensor)>& change) {
  std::istringstream in(bytes);
  torch::serialize::InputArchive from;
  from.load_from(in);
  torch::serialize::OutputArchive to;
  for (const std::string& name : from.keys()) {
    at::Tensor tensor;
    if (torch::serialize::InputArchive child; from.try_read(name, child)) {
      torch::serialize::OutputArchive copy(to.compilation_unit());
      for (const std::string& part : child.keys()) {
        c10::IValue value;
        child.read(part, value);
        const at::Tensor of = value.toTensor().detach().clone();
        copy.write(part, name + "." + part == key ? change(of) : of, true);
      }
      to.write(name, copy);
    } else {
      from.read(name, tensor, true);
      to.write(name, name == key ? change(tensor.clone()) : tensor, true);
    }
  }
  std::ostringstream out;
  to.save_to(out);
  return out.str();
}

TEST(Archive, DamageIsRefusedAndTheLayerStays) {
  const PeerOptions options = options_of(Routing::isolated, QueryNorm::rms);
  SparseOptimizer* made = nullptr;
  Peer peer = grown(options, &made);
  const std::unique_ptr<SparseOptimizer> adam(made);
  const std::string bytes = saved(peer);
  Peer fresh(options);
  load_into(fresh, altered(bytes, "weights", [](const at::Tensor& same) { return same; }));
  expect_restored(*fresh, *peer);
  const auto refused = [&](const std::string& key, const auto& change) {
    EXPECT_THROW(load_into(fresh, altered(bytes, key, change)), DataError) << key;
    expect_restored(*fresh, *peer);
  };
  refused("weights", [](const at::Tensor& t) {  // of a frozen generation
    t[0][7].bitwise_xor_(1);
    return t;
  });
  refused("weights",
          [](const at::Tensor& t) { return t.narrow(0, 1, t.size(0) - 1).contiguous(); });
  refused("weights", [](const at::Tensor& t) { return t.narrow(1, 0, 8).contiguous(); });
  refused("weights_places", [](const at::Tensor& t) {
    t[0][1] = 1 << 20;
    return t;
  });
  refused("weights_places", [](const at::Tensor& t) {
    t[0][0] = -1;
    return t;
  });
  refused("optimizer_state_places", [](const at::Tensor& t) {  // frozen: it has none
    t[0][0] = 0;
    return t;
  });
  refused("router_0.query", [](const at::Tensor& t) { return t + 1; });
  refused("pool", [](const at::Tensor& t) { return t.narrow(0, 0, 9).contiguous(); });
  refused("layer", [](const at::Tensor& t) { return t.narrow(0, 0, 9).contiguous(); });
}

}  // namespace
}  // namespace perennial
