// SPDX-License-Identifier: Apache-2.0
// A PEER layer in a store: comes back bit for bit, from memory and from disk; wrong records are
// refused.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "core/core_testing.h"
#include "perennial/core/dense_state.h"
#include "perennial/storage/rocksdb_store.h"
#include "storage/store_testing.h"
#include "support/store_wrapper.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::HasSubstr;
namespace json = boost::json;

void expect_same_layer(PeerImpl& found, PeerImpl& expected) {
  EXPECT_EQ(json::serialize(to_json(found.options())),
            json::serialize(to_json(expected.options())));
  const auto& generations = expected.pool().generations();
  ASSERT_EQ(found.pool().generations().size(), generations.size());
  for (const Generation& g : generations) {
    const Generation& other = found.pool().generation(g.index);
    EXPECT_EQ(other.first_row, g.first_row);
    EXPECT_EQ(other.rows, g.rows);
    EXPECT_EQ(other.cols, g.cols);
    EXPECT_EQ(other.state, g.state);
    EXPECT_EQ(other.digest, g.digest);
    EXPECT_EQ(other.router_digest, g.router_digest);
    EXPECT_EQ(json::serialize(to_json(other.recipe)), json::serialize(to_json(g.recipe)));
    EXPECT_TRUE(
        same_values(found.pool().experts_at(ids_of(g)), expected.pool().experts_at(ids_of(g))));
  }
  EXPECT_TRUE(found.frozen_intact());
  EXPECT_EQ(found.has_masked(), expected.has_masked());
  const at::Tensor x = inputs(77, 32);
  EXPECT_TRUE(same_bits(evaluate(found, x), evaluate(expected, x)));
  if (expected.options().routing == Routing::isolated) {
    for (const Generation& g : generations) {
      EXPECT_TRUE(same_bits(evaluate(found, x, g.index), evaluate(expected, x, g.index)));
    }
  }
  const auto a = found.trainable(), b = expected.trainable();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].first, b[i].first);
}

class StoredPeer : public ::testing::TestWithParam<std::tuple<Routing, QueryNorm>> {
 protected:
  PeerOptions options() const {
    PeerOptions options = small_options();
    options.routing = std::get<0>(GetParam());
    options.query_norm = std::get<1>(GetParam());
    options.glu = true;
    if (options.query_norm == QueryNorm::rms) {
      options.dtype = kernels::WeightType::bf16;
      options.expert_width = 2;
      options.dropout = 0.2;
    }
    return options;
  }
};

// Two frozen generations, the second of other width, and an open one with masked columns.
TEST_P(StoredPeer, ComesBackAtEveryStageAndLearnsOn) {
  const storage::testing::TempFolder folder;
  auto disk = value_or_throw(
      storage::open_rocksdb_store(folder.path() / "store", {.mode = storage::OpenMode::create}));
  const auto memory = storage::make_memory_store();
  PeerImpl peer(options(), memory.get(), 0), on_disk(options(), disk.get(), 0);
  peer.grow();
  on_disk.grow();
  SparseOptimizer adam(peer.pool(), {}), adam_disk(on_disk.pool(), {});
  const auto both = [&](const std::function<void(PeerImpl&, SparseOptimizer&)>& work) {
    work(peer, adam);
    work(on_disk, adam_disk);
    const storage::Digest digest = commit(*memory, peer).state_digest;
    EXPECT_EQ(commit(*disk, on_disk).state_digest, digest) << "stores disagree";
    const std::shared_ptr<PeerImpl> loaded = PeerImpl::load(*memory, 0);
    expect_same_layer(*loaded, peer);
    // Nothing changed: a commit of what was loaded is the same state.
    EXPECT_EQ(commit(*memory, *loaded).state_digest, digest);
  };
  both([](PeerImpl& p, SparseOptimizer& o) { train(p, o, 2, 1); });
  both([](PeerImpl& p, SparseOptimizer&) { p.freeze(); });
  both([](PeerImpl& p, SparseOptimizer&) { p.grow(5, 20); });
  both([](PeerImpl& p, SparseOptimizer& o) {
    p.unmask();
    train(p, o, 2, 2);
    p.grow_columns(3);
    p.unmask();
    train(p, o, 2, 3);
    p.freeze();
  });
  both([](PeerImpl& p, SparseOptimizer& o) {
    p.grow(6, 7);
    p.unmask();
    train(p, o, 2, 4);
    p.grow_columns(30);  // masked
    train(p, o, 1, 5);
  });
  EXPECT_TRUE(peer.has_masked());
  disk.reset();
  disk = value_or_throw(storage::open_rocksdb_store(folder.path() / "store"));
  const std::shared_ptr<PeerImpl> loaded = PeerImpl::load(*disk, 0);
  expect_same_layer(*loaded, peer);
  // And goes on as if nothing had happened.
  SparseOptimizer again(loaded->pool(), {});
  train(peer, adam, 3, 6);
  train(*loaded, again, 3, 6);
  peer.unmask();
  loaded->unmask();
  train(peer, adam, 2, 7);
  train(*loaded, again, 2, 7);
  EXPECT_EQ(loaded->freeze(), peer.freeze());
  expect_same_layer(*loaded, peer);
  EXPECT_EQ(commit(*disk, *loaded).state_digest, commit(*memory, peer).state_digest);
}

