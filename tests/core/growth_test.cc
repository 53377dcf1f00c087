// SPDX-License-Identifier: Apache-2.0
// Growth and freezing: ids are stable, appending changes no older output, frozen stays frozen.
#include <set>

#include "core/core_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::HasSubstr;

std::vector<std::int64_t> rows_retrieved(const PeerImpl::Retrieval& found) {
  std::vector<std::int64_t> rows;
  const at::Tensor ids = found.ids.contiguous();
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    rows.push_back(kernels::row_of(ids.const_data_ptr<std::int64_t>()[i]));
  }
  return rows;
}

std::uint32_t widest_column(const PeerImpl::Retrieval& found, std::uint32_t from_row = 0) {
  std::uint32_t widest = 0;
  const at::Tensor ids = found.ids.contiguous();
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    const std::int64_t id = ids.const_data_ptr<std::int64_t>()[i];
    if (kernels::row_of(id) >= from_row) widest = std::max(widest, kernels::col_of(id));
  }
  return widest;
}

class Growth : public ::testing::TestWithParam<Routing> {
 protected:
  PeerOptions options() const {
    PeerOptions options = small_options();
    options.routing = GetParam();
    return options;
  }
  bool isolated() const { return GetParam() == Routing::isolated; }
  // Output of generation g (isolated), or of the layer (shared).
  at::Tensor output(PeerImpl& peer, std::uint32_t g, const at::Tensor& x) const {
    return isolated() ? evaluate(peer, x, g) : evaluate(peer, x);
  }
};

TEST_P(Growth, RenumbersNothing) {
  PeerImpl peer(options());
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 3, 1);
  const at::Tensor x = inputs(7, 64);
  PeerImpl::Retrieval before = peer.retrieve(x, 0);
  const ExpertValues values = peer.pool().experts_at(ids_of(peer.pool().generation(0)));

  peer.grow_columns(5);
  EXPECT_TRUE(same_bits(peer.retrieve(x, 0).ids, before.ids)) << "after grow_columns";
  EXPECT_THROW(peer.freeze(), Error) << "masked columns would be locked away";
  peer.unmask();
  before = peer.retrieve(x, 0);
  peer.freeze();
  const Generation& second = peer.grow(6, 16);
  EXPECT_EQ(second.first_row, 8);
  EXPECT_EQ(second.rows, 6);
  EXPECT_EQ(second.cols, 16);
  const PeerImpl::Retrieval after = peer.retrieve(x, 0);
  EXPECT_TRUE(same_bits(after.ids, before.ids)) << "after grow";
  EXPECT_TRUE(same_values(peer.pool().experts_at(ids_of(0, 8, 8)), values));
  EXPECT_EQ(kernels::expert_id(8, 15), (std::int64_t{8} << 32) | 15);
  EXPECT_TRUE(peer.pool().exists(kernels::expert_id(8, 15)));
  EXPECT_TRUE(peer.pool().exists(kernels::expert_id(7, 12)));
  EXPECT_FALSE(peer.pool().exists(kernels::expert_id(7, 13)));
  EXPECT_FALSE(peer.pool().exists(kernels::expert_id(14, 0)));
  EXPECT_EQ(peer.pool().experts(), 8u * 13 + 6 * 16);
}

TEST_P(Growth, ChangesNoOlderOutput) {
  PeerImpl peer(options());
  SparseOptimizer adam(peer.pool(), {});
  const at::Tensor x = inputs(7, 64);
  for (std::uint32_t g = 0; g < 3; ++g) {
    SCOPED_TRACE(g);
    train(peer, adam, 3, g + 1);
    const at::Tensor open = output(peer, g, x);
    peer.grow_columns(3 + g);
    EXPECT_TRUE(peer.has_masked());
    EXPECT_TRUE(same_bits(output(peer, g, x), open)) << "masked columns are seen";
    peer.unmask();
    EXPECT_FALSE(peer.has_masked());
    train(peer, adam, 2, g + 10);
    peer.freeze();
    std::vector<at::Tensor> before;
    for (std::uint32_t old = 0; old <= g; ++old) before.push_back(output(peer, old, x));
    peer.grow(4 + g, 20 + g);
    EXPECT_EQ(peer.has_masked(), !isolated());
    for (std::uint32_t old = 0; old <= g; ++old) {
      EXPECT_TRUE(same_bits(output(peer, old, x), before[old])) << "generation " << old;
    }
    peer.unmask();
  }
}

