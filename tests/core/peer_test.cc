// SPDX-License-Identifier: Apache-2.0
// The PEER module: shapes, determinism, folding at freeze, odd inputs and the messages about them.
#include "perennial/core/peer.h"

#include <torch/optim/sgd.h>

#include <boost/json/serialize.hpp>

#include "core/core_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

PeerOptions with(QueryNorm norm, Routing routing = Routing::isolated) {
  PeerOptions options = small_options();
  options.query_norm = norm;
  options.routing = routing;
  return options;
}

TEST(Peer, RetrievesTheBestOfAllPairs) {
  PeerImpl peer(with(QueryNorm::none));
  const at::Tensor x = inputs(1, 32);
  const PeerImpl::Retrieval found = peer.retrieve(x, 0);
  const auto parameters = peer.named_parameters();
  const at::Tensor query = x.to(at::kDouble)
                               .mm(parameters["router_0.query"].detach().to(at::kDouble).t())
                               .view({32, 2, 2, 4});
  const auto score = [&](const char* name, std::int64_t half) {
    return at::einsum("bhd,hnd->bhn",
                      {query.select(2, half), parameters[name].detach().to(at::kDouble)});
  };
  const at::Tensor all = (score("router_0.row_keys_00000", 0).unsqueeze(3) +
                          score("router_0.col_keys_00000", 1).unsqueeze(2))
                             .reshape({32, 2, 64});
  const auto [best, index] = all.topk(3, -1);
  const at::Tensor ids = at::div(index, 8, "floor") * (std::int64_t{1} << 32) + index % 8;
  EXPECT_TRUE(at::equal(found.ids, ids));
  EXPECT_TRUE(at::allclose(found.scores.to(at::kDouble), best, 0, 1e-5));
  EXPECT_TRUE(at::allclose(found.weights, found.scores.softmax(-1), 0, 1e-6));
}

// Retrieval reads a packed copy of the sub-keys.
TEST(Peer, RetrievesByTheKeysAsTheyAreNow) {
  const torch::NoGradGuard no_grad;
  PeerImpl peer(with(QueryNorm::none)), fresh(with(QueryNorm::none));
  const at::Tensor x = inputs(1, 32);
  const at::Tensor before = peer.retrieve(x, 0).ids;
  for (const char* name : {"router_0.row_keys_00000", "router_0.col_keys_00000"}) {
    peer.named_parameters()[name].mul_(-1);
    fresh.named_parameters()[name].mul_(-1);
    EXPECT_FALSE(at::equal(peer.retrieve(x, 0).ids, before)) << name;
  }
  const PeerImpl::Retrieval found = peer.retrieve(x, 0), expected = fresh.retrieve(x, 0);
  EXPECT_TRUE(at::equal(found.ids, expected.ids));
  EXPECT_TRUE(same_bits(found.scores, expected.scores));
}

// torch's SGD writes without counting a version.
TEST(Peer, RetrievesByTheKeysThatAnOptimizerLeft) {
  PeerImpl peer(with(QueryNorm::none));
  const at::Tensor x = inputs(1, 32);
  torch::optim::SGD sgd(peer.parameters(), torch::optim::SGDOptions(50.0));
  peer.forward(x).square().sum().backward();
  const at::Tensor before = peer.retrieve(x, 0).scores;  // packs, with the step still to come
  sgd.step();
  const at::Tensor stepped = peer.retrieve(x, 0).scores;
  EXPECT_FALSE(at::equal(stepped, before));
  sgd.zero_grad();
  EXPECT_TRUE(same_bits(peer.retrieve(x, 0).scores, stepped));
  PeerImpl fresh(with(QueryNorm::none));
  {
    const torch::NoGradGuard no_grad;
    const auto learnt = peer.named_parameters();
    for (auto& item : fresh.named_parameters()) item.value().copy_(learnt[item.key()]);
  }
  EXPECT_TRUE(same_bits(fresh.retrieve(x, 0).scores, stepped));
}

TEST(Peer, RetrievesByKeysThatWereWrittenBehindTorchsBack) {
  PeerImpl peer(with(QueryNorm::none)), fresh(with(QueryNorm::none));
  const at::Tensor x = inputs(1, 32);
  (void)peer.retrieve(x, 0);
  for (PeerImpl* layer : {&peer, &fresh}) {
    for (auto& parameter : layer->parameters()) parameter.data().mul_(-2);
  }
  peer.keys_changed();
  EXPECT_TRUE(same_bits(peer.retrieve(x, 0).scores, fresh.retrieve(x, 0).scores));
}