INSTANTIATE_TEST_SUITE_P(Cases, StoredPeer,
                         ::testing::Values(std::tuple(Routing::isolated, QueryNorm::batch),
                                           std::tuple(Routing::isolated, QueryNorm::rms),
                                           std::tuple(Routing::shared, QueryNorm::batch),
                                           std::tuple(Routing::shared, QueryNorm::none)),
                         [](const auto& info) {
                           return std::string(enum_name(std::get<0>(info.param))) + "_" +
                                  std::string(enum_name(std::get<1>(info.param)));
                         });

TEST(StoredPeer, NothingIsWrittenBeforeACommit) {
  const auto store = storage::make_memory_store();
  PeerImpl peer(small_options(), store.get(), 0);
  peer.grow();
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 2, 1);
  EXPECT_TRUE(store->pages().empty());
  EXPECT_TRUE(store->dense_names().empty());
  EXPECT_THROW((void)PeerImpl::load(*store, 0), StorageError);
}

TEST(StoredPeer, ACommitHoldsWhatChanged) {
  const auto store = storage::make_memory_store();
  PeerImpl peer(small_options(), store.get(), 0);
  peer.grow();
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 1, 1, 2);
  const storage::CommitInfo first = commit(*store, peer);
  EXPECT_GT(first.pages_written, 0u);
  EXPECT_LE(first.pages_written, 2u * 2 * 6) << "2 tokens of 6 experts, weights and state";
  EXPECT_EQ(commit(*store, peer).pages_written, 0u);
  train(peer, adam, 1, 2, 2);
  peer.freeze();
  commit(*store, peer);
  peer.grow();
  commit(*store, peer);
  // A frozen router is not offered again.
  storage::CommitRequest request;
  peer.add_to_commit(request);
  for (const auto& [name, payload] : request.dense)
    EXPECT_THAT(name, ::testing::Not(HasSubstr("router_00000")));
  peer.commit_failed();
  // A commit that failed takes nothing off the list.
  train(peer, adam, 1, 3, 2);
  storage::CommitRequest failing;
  peer.add_to_commit(failing);
  failing.snapshot = "not a name";
  ASSERT_FALSE(store->commit(failing).ok());
  EXPECT_THROW(peer.add_to_commit(request), Error) << "nobody said how the last one ended";
  peer.commit_failed();
  EXPECT_EQ(commit(*store, peer).pages_written, failing.pages.size());
  EXPECT_TRUE(same_values(PeerImpl::load(*store, 0)->pool().experts_at(ids_of(8, 8, 8)),
                          peer.pool().experts_at(ids_of(8, 8, 8))));
}

std::unique_ptr<storage::PageStore> stored_peer(Routing routing) {
  auto store = storage::make_memory_store();
  PeerOptions options = small_options();
  options.routing = routing;
  PeerImpl peer(options, store.get(), 0);
  peer.grow();
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 1, 1);
  peer.freeze();
  peer.grow();
  commit(*store, peer);
  return store;
}

