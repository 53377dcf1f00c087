// SPDX-License-Identifier: Apache-2.0
// Layers that grow, freeze and commit as one, two of them over one pool.
#include "perennial/core/expert_layers.h"

#include <boost/json/parse.hpp>
#include <filesystem>
#include <fstream>

#include "core/core_testing.h"
#include "core/layered_model.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/shard_file.h"
#include "perennial/core/unlearn.h"
#include "storage/store_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::HasSubstr;

TEST(ExpertLayers, NamesEnterTheDraws) {
  ExpertLayers layers;
  layers.add("one", small_options());
  layers.add("two", small_options());
  layers.add(std::string(kDefaultName), small_options());
  layers.grow();
  const auto ids = ids_of(0, 8, 8);
  const ExpertValues one = layers.get("one").pool().experts_at(ids);
  const ExpertValues two = layers.get("two").pool().experts_at(ids);
  EXPECT_FALSE(one.u.equal(two.u));
  EXPECT_FALSE(one.v.equal(two.v));
  const auto a = layers.get("one").trainable(), b = layers.get("two").trainable();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ("one/" + a[i].first.substr(4), a[i].first);
    EXPECT_EQ("two/" + a[i].first.substr(4), b[i].first);
    const bool drawn =
        a[i].first.ends_with("query") || a[i].first.find("keys") != std::string::npos;
    EXPECT_EQ(a[i].second.equal(b[i].second), !drawn) << a[i].first;
  }
  // The default name's bits are those of a layer by itself, but for its pool's number.
  PeerImpl alone(small_options());
  const auto own = alone.trainable(), named = layers.get("peer").trainable();
  for (std::size_t i = 0; i < own.size(); ++i) {
    EXPECT_EQ(own[i].first, named[i].first);
    EXPECT_TRUE(same_bits(own[i].second, named[i].second));
  }
}

TEST(ExpertLayers, DropoutDrawsByName) {
  PeerOptions options = small_options();
  options.dropout = 0.5;
  options.query_norm = QueryNorm::rms;
  ExpertLayers layers;
  layers.add("one", options, "tied");
  layers.add("two", options, "tied");
  layers.grow();
  // With equal routers the answers differ by what is left out alone.
  PeerImpl &one = layers.get("one"), &two = layers.get("two");
  {
    const at::NoGradGuard no_grad;
    const auto from = one.trainable(), to = two.trainable();
    for (std::size_t i = 0; i < from.size(); ++i) at::Tensor(to[i].second).copy_(from[i].second);
    one.keys_changed();
    two.keys_changed();
  }
  const at::Tensor x = inputs(3);
  EXPECT_TRUE(same_bits(evaluate(one, x), evaluate(two, x)));
  one.train();
  two.train();
  EXPECT_FALSE(one.forward(x).equal(two.forward(x)));
}

TEST(ExpertLayers, GradientsOfATiedPoolAreThoseOfAllItsLayers) {
  const auto gradient = [](bool first, bool second) {
    LayeredModel model(nullptr, 0);
    const at::Tensor x = inputs(5, 8, 8);
    if (first) model.layers.get("c").forward(x).sum().backward();
    if (second) model.layers.get("d").forward(x).square().sum().backward();
    CompactGradient found = model.layers.get("c").pool().compact_gradient();
    at::Tensor all = at::zeros({64, found.values.size(1)});
    for (std::int64_t i = 0; i < found.ids.size(0); ++i) {
      const auto id = found.ids[i].item<std::int64_t>();
      all[static_cast<std::int64_t>(kernels::row_of(id)) * 8 + kernels::col_of(id)] =
          found.values[i];
    }
    return all;
  };
  const at::Tensor c = gradient(true, false), d = gradient(false, true);
  EXPECT_GT(c.abs().sum().item<float>(), 0);
  EXPECT_GT(d.abs().sum().item<float>(), 0);
  EXPECT_TRUE(at::allclose(gradient(true, true), c + d, 1e-5, 1e-6));
}