TEST_P(Growth, TrainingModeSeesNoMaskedRowsOrColumns) {
  // Training, with no norm that looks at the batch: the same outputs too.
  PeerOptions rms = options();
  rms.query_norm = QueryNorm::rms;
  PeerImpl peer(rms);
  const at::Tensor x = inputs(7, 64);
  const at::Tensor before = peer.forward(x);
  peer.grow_columns(64);
  EXPECT_TRUE(same_bits(peer.forward(x), before));
}

TEST_P(Growth, FrozenStaysFrozen) {
  std::unique_ptr<storage::PageStore> store = storage::make_memory_store();
  PeerImpl peer(options(), store.get(), 0);
  peer.grow();
  SparseOptimizerOptions adamw;
  adamw.lr = 0.1;
  adamw.weight_decay = 0.1;
  SparseOptimizer experts(peer.pool(), adamw);
  train(peer, experts, 4, 1, 64);
  commit(*store, peer);
  const auto states = [&] {
    int count = 0;
    for (const storage::PageId& id : store->pages()) count += id.kind == storage::PageKind::state;
    return count;
  };
  EXPECT_GT(states(), 0);

  const storage::Digest digest = peer.freeze();
  EXPECT_EQ(peer.pool().generation(0).digest, digest);
  const ExpertValues values = peer.pool().experts_at(ids_of(0, 8, 8));
  commit(*store, peer);
  EXPECT_EQ(states(), 0) << "optimizer state outlives its generation";
  std::map<storage::PageId, storage::Digest> pages;
  for (const storage::PageId& id : store->pages()) pages[id] = *store->page_digest(id);

  peer.grow(4, 8);
  peer.unmask();
  for (std::uint64_t round = 0; round < 3; ++round) {
    train(peer, experts, 4, round + 2, 64);
    EXPECT_EQ(peer.pool().shard_digest(0), digest);
    EXPECT_TRUE(same_values(peer.pool().experts_at(ids_of(0, 8, 8)), values));
    commit(*store, peer);
    for (const auto& [id, page] : pages) EXPECT_EQ(*store->page_digest(id), page);
    EXPECT_TRUE(peer.frozen_intact());
  }
  EXPECT_EQ(peer.pool().generation(0).digest, digest);
  EXPECT_GT(store->pages().size(), pages.size()) << "the newer generation did not learn";
}

TEST_P(Growth, FrozenExpertsGetNoGradient) {
  PeerImpl peer(options());
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 1, 1);
  peer.freeze();
  for (const auto& [name, parameter] : peer.trainable()) {
    EXPECT_FALSE(isolated()) << name;
    EXPECT_THAT(name, ::testing::Not(HasSubstr("row_keys")));
  }
  peer.grow(4, 8);
  peer.unmask();
  peer.zero_grad();  // what training left
  const at::Tensor x = inputs(5, 64);
  if (isolated()) {
    // Nothing of a frozen generation asks for a gradient; the input may.
    at::Tensor leaf = x.clone().requires_grad_();
    EXPECT_FALSE(peer.forward(x, 0).requires_grad());
    peer.forward(leaf, 0).sum().backward();
    EXPECT_GT(leaf.grad().abs().sum().item<double>(), 0);
    EXPECT_EQ(peer.pool().compact_gradient().ids.numel(), 0);
  }
  peer.forward(x).sum().backward();
  const at::Tensor ids = peer.pool().compact_gradient().ids;
  ASSERT_GT(ids.numel(), 0);
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    EXPECT_GE(kernels::row_of(ids[i].item<std::int64_t>()), 8u);
  }
  for (const auto& item : peer.named_parameters()) {
    if (!item.value().requires_grad()) {
      EXPECT_FALSE(item.value().grad().defined()) << item.key();
    }
  }
  const CompactGradient foreign{at::zeros({1}, at::kLong), at::zeros({1, 18})};
  EXPECT_THAT(message_of<Error>([&] { adam.step(foreign); }), HasSubstr("open generation"));
}