TEST(StoredPeer, MalformedRecordsAreDataErrors) {
  for (const Routing routing : {Routing::isolated, Routing::shared}) {
    const auto original = stored_peer(routing);
    EXPECT_NE(PeerImpl::load(*original, 0), nullptr);
    const std::string text = text_from(*original->read_dense("peer"));
    const auto changed = [&](const std::function<void(json::object&)>& change) {
      json::object record = json::parse(text).as_object();
      change(record);
      return json::serialize(record);
    };
    const auto options = [](json::object& r) -> json::object& {
      return r.at("options").as_object();
    };
    const auto routers = [](json::object& r) -> json::array& { return r.at("routers").as_array(); };
    const auto row = [&](json::object& r) -> json::object& {
      return routers(r).back().as_object().at("rows").as_array().back().as_object();
    };
    const std::vector<std::string> malformed = {
        "",
        "{",
        "{}",
        "7",
        changed([&](auto& r) { options(r)["d_in"] = 11; }),  // another width than the pool's
        changed([&](auto& r) { options(r)["d_out"] = 5; }),
        changed([&](auto& r) { options(r)["glu"] = true; }),
        changed([&](auto& r) { options(r)["dtype"] = "bf16"; }),
        changed([&](auto& r) { options(r)["dtype"] = "f16"; }),
        changed([&](auto& r) { options(r)["expert_width"] = 2; }),
        changed([&](auto& r) { options(r)["dropout"] = 1; }),
        changed([&](auto& r) { options(r)["dropout"] = 0.5; }),  // how many draws?
        changed([&](auto& r) { options(r)["heads"] = 0; }),
        changed([&](auto& r) { options(r)["heads"] = 4; }),  // tensors of another shape
        changed([&](auto& r) { options(r)["top_k"] = 65; }),
        changed([&](auto& r) { options(r)["routing"] = "scenic"; }),
        changed([&](auto& r) { options(r)["colour"] = "red"; }),
        changed([&](auto& r) {
          options(r)["routing"] = routing == Routing::shared ? "isolated" : "shared";
        }),
        changed([&](auto& r) { r.erase("routers"); }),
        changed([&](auto& r) { routers(r).clear(); }),
        changed([&](auto& r) { routers(r).pop_back(); }),
        changed([&](auto& r) { routers(r).push_back(routers(r).back()); }),
        changed([&](auto& r) { routers(r).back().as_object()["rows"] = json::array(); }),
        changed([&](auto& r) { routers(r).back().as_object()["cols"] = json::array(); }),
        changed([&](auto& r) {
          routers(r).back().as_object()["cols"] = json::array{4, 3};
        }),
        changed([&](auto& r) { routers(r).back().as_object()["cols"] = json::array{-1}; }),
        changed([&](auto& r) { row(r)["cols"] = 9; }),  // more than there are keys
        changed([&](auto& r) { row(r)["cols"] = 0; }),
        changed([&](auto& r) { row(r)["generation"] = 0; }),
        changed([&](auto& r) { row(r)["generation"] = 2; }),
        changed([&](auto& r) { row(r)["visible"] = 1; }),
    };
    for (const std::string& record : malformed) {
      SCOPED_TRACE(record);
      const auto store = stored_peer(routing);
      storage::CommitRequest request;
      request.dense["peer"] = bytes_from(record);
      ASSERT_TRUE(store->commit(request).ok());
      EXPECT_THAT(message_of<DataError>([&] { (void)PeerImpl::load(*store, 0); }),
                  ::testing::AnyOf(HasSubstr("PEER"), HasSubstr("peer")));
    }
  }
}

TEST(StoredPeer, WrongTensorsAreNamed) {
  const auto original = stored_peer(Routing::isolated);
  for (const std::string& name : original->dense_names()) {
    if (!name.starts_with("peer/")) continue;
    for (const storage::Bytes& bytes : {bytes_from("junk"), bytes_from(at::ones({2, 2}))}) {
      const auto store = stored_peer(Routing::isolated);
      storage::CommitRequest request;
      request.dense[name] = bytes;
      ASSERT_TRUE(store->commit(request).ok());
      EXPECT_THAT(message_of<DataError>([&] { (void)PeerImpl::load(*store, 0); }), HasSubstr(name));
    }
    const auto store = stored_peer(Routing::isolated);
    storage::CommitRequest request;
    request.removed_dense.push_back(name);
    ASSERT_TRUE(store->commit(request).ok());
    EXPECT_THAT(message_of<StorageError>([&] { (void)PeerImpl::load(*store, 0); }),
                HasSubstr(name));
  }
}

}  // namespace
}  // namespace perennial
