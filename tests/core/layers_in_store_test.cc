// SPDX-License-Identifier: Apache-2.0
// What a store does with the pages of several pools: cut into parts and brought together, verified,
// and a commit that fails while training goes on.
#include <filesystem>
#include <functional>
#include <future>
#include <set>
#include <vector>

#include "core/core_testing.h"
#include "core/layered_model.h"
#include "perennial/core/dense_state.h"
#include "perennial/storage/memory_store.h"
#include "perennial/storage/reshard.h"
#include "perennial/storage/rocksdb_store.h"
#include "storage/store_testing.h"
#include "support/store_wrapper.h"

namespace perennial {
namespace {

namespace fs = std::filesystem;
using namespace perennial::testing;
using ::testing::HasSubstr;

using Store = std::unique_ptr<storage::PageStore>;

Store store_in(const fs::path& folder) {
  return value_or_throw(storage::open_rocksdb_store(folder, {.mode = storage::OpenMode::either}));
}

// A frozen generation and an open one, committed.
std::unique_ptr<LayeredModel> learnt_in(storage::PageStore& store) {
  auto model = std::make_unique<LayeredModel>(&store, 0);
  model->train(3, 1);
  model->layers.freeze();
  model->grow();
  model->train(3, 2);
  commit(store, *model);
  return model;
}

TEST(LayersInStore, ReshardedTheyAnswerAndLearnOnWithTheSameBits) {
  const storage::testing::TempFolder folder;
  const Store store = store_in(folder.path() / "store");
  const auto model = learnt_in(*store);
  const storage::CommitInfo committed = value_or_throw(store->head());
  const storage::Digest digest = committed.state_digest;
  const at::Tensor x = inputs(5, 16, 8);
  const at::Tensor first = model->answer(x, 0), second = model->answer(x, 1);
  model->train(2, 3);
  const storage::Digest learnt_on = commit(*store, *model).state_digest;
  for (const std::size_t count : {1, 2, 5}) {
    SCOPED_TRACE(count);
    const fs::path at = folder.path() / std::to_string(count);
    std::vector<Store> parts;
    std::vector<storage::PageStore*> to;
    for (std::size_t i = 0; i < count; ++i) {
      to.push_back(parts.emplace_back(store_in(at / std::to_string(i))).get());
    }
    const auto cut = value_or_throw(storage::reshard({store->at(committed.commit)->get()}, to));
    EXPECT_EQ(cut.state_digest, digest.hex());
    for (const Store& part : parts) EXPECT_FALSE(part->pages().empty());
    parts.clear();
    std::vector<const storage::PageReader*> from;
    for (std::size_t i = 0; i < count; ++i) {
      from.push_back(parts.emplace_back(store_in(at / std::to_string(i))).get());
    }
    {
      const Store whole = store_in(at / "whole");
      (void)value_or_throw(storage::reshard(from, {whole.get()}));
    }
    const Store whole = store_in(at / "whole");
    EXPECT_EQ(whole->head()->state_digest, digest);
    EXPECT_TRUE(value_or_throw(whole->verify({})).damage.empty());
    const auto loaded = LayeredModel::load(*whole, LayeredModel::kSmallestBudget);
    EXPECT_TRUE(loaded->layers.frozen_intact(0));
    EXPECT_TRUE(same_bits(loaded->answer(x, 0), first));
    EXPECT_TRUE(same_bits(loaded->answer(x, 1), second));
    loaded->train(2, 3);
    EXPECT_EQ(commit(*whole, *loaded).state_digest, learnt_on);
  }
}

TEST(LayersInStore, VerifyNamesTheDamagedPageAndItsPool) {
  const storage::testing::TempFolder folder;
  storage::PageId victim;
  storage::Bytes payload;
  {
    const Store store = store_in(folder.path());
    (void)learnt_in(*store);
    EXPECT_TRUE(value_or_throw(store->verify({})).damage.empty());
    std::vector<storage::PageId> second;
    for (const storage::PageId& page : store->pages()) {
      if (page.pool == 1 && page.kind == storage::PageKind::weights) second.push_back(page);
    }
    // Neighbours on the disk go with it: in the middle they are of the same pool.
    victim = second.at(second.size() / 2);
    payload.resize(store->page_shape(victim)->payload_bytes());
    ASSERT_TRUE(store->read_page(victim, payload).ok());
  }
  storage::testing::flip_a_bit_of(payload, folder.path());
  const Store store = store_in(folder.path());
  const storage::VerifyReport report = value_or_throw(store->verify({}));
  bool named = false;
  for (const storage::Damage& damage : report.damage) {
    if (!damage.page) continue;
    EXPECT_EQ(damage.page->pool, 1u) << damage.what;
    EXPECT_EQ(damage.commit, 1u);
    EXPECT_THAT(damage.what, ::testing::AllOf(HasSubstr("pool 1 "),
                                              HasSubstr(storage::to_string(*damage.page))));
    named = named || damage.page == victim;
  }
  EXPECT_TRUE(named) << storage::to_string(victim);
  // Who needs the page is told as much; other pools are served.
  const auto model = LayeredModel::load(*store, 0);
  const auto read_all = [&](std::uint32_t pool) {
    for (const Generation& g : model->layers.pools()[pool]->generations()) {
      (void)model->layers.pools()[pool]->experts_at(ids_of(g));
    }
  };
  read_all(0);
  read_all(2);
  EXPECT_THAT(message_of<StorageError>([&] { read_all(1); }), HasSubstr("pool 1 "));
}

// Counts how often all pages are listed, which takes long where there are many.
class ListedStore : public StoreWrapper {
 public:
  using StoreWrapper::StoreWrapper;
  std::vector<storage::PageId> pages() const override {
    ++lists;
    return StoreWrapper::pages();
  }
  mutable int lists = 0;
};

TEST(LayersInStore, OpeningListsThePagesOnceForAllPools) {
  const Store store = storage::make_memory_store();
  const auto model = learnt_in(*store);
  const ListedStore listed(*store);
  const auto loaded = LayeredModel::load(listed, 0);
  EXPECT_EQ(loaded->layers.pools().size(), 3u);
  EXPECT_EQ(listed.lists, 1);
  const at::Tensor x = inputs(5, 16, 8);
  EXPECT_TRUE(same_bits(loaded->answer(x, 1), model->answer(x, 1)));
}

// Holds a commit until it is told to go on. It succeeds in another store, and fails in this one.
class HeldStore : public StoreWrapper {
 public:
  HeldStore(storage::PageStore& inner, storage::PageStore& other)
      : StoreWrapper(inner), other_(other) {}
  std::future<storage::Result<storage::CommitInfo>> commit_async(
      storage::CommitRequest request) override {
    return std::async(
        std::launch::async,
        [this, request = std::move(request)]() -> storage::Result<storage::CommitInfo> {
          go_on_.get_future().wait();
          const auto written = other_.commit(request);
          if (!written.ok()) return written;
          return storage::Status{storage::StatusCode::io_error, "injected"};
        });
  }
  void go_on() { go_on_.set_value(); }