// A gradient that stayed would make every retrieval pack the keys again, and let an optimizer that
// still has them move what is frozen.
TEST(Freeze, LeavesNoGradient) {
  for (const Routing routing : {Routing::isolated, Routing::shared}) {
    PeerOptions options = small_options();
    options.routing = routing;
    PeerImpl peer(options);
    peer.forward(inputs(1, 32)).square().sum().backward();
    peer.freeze();
    for (const auto& item : peer.named_parameters()) {
      EXPECT_TRUE(item.value().requires_grad() || !item.value().grad().defined()) << item.key();
    }
  }
}

TEST(Peer, KeepsLeadingDimensions) {
  PeerImpl peer(with(QueryNorm::rms));
  const at::Tensor x = inputs(1, 24);
  const at::Tensor y = evaluate(peer, x);
  EXPECT_EQ(y.sizes(), (std::vector<std::int64_t>{24, 6}));
  EXPECT_TRUE(same_bits(evaluate(peer, x.view({2, 3, 4, 12})), y.view({2, 3, 4, 6})));
  EXPECT_TRUE(same_bits(evaluate(peer, x[5]), y[5]));
  EXPECT_TRUE(same_bits(evaluate(peer, x.t().contiguous().t()), y)) << "another memory layout";
}

TEST(Peer, EmptyBatch) {
  PeerImpl peer(small_options());
  for (const bool training : {false, true}) {
    peer.train(training);
    EXPECT_EQ(peer.forward(at::empty({0, 12})).sizes(), (std::vector<std::int64_t>{0, 6}));
    EXPECT_EQ(peer.forward(at::empty({3, 0, 12})).sizes(), (std::vector<std::int64_t>{3, 0, 6}));
  }
  EXPECT_EQ(peer.retrieve(at::empty({0, 12}), 0).ids.sizes(), (std::vector<std::int64_t>{0, 2, 3}));
}

TEST(Peer, MessagesSayWhatWasExpectedAndWhatCame) {
  PeerImpl peer(small_options());
  const auto refusal = [&](const at::Tensor& x) {
    EXPECT_THROW((void)peer.retrieve(x, 0), Error);
    return message_of<Error>([&] { (void)peer.forward(x); });
  };
  EXPECT_THAT(refusal(at::ones({4, 11})), AllOf(HasSubstr("12"), HasSubstr("[4, 11]")));
  EXPECT_THAT(refusal(at::ones({4, 12}, at::kDouble)),
              AllOf(HasSubstr("float32"), HasSubstr("Double")));
  EXPECT_THAT(refusal(at::ones({4, 12}, at::kLong)), HasSubstr("Long"));
  EXPECT_THAT(refusal(at::scalar_tensor(1.0F)), HasSubstr("[]"));
  EXPECT_THAT(message_of<Error>([&] { (void)peer.forward(inputs(1), 1); }),
              HasSubstr("generation 1"));
  EXPECT_THAT(message_of<Error>([&] { (void)peer.retrieve(inputs(1), 7); }),
              HasSubstr("generation 7"));
  EXPECT_THAT(message_of<Error>([&] { (void)peer.forward(inputs(1, 1)); }),
              AllOf(HasSubstr("at least 2 tokens"), HasSubstr("1")));
  PeerImpl shared(with(QueryNorm::rms, Routing::shared));
  EXPECT_THAT(message_of<Error>([&] { (void)shared.forward(inputs(1), 0); }), HasSubstr("shared"));
  PeerImpl empty(small_options(), nullptr, 0);
  EXPECT_THAT(message_of<Error>([&] { (void)empty.forward(inputs(1)); }), HasSubstr("grow()"));
  EXPECT_THAT(message_of<Error>([&] { (void)empty.retrieve(inputs(1), 0); }),
              HasSubstr("generation 0"));
}

std::vector<PeerOptions> variants() {
  std::vector<PeerOptions> all;
  for (const auto& [norm, name] : enum_names(QueryNorm{})) all.push_back(with(norm));
  for (const auto& [activation, name] : enum_names(kernels::Activation{})) {
    all.push_back(with(QueryNorm::layer));
    all.back().activation = activation;
    all.back().glu = activation == kernels::Activation::silu;
  }
  for (const auto& [score, name] : enum_names(kernels::ScoreFunction{})) {
    all.push_back(with(QueryNorm::rms));
    all.back().score = score;
  }
  all.push_back(with(QueryNorm::batch));
  all.back().dtype = kernels::WeightType::bf16;
  all.back().expert_width = 3;
  return all;
}