TEST(ExpertLayers, GrowthAndLearningLeaveOlderGenerationsAlone) {
  LayeredModel model(nullptr, 0);
  const at::Tensor x = inputs(9, 16, 8);
  model.train(6, 1);
  const storage::Digest digest = model.layers.freeze();
  const at::Tensor before = model.answer(x, 0);
  EXPECT_EQ(model.layers.digest(0), digest);
  EXPECT_TRUE(model.layers.frozen_intact());
  EXPECT_EQ(model.grow(), 1u);
  EXPECT_TRUE(same_bits(model.answer(x, 0), before));
  model.train(6, 2);
  EXPECT_TRUE(same_bits(model.answer(x, 0), before));
  EXPECT_FALSE(model.answer(x, 1).equal(before));
  EXPECT_TRUE(model.layers.frozen_intact(0));
  EXPECT_FALSE(model.layers.frozen_intact(1));
  EXPECT_EQ(model.layers.state(1), GenerationState::open);
  EXPECT_THAT(message_of<Error>([&] { (void)model.layers.digest(1); }), HasSubstr("open"));
  EXPECT_NE(model.layers.freeze(), digest);
  // A key of either layer of the tied pool counts.
  for (const char* name : {"a", "c", "d"}) {
    const at::NoGradGuard no_grad;
    at::Tensor key = model.layers.get(name).router_tensors(0).at("row_keys_00000");
    const at::Tensor kept = key.clone();
    key.view({-1})[0] += 1;
    EXPECT_FALSE(model.layers.frozen_intact(0)) << name;
    EXPECT_TRUE(model.layers.frozen_intact(1)) << name;
    key.copy_(kept);
    EXPECT_TRUE(model.layers.frozen_intact()) << name;
  }
}

TEST(ExpertLayers, ComeBackAndLearnOnToTheSameBits) {
  for (const std::int64_t budget : {std::int64_t{0}, LayeredModel::kSmallestBudget}) {
    SCOPED_TRACE(budget);
    const auto kept = storage::make_memory_store(), straight = storage::make_memory_store();
    LayeredModel model(straight.get(), 0);
    auto other = std::make_unique<LayeredModel>(kept.get(), budget);
    const auto reload = [&] {
      commit(*kept, *other);
      other = LayeredModel::load(*kept, budget);
    };
    for (int round = 0; round < 3; ++round) {
      for (int part = 0; part < 2; ++part) {
        const auto seed = static_cast<std::uint64_t>(10 * round + part);
        model.train(3, seed);
        other->train(3, seed);
        reload();
      }
      EXPECT_EQ(model.layers.freeze(), other->layers.freeze());
      reload();
      if (round == 2) break;
      model.grow();
      other->grow();
      reload();
    }
    EXPECT_EQ(commit(*straight, model).state_digest, kept->head()->state_digest);
    EXPECT_TRUE(other->layers.frozen_intact());
    const at::Tensor x = inputs(21, 32, 8);
    for (std::uint32_t g = 0; g < 3; ++g) {
      EXPECT_TRUE(same_bits(model.answer(x, g), other->answer(x, g)));
    }
  }
}

TEST(ExpertLayers, TheSmallestBudgetServesTheHungriestLayer) {
  const auto store = storage::make_memory_store();
  EXPECT_THAT(message_of<InvalidOptions>(
                  [&] { LayeredModel(store.get(), LayeredModel::kSmallestBudget - 1); }),
              HasSubstr(std::to_string(LayeredModel::kSmallestBudget)));
  LayeredModel model(store.get(), LayeredModel::kSmallestBudget);
  model.train(3, 1);
  EXPECT_LE(model.layers.counters().peak_bytes,
            static_cast<std::uint64_t>(LayeredModel::kSmallestBudget));
  EXPECT_GT(model.layers.counters().spilled, 0u);
}