 private:
  storage::PageStore& other_;
  std::promise<void> go_on_;
};

TEST(LayersInStore, ACommitThatFailsWhileTheyLearnLosesNothing) {
  for (const std::int64_t budget : {std::int64_t{0}, 2 * LayeredModel::kSmallestBudget}) {
    SCOPED_TRACE(budget);
    const storage::testing::TempFolder folder;
    const Store store = store_in(folder.path());
    const Store straight = storage::make_memory_store(), elsewhere = storage::make_memory_store();
    HeldStore held(*store, *elsewhere);
    LayeredModel model(&held, budget), other(straight.get(), 0);
    const auto both = [&](const std::function<void(LayeredModel&)>& work) {
      work(model);
      work(other);
    };
    both([](LayeredModel& m) { m.train(3, 1); });
    commit(held, model);
    ASSERT_TRUE(storage::reshard({store.get()}, {elsewhere.get()}).ok());
    both([](LayeredModel& m) { m.train(3, 2); });
    storage::CommitRequest request;
    model.add_to_commit(request);
    std::set<std::uint32_t> pools;
    for (const storage::PageWrite& page : request.pages) pools.insert(page.id.pool);
    ASSERT_EQ(pools, (std::set<std::uint32_t>{0, 1, 2}));
    const storage::Digest asked = commit(*straight, other).state_digest;
    auto failing = held.commit_async(std::move(request));
    both([](LayeredModel& m) {
      m.train(3, 3);
      m.layers.freeze();
      m.grow();
      m.train(2, 4);
    });
    held.go_on();
    EXPECT_EQ(failing.get().status().code(), storage::StatusCode::io_error);
    EXPECT_EQ(elsewhere->head()->state_digest, asked) << "learning reached what was to be written";
    model.commit_failed();
    EXPECT_EQ(store->log().size(), 1u);
    both([](LayeredModel& m) { m.train(2, 5); });
    EXPECT_EQ(commit(held, model).state_digest, commit(*straight, other).state_digest);
    const auto loaded = LayeredModel::load(*store, budget);
    EXPECT_TRUE(loaded->layers.frozen_intact(0));
    const at::Tensor x = inputs(6, 16, 8);
    for (const std::uint32_t g : {0U, 1U}) {
      EXPECT_TRUE(same_bits(loaded->answer(x, g), other.answer(x, g)));
    }
  }
}

}  // namespace
}  // namespace perennial