TEST(Peer, NanStaysNan) {
  for (const PeerOptions& options : variants()) {
    SCOPED_TRACE(boost::json::serialize(to_json(options)));
    PeerImpl peer(options);
    SparseOptimizer adam(peer.pool(), {});
    const at::Tensor x = inputs(1);
    const at::Tensor clean = evaluate(peer, x);
    at::Tensor bad = x.clone();
    bad[2][3] = NAN;
    bad[4].fill_(INFINITY);
    const at::Tensor y = evaluate(peer, bad);
    EXPECT_TRUE(y[2].isnan().all().item<bool>());
    if (options.score == kernels::ScoreFunction::softmax) {
      EXPECT_FALSE(y[4].isfinite().any().item<bool>());
    }
    for (const std::int64_t i : {0, 1, 3, 5, 6, 7}) EXPECT_TRUE(same_bits(y[i], clean[i])) << i;
    const at::Tensor ids = peer.retrieve(bad, 0).ids.view(-1).contiguous();
    for (std::int64_t i = 0; i < ids.numel(); ++i) {
      EXPECT_TRUE(peer.pool().exists(ids[i].item<std::int64_t>()));
    }
    at::Tensor leaf = bad.clone().requires_grad_();
    peer.forward(leaf).sum().backward();  // must not crash
    adam.step();
    EXPECT_TRUE(evaluate(peer, at::full({2, 12}, NAN)).isnan().all().item<bool>());
  }
}

// Everything a training step computes: outputs, router gradients, all experts, running statistics.
std::vector<at::Tensor> trained_bits(const PeerOptions& options, int threads) {
  const int before = at::get_num_threads();
  at::set_num_threads(threads);
  PeerImpl peer(options);
  SparseOptimizer adam(peer.pool(), {.lr = 0.02});
  std::vector<at::Tensor> bits;
  for (std::uint64_t step = 0; step < 3; ++step) {
    at::Tensor x = inputs(step, 150).requires_grad_();
    peer.zero_grad();
    const at::Tensor y = peer.forward(x);
    y.backward(y.detach() - 1);
    bits.push_back(y.detach().clone());
    bits.push_back(x.grad());
    for (auto& [name, parameter] : peer.trainable()) {
      bits.push_back(parameter.grad().clone());
      const at::NoGradGuard no_grad;
      parameter.sub_(parameter.grad() * 0.01);
    }
    bits.push_back(peer.pool().compact_gradient().values);
    adam.step();
  }
  const ExpertValues experts = peer.pool().experts_at(ids_of(0, 8, 8));
  bits.push_back(experts.u);
  bits.push_back(experts.v);
  for (const auto& item : peer.named_buffers()) bits.push_back(item.value());
  bits.push_back(evaluate(peer, inputs(9, 150)));
  at::set_num_threads(before);
  return bits;
}

TEST(Determinism, ThreadCountChangesNoBit) {
  for (const QueryNorm norm : {QueryNorm::batch, QueryNorm::layer, QueryNorm::rms}) {
    for (const SubKeys keys : {SubKeys::per_head, SubKeys::common}) {
      PeerOptions options = with(norm);
      options.sub_keys = keys;
      options.glu = keys == SubKeys::common;
      if (norm == QueryNorm::layer) {
        options.dtype = kernels::WeightType::bf16;
        options.expert_width = 3;
        options.dropout = 0.25;
      }
      const std::vector<at::Tensor> expected = trained_bits(options, 1);
      for (const int threads : {1, 2, 3}) {
        const std::vector<at::Tensor> found = trained_bits(options, threads);
        ASSERT_EQ(found.size(), expected.size());
        for (std::size_t i = 0; i < found.size(); ++i) {
          EXPECT_TRUE(same_bits(found[i], expected[i])) << threads << " threads, item " << i;
        }
      }
    }
  }
}

// Large enough that few tokens are cut: channels, heads, groups of neurons, lines of outputs.
TEST(Determinism, FewTokensAreSharedOutToTheSameBits) {
  PeerOptions options = small_options();
  options.d_out = 200;
  options.heads = 4;
  options.top_k = 16;
  options.d_key = 64;
  options.rows = options.cols = 16;
  for (const bool glu : {false, true}) {
    options.glu = glu;
    PeerImpl peer(options);
    const at::Tensor x = inputs(1, 64);
    const at::Tensor expected = evaluate(peer, x);
    const int before = at::get_num_threads();
    for (const int threads : {1, 2, 3, 5}) {
      at::set_num_threads(threads);
      for (const std::int64_t tokens : {1, 2, 3, 7}) {
        EXPECT_TRUE(
            same_bits(evaluate(peer, x.narrow(0, 0, tokens)), expected.narrow(0, 0, tokens)))
            << tokens << " tokens, " << threads << " threads";
      }
    }
    at::set_num_threads(before);
  }
}