TEST(ExpertLayers, AFailedCommitLosesNothing) {
  const auto store = storage::make_memory_store(), straight = storage::make_memory_store();
  LayeredModel model(store.get(), 0), other(straight.get(), 0);
  for (int i = 0; i < 4; ++i) {
    model.train(2, static_cast<std::uint64_t>(i));
    other.train(2, static_cast<std::uint64_t>(i));
    storage::CommitRequest lost;
    model.add_to_commit(lost);
    model.commit_failed();
    if (i == 1) {
      model.layers.freeze();
      other.layers.freeze();
      model.grow();
      other.grow();
    }
  }
  EXPECT_EQ(commit(*store, model).state_digest, commit(*straight, other).state_digest);
}

TEST(ExpertLayers, UnlearningTheNewestIsNeverHavingLearntIt) {
  const auto store = storage::make_memory_store();
  LayeredModel model(store.get(), 0);
  model.train(4, 1);
  model.layers.freeze();
  const storage::Digest before = commit(*store, model).state_digest;
  model.grow();
  model.train(4, 2);
  model.layers.freeze();
  EXPECT_NE(commit(*store, model).state_digest, before);
  storage::CommitRequest request;
  drop_generations_from(*store, 1, request);
  EXPECT_EQ(value_or_throw(store->commit(request)).state_digest, before);
}

TEST(ExpertLayers, UnlearningAnOlderOneLeavesTheOthers) {
  const auto store = storage::make_memory_store();
  LayeredModel model(store.get(), 0);
  for (std::uint64_t g = 0; g < 3; ++g) {
    if (g > 0) model.grow();
    model.train(4, g);
    model.layers.freeze();
  }
  commit(*store, model);
  const at::Tensor x = inputs(4, 16, 8);
  const at::Tensor first = model.answer(x, 0), last = model.answer(x, 2);
  storage::CommitRequest request;
  drop_generation(*store, 1, request);
  ASSERT_TRUE(store->commit(request).ok());
  for (const storage::PageId& page : store->pages()) EXPECT_TRUE(page.row < 8 || page.row >= 16);
  for (const std::string& name : store->dense_names()) {
    EXPECT_EQ(name.find("router_00001"), std::string::npos) << name;
  }
  const auto left = LayeredModel::load(*store, 0);
  EXPECT_EQ(left->layers.state(1), GenerationState::unlearned);
  EXPECT_TRUE(left->layers.frozen_intact());
  EXPECT_TRUE(same_bits(left->answer(x, 0), first));
  EXPECT_TRUE(same_bits(left->answer(x, 2), last));
  EXPECT_THROW((void)left->answer(x, 1), InvalidOptions);
}

TEST(ExpertLayers, ColumnsGrowInEveryPool) {
  LayeredModel model(nullptr, 0);
  model.train(2, 1);
  const at::Tensor x = inputs(4, 16, 8);
  const at::Tensor before = model.answer(x, 0);
  model.layers.grow_columns(4);
  EXPECT_TRUE(model.layers.has_masked());
  EXPECT_TRUE(same_bits(model.answer(x, 0), before));
  EXPECT_THAT(message_of<Error>([&] { (void)model.layers.freeze(); }), HasSubstr("masked"));
  model.layers.unmask();
  EXPECT_FALSE(model.layers.has_masked());
  for (const auto& pool : model.layers.pools()) EXPECT_EQ(pool->generations().back().cols, 12u);
  model.layers.freeze();
}