TEST_P(Growth, TamperedShardIsNoticed) {
  for (const bool router : {false, true}) {
    SCOPED_TRACE(router ? "router" : "page");
    std::unique_ptr<storage::PageStore> store = storage::make_memory_store();
    PeerImpl peer(options(), store.get(), 0);
    peer.grow();
    SparseOptimizer adam(peer.pool(), {});
    train(peer, adam, 2, 1);
    peer.freeze();
    commit(*store, peer);
    EXPECT_TRUE(peer.frozen_intact());
    EXPECT_TRUE(PeerImpl::load(*store, 0)->frozen_intact());
    if (router) {
      const at::NoGradGuard no_grad;
      at::Tensor keys = peer.named_parameters()["router_0.row_keys_00000"];
      keys.view(-1)[0] += 1e-3;
      EXPECT_FALSE(peer.frozen_intact());
    } else {
      const storage::PageId id = store->pages().front();
      const storage::PageShape shape = *store->page_shape(id);
      storage::Bytes payload(shape.payload_bytes());
      ASSERT_TRUE(store->read_page(id, payload).ok());
      payload[5] ^= std::byte{1};
      storage::CommitRequest request;
      request.pages.push_back(
          {id, shape, [&] { return storage::Result<std::span<const std::byte>>(payload); }});
      ASSERT_TRUE(store->commit(request).ok());
      EXPECT_FALSE(PeerImpl::load(*store, 0)->frozen_intact());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Routings, Growth, ::testing::Values(Routing::isolated, Routing::shared),
                         [](const auto& info) { return std::string(enum_name(info.param)); });

TEST(Isolation, LearningANewerGenerationChangesNoBit) {
  PeerImpl peer(small_options());
  SparseOptimizer adam(peer.pool(), {});
  const at::Tensor x = inputs(7, 64);
  train(peer, adam, 3, 1);
  peer.freeze();
  const at::Tensor before = evaluate(peer, x, 0);
  const PeerImpl::Retrieval found = peer.retrieve(x, 0);
  for (std::uint32_t g = 1; g < 4; ++g) {
    peer.grow();
    const at::Tensor untrained = evaluate(peer, x, g);
    train(peer, adam, 5, g + 1, 64);
    EXPECT_FALSE(at::equal(evaluate(peer, x, g), untrained)) << "the newer one does not learn";
    EXPECT_TRUE(same_bits(evaluate(peer, x, 0), before)) << g;
    EXPECT_TRUE(same_bits(peer.retrieve(x, 0).ids, found.ids));
    EXPECT_TRUE(same_bits(peer.retrieve(x, 0).scores, found.scores));
    peer.freeze();
    EXPECT_TRUE(same_bits(evaluate(peer, x, 0), before)) << g;
  }
  EXPECT_TRUE(peer.frozen_intact());
}

TEST(Masking, SharedRowsAreRetrievedOnlyAfterUnmask) {
  PeerOptions options = small_options();
  options.routing = Routing::shared;
  PeerImpl peer(options);
  const at::Tensor x = inputs(7, 256);
  peer.freeze();
  peer.grow(8, 8);
  for (const std::int64_t row : rows_retrieved(peer.retrieve(x, 0))) EXPECT_LT(row, 8);
  // Training with the new rows masked leaves their experts alone.
  SparseOptimizer adam(peer.pool(), {});
  const ExpertValues fresh = peer.pool().experts_at(ids_of(8, 8, 8));
  train(peer, adam, 2, 3, 64);
  EXPECT_TRUE(same_values(peer.pool().experts_at(ids_of(8, 8, 8)), fresh));
  peer.unmask();
  const std::vector<std::int64_t> rows = rows_retrieved(peer.retrieve(x, 0));
  EXPECT_GT(std::count_if(rows.begin(), rows.end(), [](std::int64_t row) { return row >= 8; }), 0);
  EXPECT_GT(std::count_if(rows.begin(), rows.end(), [](std::int64_t row) { return row < 8; }), 0);
}

TEST(FrozenRouting, ASharedLayerStillAnswersAsItDid) {
  for (const QueryNorm norm : {QueryNorm::batch, QueryNorm::none, QueryNorm::layer}) {
    PeerOptions options = small_options();
    options.routing = Routing::shared;
    options.query_norm = norm;
    PeerImpl peer(options);
    SparseOptimizer experts(peer.pool(), {});
    const at::Tensor x = inputs(5);
    std::vector<at::Tensor> routing, answers;
    for (std::uint64_t g = 0; g < 3; ++g) {
      train(peer, experts, 3, g);
      peer.freeze();
      routing.push_back(peer.frozen_routing());
      answers.push_back(evaluate(peer, x));
      peer.grow();
      EXPECT_TRUE(same_bits(peer.frozen_routing(), routing.back()));
      peer.unmask();
    }
    train(peer, experts, 3, 9);
    for (const std::size_t g : {2U, 0U, 1U, 1U}) {
      EXPECT_TRUE(same_bits(peer.forward_as(routing[g], x), answers[g]));
    }
    EXPECT_FALSE(same_bits(evaluate(peer, x), answers[2]));
    EXPECT_THROW(peer.forward_as(routing[0].narrow(0, 1, routing[0].numel() - 1), x), Error);
  }
  PeerImpl isolated(small_options());
  EXPECT_THROW(isolated.frozen_routing(), Error);
}

TEST(Masking, ColumnsAreRetrievedOnlyAfterUnmask) {
  for (const Routing routing : {Routing::isolated, Routing::shared}) {
    PeerOptions options = small_options();
    options.routing = routing;
    PeerImpl peer(options);
    const at::Tensor x = inputs(7, 256);
    peer.grow_columns(8);
    EXPECT_LT(widest_column(peer.retrieve(x, 0)), 8u);
    peer.unmask();
    EXPECT_GE(widest_column(peer.retrieve(x, 0)), 8u);
  }
}

TEST(Masking, PairsBeyondAGenerationsWidthDoNotExist) {
  PeerOptions options = small_options();
  options.routing = Routing::shared;
  PeerImpl peer(options);
  const at::Tensor x = inputs(7, 512);
  peer.freeze();
  peer.grow(8, 20);
  peer.unmask();
  peer.freeze();
  peer.grow(8, 5);
  peer.unmask();
  const PeerImpl::Retrieval found = peer.retrieve(x, 0);
  std::set<std::uint32_t> generations;
  const at::Tensor ids = found.ids.contiguous();
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    const std::int64_t id = ids.const_data_ptr<std::int64_t>()[i];
    EXPECT_TRUE(peer.pool().exists(id)) << id;
    generations.insert(kernels::row_of(id) / 8);
  }
  EXPECT_EQ(generations.size(), 3u) << "every generation must be reached for this to say anything";
  EXPECT_GE(widest_column(found), 8u);
  EXPECT_LT(widest_column(found, 16), 5u);
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 3, 9, 64);
  EXPECT_TRUE(peer.frozen_intact());
}