TEST(Determinism, ATokensOutputDoesNotDependOnItsBatch) {
  for (const auto& [norm, name] : enum_names(QueryNorm{})) {
    SCOPED_TRACE(name);
    PeerImpl peer(with(norm));
    SparseOptimizer adam(peer.pool(), {});
    train(peer, adam, 3, 1);
    const at::Tensor x = inputs(5, 67);
    const at::Tensor y = evaluate(peer, x);
    const PeerImpl::Retrieval found = peer.retrieve(x, 0);
    for (std::int64_t i = 0; i < 67; i += 6) {
      EXPECT_TRUE(same_bits(evaluate(peer, x.slice(0, i, i + 1)), y.slice(0, i, i + 1))) << i;
      EXPECT_TRUE(same_bits(peer.retrieve(x.slice(0, i, i + 1), 0).scores,
                            found.scores.slice(0, i, i + 1)));
    }
    EXPECT_TRUE(same_bits(evaluate(peer, x.flip(0)).flip(0), y));
    EXPECT_TRUE(same_bits(evaluate(peer, x.slice(0, 17, 50)), y.slice(0, 17, 50)));
    if (norm == QueryNorm::batch) continue;
    peer.train();  // nothing looks at the batch: training gives the same
    EXPECT_TRUE(same_bits(peer.forward(x.slice(0, 30, 31)), y.slice(0, 30, 31)));
  }
}

TEST(Determinism, PageLayoutChangesNoBit) {
  for (const auto& [dtype, name] : enum_names(kernels::WeightType{})) {
    std::vector<at::Tensor> expected;
    for (const std::int64_t page_bytes : {1, 256, 700, 32768}) {
      PeerOptions options = small_options();
      options.page_bytes = page_bytes;
      options.dtype = dtype;
      const std::vector<at::Tensor> bits = trained_bits(options, 2);
      if (expected.empty()) expected = bits;
      for (std::size_t i = 0; i < bits.size(); ++i)
        EXPECT_TRUE(same_bits(bits[i], expected[i])) << name << ' ' << page_bytes;
    }
  }
}

TEST(Dropout, OnlyTrainsAndNeverRepeats) {
  PeerOptions options = with(QueryNorm::none);
  options.dropout = 0.5;
  PeerImpl peer(options), without(with(QueryNorm::none));
  const at::Tensor x = inputs(1, 64);
  const at::Tensor plain = evaluate(without, x);
  EXPECT_TRUE(same_bits(evaluate(peer, x), plain)) << "evaluation drops experts";
  peer.train();
  const at::Tensor first = peer.forward(x).detach(), second = peer.forward(x).detach();
  EXPECT_FALSE(at::equal(first, plain));
  EXPECT_FALSE(at::equal(first, second)) << "every forward draws anew";
  (void)evaluate(peer, x);  // draws nothing
  PeerImpl again(options);
  EXPECT_TRUE(same_bits(again.forward(x).detach(), first));
  EXPECT_TRUE(same_bits(again.forward(x).detach(), second));
  EXPECT_TRUE(same_bits(again.forward(x).detach(), peer.forward(x).detach()));
  // The mean over many draws is the whole sum: 6 slots, 0.5 of each variance, 400 draws.
  at::Tensor sum = at::zeros_like(plain);
  {
    const at::NoGradGuard no_grad;
    for (int i = 0; i < 400; ++i) sum += peer.forward(x);
  }
  EXPECT_LE((sum / 400 - plain).abs().mean().item<double>(),
            0.1 * plain.abs().mean().item<double>());
  // What is frozen does not train: no dropout.
  peer.freeze();
  EXPECT_TRUE(same_bits(peer.forward(x), plain));
}

TEST(Determinism, SeedsDecide) {
  PeerOptions other = small_options();
  other.seed = 4;
  PeerImpl a(small_options()), b(small_options()), c(other);
  const at::Tensor x = inputs(1);
  EXPECT_TRUE(same_bits(evaluate(a, x), evaluate(b, x)));
  EXPECT_FALSE(at::equal(evaluate(a, x), evaluate(c, x)));
  // Generations of one layer start apart too.
  a.freeze();
  a.grow();
  EXPECT_FALSE(at::equal(evaluate(a, x, 0), evaluate(a, x, 1)));
}