TEST(ExpertLayers, WhatCannotBeIsRefusedAndChangesNothing) {
  ExpertLayers layers;
  EXPECT_THROW(layers.grow(), Error);
  layers.add("one", small_options(), "tied");
  PeerOptions options = small_options();
  for (const auto& [change, field] :
       std::vector<std::pair<std::function<void(PeerOptions&)>, std::string>>{
           {[](auto& o) { o.d_in = 13; }, "d_in"},
           {[](auto& o) { o.glu = true; }, "glu"},
           {[](auto& o) { o.rows = 9; }, "rows"},
           {[](auto& o) { o.seed = 9; }, "seed"},
           {[](auto& o) { o.v_scale = 9; }, "v_scale"},
           {[](auto& o) { o.routing = Routing::shared; }, "routing"}}) {
    PeerOptions other = options;
    change(other);
    EXPECT_THAT(message_of<InvalidOptions>([&] { layers.add("two", other, "tied"); }),
                ::testing::AllOf(HasSubstr("'two'"), HasSubstr("'one'"), HasSubstr(field)));
  }
  for (const char* name : {"", "a/b", "ü", "a b"}) {
    EXPECT_THROW(layers.add(name, options), InvalidOptions) << name;
  }
  EXPECT_THROW(layers.add("two", options, "p/q"), InvalidOptions);
  EXPECT_THAT(message_of<InvalidOptions>([&] { layers.add("one", options); }), HasSubstr("'one'"));
  EXPECT_EQ(layers.layers().size(), 1u);
  EXPECT_EQ(layers.pools().size(), 1u);
  options.heads = 1;
  const auto two = layers.add("two", options, "tied");
  layers.grow();
  EXPECT_THROW(layers.add("three", options), Error);
  EXPECT_THROW(layers.grow(), Error);
  EXPECT_EQ(layers.generations(), 1u);
  // A layer of a shared pool does not go its own way.
  for (const auto& alone : std::vector<std::function<void()>>{
           [&] { two->grow_columns(1); }, [&] { (void)two->freeze(); },
           [&] { (void)two->frozen_intact(0u); },
           [&] {
             storage::CommitRequest request;
             two->add_to_commit(request);
           },
           [&] {
             torch::serialize::OutputArchive archive;
             two->save(archive);
           }}) {
    EXPECT_THAT(message_of<Error>(alone), ::testing::AllOf(HasSubstr("tied"), HasSubstr("2")));
  }
  EXPECT_THAT(message_of<Error>([&] { (void)layers.get("four"); }), HasSubstr("four"));
  layers.freeze();
  EXPECT_THROW(layers.grow(1, 2), InvalidOptions);  // fewer experts than top_k would be
}

TEST(ExpertLayers, TwoLayersOfOneNameAreNoCommit) {
  const auto store = storage::make_memory_store();
  PeerImpl one(small_options()), two(small_options());
  storage::CommitRequest request;
  one.add_to_commit(request);
  EXPECT_THAT(message_of<Error>([&] { two.add_to_commit(request); }), HasSubstr("'peer'"));
  {
    storage::CommitRequest own;  // nothing of the refused one is left behind
    two.add_to_commit(own);
    two.commit_failed();
  }
  ASSERT_TRUE(store->commit(request).ok());
  one.committed();
  // Nor does a new one take the place of what a store has.
  EXPECT_THAT(message_of<Error>([&] { PeerImpl(small_options(), store.get(), 0); }),
              HasSubstr("load"));
  ExpertLayers layers(store.get(), 0);
  EXPECT_THAT(message_of<Error>([&] { layers.add("peer", small_options()); }),
              HasSubstr("a layer 'peer' already"));
  EXPECT_THAT(message_of<Error>([&] { layers.add("other", small_options()); }),
              HasSubstr("a pool 0 already"));
}

// Part of the stored format: experts that were never written are drawn by it.
TEST(ExpertLayers, SeedsOfNamesAreWhatTheyWere) {
  EXPECT_EQ(seed_for(7, kDefaultName), 7);
  EXPECT_EQ(seed_for(7, "a"), 2495634281260240);
  EXPECT_EQ(seed_for(8, "a"), 3473490659639912);
  EXPECT_EQ(seed_for(7, "blocks.2.feed_forward"), 544156543300240);
}