TEST(Masking, NothingVisibleIsAnError) {
  PeerOptions options = small_options();
  options.routing = Routing::shared;
  PeerImpl peer(options, nullptr, 0);
  peer.grow();
  EXPECT_EQ(evaluate(peer, inputs(1)).size(0), 8)
      << "the first generation has nothing to hide from";
  EXPECT_FALSE(peer.has_masked());
}

TEST(GrowthErrors, NameWhatIsWrong) {
  PeerImpl peer(small_options());
  EXPECT_THAT(message_of<Error>([&] { peer.grow(); }), HasSubstr("generation 0 is open"));
  EXPECT_THAT(message_of<InvalidOptions>([&] { peer.grow_columns(0); }), HasSubstr("0 columns"));
  EXPECT_THAT(message_of<InvalidOptions>([&] { peer.grow_columns(4294967295); }),
              HasSubstr("4294967295 columns"));
  EXPECT_THAT(message_of<InvalidOptions>([&] { peer.grow_columns(std::int64_t{1} << 40); }),
              HasSubstr("1099511627776 columns"));
  peer.freeze();
  EXPECT_THAT(message_of<Error>([&] { peer.freeze(); }), HasSubstr("no generation is open"));
  EXPECT_THAT(message_of<Error>([&] { peer.grow_columns(1); }), HasSubstr("frozen"));
  EXPECT_THAT(message_of<InvalidOptions>([&] { peer.grow(1, 2); }), HasSubstr("top_k is 3"));
  EXPECT_THAT(message_of<InvalidOptions>([&] { peer.grow(-1, 2); }), HasSubstr("rows is -1"));
  EXPECT_THAT(message_of<InvalidOptions>([&] { peer.grow(4294967295, 1); }), HasSubstr("2^32"));
  EXPECT_EQ(peer.pool().generations().size(), 1u) << "a refused growth left something behind";
  EXPECT_TRUE(peer.frozen_intact());
  EXPECT_EQ(peer.grow().first_row, 8u);
}

}  // namespace
}  // namespace perennial