TEST(BatchNorm, KeepsTorchsRunningStatistics) {
  PeerImpl peer(small_options());
  const at::Tensor weight = peer.named_parameters()["router_0.query"].detach();
  at::Tensor mean = at::zeros({16}), var = at::ones({16});
  for (std::uint64_t step = 0; step < 4; ++step) {
    const at::Tensor x = inputs(step, 10) * 2 + 1;
    (void)peer.forward(x);
    (void)at::batch_norm(x.mm(weight.t()), {}, {}, mean, var, true, 0.1, 1e-5, false);
  }
  const auto buffers = peer.named_buffers();
  EXPECT_TRUE(at::allclose(buffers["router_0.running_mean"], mean, 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(buffers["router_0.running_var"], var, 1e-4, 1e-5));
  const at::Tensor kept = buffers["router_0.running_mean"].clone();
  (void)evaluate(peer, inputs(9));
  EXPECT_TRUE(same_bits(buffers["router_0.running_mean"], kept)) << "evaluation moves statistics";
}

TEST(BatchNorm, HeldStatisticsStayAndDecide) {
  for (const Routing routing : {Routing::isolated, Routing::shared}) {
    PeerImpl peer(with(QueryNorm::batch, routing));
    for (std::uint64_t step = 0; step < 4; ++step) (void)peer.forward(inputs(step, 32) * 2 + 1);
    peer.hold_statistics();
    const auto buffers = peer.named_buffers();
    const at::Tensor mean = buffers["router_0.running_mean"].clone(),
                     var = buffers["router_0.running_var"].clone();
    const at::Tensor x = inputs(7, 32), expected = evaluate(peer, x);
    peer.train();
    EXPECT_TRUE(same_bits(peer.forward(x).detach(), expected)) << "training sees the batch";
    EXPECT_TRUE(same_bits(peer.forward(x.slice(0, 3, 4)).detach(), expected.slice(0, 3, 4)));
    EXPECT_TRUE(same_bits(buffers["router_0.running_mean"], mean));
    EXPECT_TRUE(same_bits(buffers["router_0.running_var"], var));
  }
}

TEST(Freeze, FoldsBatchNormIntoTheQuery) {
  PeerImpl peer(small_options());
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 10, 1, 32);
  const at::Tensor x = inputs(5, 64);
  const at::Tensor before = evaluate(peer, x);
  const PeerImpl::Retrieval found = peer.retrieve(x, 0);
  // Not vacuous: statistics and affine part have left their initial values.
  const auto buffers = peer.named_buffers();
  EXPECT_GT(buffers["router_0.running_mean"].abs().max().item<double>(), 0.01);
  peer.freeze();
  const at::Tensor after = evaluate(peer, x);
  EXPECT_TRUE(at::equal(peer.retrieve(x, 0).ids, found.ids));
  // Rounding of the folded weights against that of the norm: a few units of fp32 on values of
  // order 1.
  EXPECT_LE((after - before).abs().max().item<double>(), 1e-5);
  EXPECT_LE((peer.retrieve(x, 0).scores - found.scores).abs().max().item<double>(), 1e-5);
  peer.train();
  EXPECT_TRUE(same_bits(peer.forward(x), after)) << "training mode sees the batch";
  EXPECT_TRUE(same_bits(peer.forward(x.slice(0, 3, 4)), after.slice(0, 3, 4)));
  EXPECT_TRUE(same_bits(evaluate(peer, x), after)) << "training mode moved statistics";
  for (const auto& parameter : peer.parameters()) EXPECT_FALSE(parameter.requires_grad());
}

TEST(Freeze, SharedRoutingGoesOnTraining) {
  PeerImpl peer(with(QueryNorm::batch, Routing::shared));
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 2, 1);
  peer.freeze();
  peer.grow();
  peer.unmask();
  const auto parameters = peer.named_parameters();
  const at::Tensor query = parameters["router_0.query"].detach().clone();
  const at::Tensor old_rows = parameters["router_0.row_keys_00000"].detach().clone();
  const at::Tensor new_rows = parameters["router_0.row_keys_00001"].detach().clone();
  train(peer, adam, 3, 2, 64);
  EXPECT_FALSE(at::equal(parameters["router_0.query"], query));
  EXPECT_FALSE(at::equal(parameters["router_0.row_keys_00001"], new_rows));
  EXPECT_TRUE(same_bits(parameters["router_0.row_keys_00000"], old_rows));
  EXPECT_TRUE(peer.frozen_intact());
}

}  // namespace
}  // namespace perennial