// The default name says nothing of the pool's number.
TEST(ExpertLayers, ALayerOfTheDefaultNameMayReadAnyPool) {
  for (const bool tied : {false, true}) {
    const auto store = storage::make_memory_store();
    ExpertLayers layers(store.get(), 0);
    layers.add("a", small_options(), "first");
    layers.add(std::string(kDefaultName), small_options(), "second");
    if (tied) layers.add("b", small_options(), "second");
    layers.grow();
    const at::Tensor x = inputs(3);
    const at::Tensor y = evaluate(layers.get("peer"), x);
    commit(*store, layers);
    const ExpertLayers loaded = ExpertLayers::load(*store, 0);
    EXPECT_EQ(loaded.get("peer").pool().name(), "second");
    EXPECT_TRUE(same_bits(evaluate(loaded.get("peer"), x), y));
  }
}

TEST(ExpertLayers, ARefusedCommitLeavesTheOneInFlightAsItIs) {
  const auto store = storage::make_memory_store();
  LayeredModel model(store.get(), 0);
  model.train(3, 1);
  commit(*store, model);
  model.train(3, 2);
  storage::CommitRequest in_flight;
  model.add_to_commit(in_flight);
  model.layers.freeze();
  storage::CommitRequest refused;
  EXPECT_THROW(model.add_to_commit(refused), Error);
  EXPECT_TRUE(refused.dense.empty());
  (void)value_or_throw(store->commit(in_flight));
  model.committed();
  commit(*store, model);
  const auto loaded = LayeredModel::load(*store, 0);
  EXPECT_TRUE(loaded->layers.frozen_intact(0));
  const at::Tensor x = inputs(8, 16, 8);
  EXPECT_TRUE(same_bits(loaded->answer(x, 0), model.answer(x, 0)));
}

TEST(ExpertLayers, WhatIsFrozenIsOfferedOnce) {
  const auto store = storage::make_memory_store();
  LayeredModel model(store.get(), 0);
  model.train(3, 1);
  model.layers.freeze();
  commit(*store, model);
  model.grow();
  for (int i = 0; i < 2; ++i) {
    model.train(2, 2);
    storage::CommitRequest request;
    model.add_to_commit(request);
    for (const auto& [name, payload] : request.dense) {
      EXPECT_EQ(name.find("router_00000"), std::string::npos) << name;
    }
    EXPECT_TRUE(request.dense.contains("layer/a/router_00001/running_mean"));
    (void)value_or_throw(store->commit(request));
    model.committed();
  }
}

TEST(ExpertLayers, RecordsThatDisagreeAreRefused) {
  const auto stored = [] {
    auto store = storage::make_memory_store();
    LayeredModel model(store.get(), 0);
    commit(*store, model);
    return store;
  };
  const auto refused = [](storage::PageStore& store, const std::string& part) {
    EXPECT_THAT(message_of<DataError>([&] { (void)ExpertLayers::load(store, 0); }),
                HasSubstr(part));
  };
  {
    const auto store = stored();
    storage::CommitRequest request;
    request.removed_dense = {"pool/1"};
    for (const auto& page : store->pages()) {
      if (page.pool == 1) request.removed_pages.push_back(page);
    }
    ASSERT_TRUE(store->commit(request).ok());
    refused(*store, "'b'");
  }
  {
    const auto store = stored();
    boost::json::object record =
        boost::json::parse(text_from(value_or_throw(store->read_dense("pool/2")))).as_object();
    record.at("generations").as_array().at(0).as_object()["unlearned"] = true;
    storage::CommitRequest request;
    request.dense["pool/2"] = bytes_from(record_text(record));
    ASSERT_TRUE(store->commit(request).ok());
    EXPECT_THROW((void)ExpertLayers::load(*store, 0), DataError);
  }
  {
    const auto store = stored();
    storage::CommitRequest request;
    request.removed_dense = {"layer/c", "layer/d"};
    ASSERT_TRUE(store->commit(request).ok());
    refused(*store, "no layer");
  }
  {
    const auto store = stored();
    const std::string text = text_from(value_or_throw(store->read_dense("layer/d")));
    for (const auto& [pool, part] : std::vector<std::pair<boost::json::value, std::string>>{
             {0, "d_out"}, {7, "'d'"}, {-1, "layer/d"}, {"tied", "layer/d"}}) {
      boost::json::object record = boost::json::parse(text).as_object();
      record["pool"] = pool;
      storage::CommitRequest request;
      request.dense["layer/d"] = bytes_from(record_text(record));
      ASSERT_TRUE(store->commit(request).ok());
      refused(*store, part);
    }
  }
}

