// SPDX-License-Identifier: Apache-2.0
// Cutting a state into parts and bringing them together, bit for bit.
#include "perennial/storage/reshard.h"

#include "store_contract.h"

namespace perennial::storage::testing {
namespace {

using ::testing::HasSubstr;

class Reshard : public StoreContract {
 protected:
  void fill() {
    Change change(model);
    for (std::uint32_t row = 0; row < 37; ++row) {
      for (std::uint32_t tile = 0; tile < 3; ++tile) {
        change.page(weights(row, tile), row * 3 + tile);
        if (row > 20) {
          change.page({PageKind::state, 0, row, tile}, 500 + row * 3 + tile, shape_of(4, 48));
        }
      }
    }
    change.page(weights(2, 0, 9), 7).dense("router", bytes_of(1, 300'000)).dense("empty", {});
    commit(change);
  }
  using Stores = std::vector<std::unique_ptr<PageStore>>;
  static Stores cut(const Stores& from, int count) {
    Stores to;
    std::vector<const PageReader*> sources;
    std::vector<PageStore*> targets;
    for (const auto& store : from) sources.insert(sources.begin(), store.get());  // any order
    for (int i = 0; i < count; ++i) targets.push_back(to.emplace_back(make_memory_store()).get());
    const auto report = reshard(sources, targets);
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    return to;
  }
};
INSTANTIATE_TEST_SUITE_P(Stores, Reshard, all_stores(), store_name);

TEST_P(Reshard, OneFourThreeOneIsTheSameState) {
  fill();
  const Digest digest = store->head()->state_digest;
  const StoreIdentity identity = store->identity();
  Stores whole;
  whole.push_back(std::move(store));
  const Stores four = cut(whole, 4);
  std::size_t pages = 0;
  for (const auto& part : four) {
    pages += part->pages().size();
    EXPECT_GT(part->pages().size(), model.pages.size() / 4 - 10);
    EXPECT_EQ(*part->read_dense("router"), model.dense.at("router"));
  }
  EXPECT_EQ(pages, model.pages.size());
  const Stores three = cut(four, 3);
  EXPECT_EQ(three.size(), 3u);
  const Stores one = cut(three, 1);
  EXPECT_EQ(one[0]->head()->state_digest, digest);
  EXPECT_EQ(one[0]->identity(), identity);
  EXPECT_EQ(difference(*one[0], model), "");
}

TEST_P(Reshard, MorePartsThanRowsLeaveEmptyOnes) {
  Change change(model);
  commit(change.page(weights(0, 0), 1).page(weights(0, 1), 2));
  Stores whole;
  whole.push_back(std::move(store));
  EXPECT_EQ(difference(*cut(cut(whole, 5), 1)[0], model), "");
}

TEST_P(Reshard, RefusesWhatIsNoWhole) {
  fill();
  auto other = make_memory_store();
  auto target = make_memory_store();
  EXPECT_EQ(reshard({}, {target.get()}).status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(reshard({store.get()}, {}).status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(reshard({other.get()}, {target.get()}).status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(reshard({store.get()}, {store.get()}).status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(reshard({store.get()}, {target.get(), target.get()}).status().code(),
            StatusCode::invalid_argument);
  std::vector<std::unique_ptr<PageStore>> parts;
  for (int i = 0; i < 3; ++i) parts.push_back(make_memory_store());
  ASSERT_TRUE(reshard({store.get()}, {parts[0].get(), parts[1].get(), parts[2].get()}).ok());
  auto refused = reshard({parts[0].get(), parts[2].get()}, {target.get()});
  EXPECT_THAT(refused.status().message(), HasSubstr("2 of 3 parts"));
  refused = reshard({parts[0].get(), parts[0].get(), parts[2].get()}, {target.get()});
  EXPECT_THAT(refused.status().message(), HasSubstr("given twice"));
  refused = reshard({parts[0].get(), store.get(), parts[2].get()}, {target.get()});
  EXPECT_THAT(refused.status().message(), HasSubstr("another state"));
  // A part that was written to is not the part that was cut.
  Model ignored;
  Change change(ignored);
  ASSERT_TRUE(parts[1]->commit(change.dense("router", bytes_of(9, 9)).get()).ok());
  refused = reshard({parts[0].get(), parts[1].get(), parts[2].get()}, {target.get()});
  EXPECT_EQ(refused.status().code(), StatusCode::invalid_argument);
  EXPECT_FALSE(target->head().ok());
  // A page of a part, too.
  for (int i = 0; i < 3; ++i) parts[static_cast<std::size_t>(i)] = make_memory_store();
  ASSERT_TRUE(reshard({store.get()}, {parts[0].get(), parts[1].get(), parts[2].get()}).ok());
  Change page(ignored);
  const PageId id = parts[2]->pages().front();
  ASSERT_TRUE(parts[2]->commit(page.page(id, 12345, *parts[2]->page_shape(id)).get()).ok());
  auto other_target = make_memory_store();
  refused =
      reshard({parts[0].get(), parts[1].get(), parts[2].get()}, {target.get(), other_target.get()});
  EXPECT_THAT(refused.status().message(), HasSubstr("was changed since"));
  EXPECT_FALSE(target->head().ok());
}

}  // namespace
}  // namespace perennial::storage::testing