TEST(ExpertLayers, AGenerationGoesIntoAnotherModelAsItIs) {
  const storage::testing::TempFolder folder;
  LayeredModel from(nullptr, 0), to(nullptr, 0);
  from.train(4, 1);
  from.layers.freeze();
  from.grow();
  from.train(4, 2);
  EXPECT_THAT(message_of<Error>([&] { export_shards(from.layers, 1, folder.path() / "open"); }),
              HasSubstr("freeze it"));
  from.layers.freeze();
  export_shards(from.layers, 1, folder.path() / "one");
  EXPECT_THROW(export_shards(from.layers, 1, folder.path() / "one"), StorageError);

  EXPECT_THAT(message_of<Error>([&] { import_shards(to.layers, folder.path() / "one"); }),
              HasSubstr("open"));
  to.train(3, 7);
  to.layers.freeze();
  to.grow();
  to.layers.freeze();
  EXPECT_EQ(import_shards(to.layers, folder.path() / "one"), 2u);
  const at::Tensor x = inputs(4, 16, 8);
  EXPECT_TRUE(same_bits(to.answer(x, 2), from.answer(x, 1)));
  EXPECT_TRUE(to.layers.frozen_intact());
  const auto store = storage::make_memory_store();
  commit(*store, to);
  EXPECT_TRUE(same_bits(LayeredModel::load(*store, 0)->answer(x, 2), from.answer(x, 1)));
}

TEST(ExpertLayers, FilesThatDoNotBelongTogetherAreRefusedAndChangeNothing) {
  const storage::testing::TempFolder folder;
  namespace fs = std::filesystem;
  LayeredModel model(nullptr, 0);
  for (std::uint64_t g = 0; g < 2; ++g) {
    if (g > 0) model.grow();
    model.train(2, g);
    model.layers.freeze();
    export_shards(model.layers, static_cast<std::uint32_t>(g), folder.path() / std::to_string(g));
  }
  const auto refused = [&](const std::function<void(const fs::path&)>& change,
                           const std::string& part) {
    const fs::path copy = folder.path() / "copy";
    fs::remove_all(copy);
    fs::copy(folder.path() / "1", copy);
    change(copy);
    EXPECT_THAT(message_of<Error>([&] { import_shards(model.layers, copy); }), HasSubstr(part));
    EXPECT_EQ(model.layers.generations(), 2u);
    EXPECT_TRUE(model.layers.frozen_intact());
  };
  const auto take = [&](const char* name, const char* as) {
    return [&folder, name, as](const fs::path& copy) {
      fs::copy_file(folder.path() / name, copy / as, fs::copy_options::overwrite_existing);
    };
  };
  refused([](const fs::path& copy) { fs::remove(copy / "d.safetensors"); }, "d.safetensors");
  refused(take("1/a.safetensors", "e.safetensors"), "e.safetensors");
  refused(take("0/d.safetensors", "d.safetensors"), "another generation");
  refused(take("1/a.safetensors", "b.safetensors"), "d_in");
  refused(
      [](const fs::path& copy) {
        std::fstream file(copy / "c.safetensors", std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(-3000, std::ios::end);
        file.put('!');
      },
      "c.safetensors");
  // A generation of the same number, of another model.
  LayeredModel other(nullptr, 0);
  other.train(2, 7);
  other.layers.freeze();
  other.grow();
  other.train(2, 8);
  other.layers.freeze();
  export_shards(other.layers, 1, folder.path() / "other");
  refused(take("other/b.safetensors", "b.safetensors"), "another generation");
  EXPECT_EQ(import_shards(model.layers, folder.path() / "1"), 2u);
}

}  // namespace
}  // namespace perennial
