// SPDX-License-Identifier: Apache-2.0
// The pool by itself: initial values by recipe, what it refuses, and its records in a store.
#include "perennial/core/pool.h"

#include <bit>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <set>

#include "core/core_testing.h"
#include "perennial/core/dense_state.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

PoolOptions pool_options(std::int64_t page_bytes = 256) {
  PoolOptions options;
  options.d_in = 12;
  options.d_out = 6;
  options.cols = 8;
  options.page_bytes = page_bytes;
  return options;
}

Recipe recipe(Distribution distribution = Distribution::normal) {
  Recipe recipe;
  recipe.distribution = distribution;
  recipe.seed = 42;
  recipe.u_scale = 0.25;
  recipe.v_scale = 0.5;
  return recipe;
}

TEST(Recipe, ValuesAreTheSameForEver) {
  // Stored pools rely on these bits: a change here is a new recipe version, not a new expectation.
  for (const Distribution distribution : {Distribution::normal, Distribution::uniform}) {
    PoolOptions options = pool_options();
    options.glu = true;
    Pool pool(0, options, nullptr, 0);
    pool.grow(4, 8, recipe(distribution));
    const ExpertValues values = pool.experts_at({kernels::expert_id(3, 7)});
    const std::array<float, 5> found = {values.u[0][0].item<float>(), values.u[0][11].item<float>(),
                                        values.v[0][0].item<float>(), values.v[0][5].item<float>(),
                                        values.w[0][0].item<float>()};
    const std::array<float, 5> expected =
        distribution == Distribution::normal
            ? std::array<float, 5>{-0x1.e94e6cp-3F, 0x1.828e3cp-2F, 0x1.a1dc2cp-5F, -0x1.c395ap-2F,
                                   -0x1.2101aap-2F}
            : std::array<float, 5>{-0x1.524fb2p-3F, 0x1.bce74ep-3F, 0x1.4cd3ap-5F, -0x1.3e941cp-2F,
                                   -0x1.7b6df6p-3F};
    for (std::size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(found[i]), std::bit_cast<std::uint32_t>(expected[i]))
          << std::hexfloat << found[i] << " at " << i;
    }
  }
}

TEST(Recipe, DiffersByRowColumnPartPoolAndSeed) {
  PoolOptions options = pool_options();
  options.glu = true;
  Pool pool(0, options, nullptr, 0);
  pool.grow(4, 8, recipe());
  std::set<std::uint32_t> firsts;
  const ExpertValues values = pool.experts_at(ids_of(0, 4, 8));
  for (std::int64_t i = 0; i < 32; ++i) {
    for (const at::Tensor& part : {values.u * 2, values.v, values.w * 2}) {  // one scale
      firsts.insert(std::bit_cast<std::uint32_t>(part[i][0].item<float>()));
    }
  }
  EXPECT_EQ(firsts.size(), 96u);
  Recipe other_seed = recipe();
  other_seed.seed = 43;
  Pool seeded(0, options, nullptr, 0);
  seeded.grow(4, 8, other_seed);
  EXPECT_FALSE(at::equal(seeded.experts_at({0}).u, pool.experts_at({0}).u));
  Pool other(1, options, nullptr, 0);
  other.grow(4, 8, recipe());
  EXPECT_FALSE(at::equal(other.experts_at({0}).u, pool.experts_at({0}).u));
}

TEST(Recipe, DependsNeitherOnPagesNorOnGrowthHistory) {
  Pool small(0, pool_options(1), nullptr, 0);  // one expert a page
  small.grow(4, 9, recipe());
  const ExpertValues expected = small.experts_at(ids_of(0, 4, 9));
  EXPECT_EQ(small.options().tile(), 1);
  Pool large(0, pool_options(32768), nullptr, 0);
  EXPECT_EQ(large.options().tile(), 8) << "a tile is no wider than the first generation";
  large.grow(4, 8, recipe());
  large.grow_columns(1);
  EXPECT_TRUE(same_values(large.experts_at(ids_of(0, 4, 9)), expected));
  Pool grown(0, pool_options(300), nullptr, 0);
  grown.grow(3, 8, recipe());
  grown.freeze({});
  grown.grow(1, 9, recipe());
  EXPECT_TRUE(
      same_bits(grown.experts_at({kernels::expert_id(3, 8)}).v, expected.v[35].unsqueeze(0)));
}

TEST(Recipe, HasTheScalesAsked) {
  Pool pool(0, pool_options(), nullptr, 0);
  pool.grow(64, 64, recipe());
  const ExpertValues normal = pool.experts_at(ids_of(0, 64, 64));
  // 4096 x 6 samples or more: the deviation is within 2 % with room to spare.
  EXPECT_NEAR(normal.u.std().item<double>(), 0.25, 0.005);
  EXPECT_NEAR(normal.v.std().item<double>(), 0.5, 0.01);
  EXPECT_NEAR(normal.v.mean().item<double>(), 0, 0.01);
  Pool flat(0, pool_options(), nullptr, 0);
  flat.grow(64, 64, recipe(Distribution::uniform));
  const at::Tensor v = flat.experts_at(ids_of(0, 64, 64)).v;
  EXPECT_LE(v.abs().max().item<double>(), 0.5);
  EXPECT_GT(v.abs().max().item<double>(), 0.49);
  EXPECT_NEAR(v.std().item<double>(), 0.5 / std::sqrt(3.0), 0.01);
}

TEST(Pool, GrowingALargePoolWritesNoPage) {
  std::unique_ptr<storage::PageStore> store = storage::make_memory_store();
  PoolOptions options;
  options.d_in = 16;
  options.d_out = 16;
  options.cols = 1024;
  Pool pool(0, options, store.get(), 0);
  pool.grow(1024, 1024, recipe());
  EXPECT_EQ(pool.experts(), 1u << 20);
  EXPECT_EQ(commit(*store, pool).pages_written, 0u);
  SparseOptimizer sgd(pool, {.algorithm = SparseAlgorithm::sgd});
  sgd.step({at::full({1}, kernels::expert_id(1023, 1023), at::kLong), at::ones({1, 32})});
  EXPECT_EQ(commit(*store, pool).pages_written, 1u);
  pool.freeze({});
  pool.grow(64, 1024, recipe());
  (void)pool.experts_at({kernels::expert_id(1030, 5)});  // looking writes nothing either
  EXPECT_EQ(commit(*store, pool).pages_written, 0u);
  EXPECT_EQ(store->pages().size(), 1u);

  const std::vector<std::int64_t> some = {kernels::expert_id(1030, 5), kernels::expert_id(0, 0),
                                          kernels::expert_id(1023, 1023)};
  const std::shared_ptr<Pool> loaded = Pool::load(0, *store, 0);
  EXPECT_TRUE(same_values(loaded->experts_at(some), pool.experts_at(some)));
  EXPECT_EQ(loaded->generations().size(), 2u);
  EXPECT_EQ(loaded->generation(0).digest, pool.generation(0).digest);
  EXPECT_EQ(loaded->shard_digest(0), pool.generation(0).digest);
  EXPECT_EQ(loaded->open_generation(), 1u);
}

TEST(Pool, GrowingColumnsKeepsWhatWasLearnt) {
  std::unique_ptr<storage::PageStore> store = storage::make_memory_store();
  Pool pool(0, pool_options(), store.get(), 0);
  pool.grow(4, 3, recipe());  // two tiles a row, the second half full
  SparseOptimizer adam(pool, {});
  const auto ids = at::tensor(ids_of(0, 4, 3));
  adam.step({ids, normal_tensor({12, 18}, 1)});
  const ExpertValues before = pool.experts_at(ids_of(0, 4, 3));
  pool.grow_columns(5);
  EXPECT_EQ(pool.pages(), 16u);
  EXPECT_TRUE(same_values(pool.experts_at(ids_of(0, 4, 3)), before));
  Pool fresh(0, pool_options(), nullptr, 0);
  fresh.grow(4, 8, recipe());
  std::vector<std::int64_t> added;
  for (const std::int64_t id : ids_of(0, 4, 8)) {
    if (kernels::col_of(id) >= 3) added.push_back(id);
  }
  EXPECT_TRUE(same_values(pool.experts_at(added), fresh.experts_at(added)));
  commit(*store, pool);
  adam.step({ids, normal_tensor({12, 18}, 2)});
  const ExpertValues after = pool.experts_at(ids_of(0, 4, 8));
  commit(*store, pool);
  EXPECT_TRUE(same_values(Pool::load(0, *store, 0)->experts_at(ids_of(0, 4, 8)), after));
}

TEST(Pool, RefusesWhatCannotWork) {
  Pool pool(0, pool_options(), nullptr, 0);
  EXPECT_THAT(message_of<InvalidOptions>([&] { pool.grow(0, 4, recipe()); }), HasSubstr("0 x 4"));
  Recipe dead = recipe();
  dead.u_scale = dead.v_scale = 0;
  EXPECT_THAT(message_of<InvalidOptions>([&] { pool.grow(4, 4, dead); }),
              AllOf(HasSubstr("u_scale"), HasSubstr("v_scale")));
  Recipe negative = recipe();
  negative.v_scale = -1;
  EXPECT_THAT(message_of<InvalidOptions>([&] { pool.grow(4, 4, negative); }),
              HasSubstr("v_scale is -1"));
  EXPECT_TRUE(pool.generations().empty());
  EXPECT_THAT(message_of<Error>([&] { pool.grow_columns(1); }), HasSubstr("no generation is open"));
  EXPECT_THAT(message_of<Error>([&] { pool.freeze({}); }), HasSubstr("no generation is open"));
  pool.grow(4, 4, recipe());
  EXPECT_THAT(message_of<Error>([&] { pool.grow(4, 4, recipe()); }), HasSubstr("is open"));
  EXPECT_THAT(message_of<Error>([&] { (void)pool.experts_at({kernels::expert_id(4, 0)}); }),
              HasSubstr("17179869184 does not exist"));
  EXPECT_THAT(message_of<Error>([&] { (void)pool.generation(1); }), HasSubstr("generation 1"));
  pool.freeze({});
  EXPECT_THAT(message_of<InvalidOptions>([&] { pool.grow(4294967292u, 1, recipe()); }),
              HasSubstr("2^32"));
  EXPECT_THAT(message_of<InvalidOptions>([&] { pool.grow(1u << 31, 4294967295u, recipe()); }),
              AllOf(HasSubstr("2147483648 rows x 4294967295 cols"), HasSubstr("pages")));

  PoolOptions huge = pool_options();
  huge.d_in = huge.d_out = 262144;
  EXPECT_THAT(message_of<InvalidOptions>([&] { Pool(0, huge, nullptr, 0); }),
              AllOf(HasSubstr("d_in 262144"), HasSubstr("4194304")));
  EXPECT_THAT(message_of<InvalidOptions>([&] { Pool(0, PoolOptions{}, nullptr, 0); }),
              HasSubstr("d_in is 0"));
  EXPECT_THAT(message_of<InvalidOptions>([&] { Pool(0, pool_options(), nullptr, 4096); }),
              HasSubstr("4096"));
  const auto store = storage::make_memory_store();
  EXPECT_THAT(message_of<InvalidOptions>([&] { Pool(0, pool_options(), store.get(), -1); }),
              HasSubstr("budget_bytes is -1"));
}

// A committed pool of one trained, frozen generation and an open one.
std::unique_ptr<storage::PageStore> stored_pool() {
  std::unique_ptr<storage::PageStore> store = storage::make_memory_store();
  Pool pool(0, pool_options(), store.get(), 0);
  pool.grow(4, 8, recipe());
  SparseOptimizer adam(pool, {});
  adam.step({at::tensor(ids_of(0, 2, 8)), normal_tensor({16, 18}, 1)});
  pool.freeze({});
  pool.grow(4, 8, recipe());
  commit(*store, pool);
  return store;
}

void set_dense(storage::PageStore& store, const std::string& name, const std::string& text) {
  storage::CommitRequest request;
  request.dense[name] = bytes_from(text);
  ASSERT_TRUE(store.commit(request).ok());
}

TEST(PoolLoad, MalformedRecordsAreDataErrors) {
  namespace json = boost::json;
  const std::unique_ptr<storage::PageStore> original = stored_pool();
  EXPECT_NE(Pool::load(0, *original, 0), nullptr);
  EXPECT_THROW((void)Pool::load(1, *original, 0), StorageError) << "there is no pool 1";
  const std::string text = text_from(*original->read_dense("pool/0"));
  const auto changed = [&](const std::function<void(json::object&)>& change) {
    json::object record = json::parse(text).as_object();
    change(record);
    return json::serialize(record);
  };
  const auto generation = [](json::object& record, std::size_t g) -> json::object& {
    return record.at("generations").as_array().at(g).as_object();
  };
  const std::vector<std::string> malformed = {
      "",
      "{",
      "[]",
      "{}",
      changed([&](auto& r) { r.erase("options"); }),
      changed([&](auto& r) { r["generations"] = 3; }),
      changed([&](auto& r) { r.at("options").as_object()["colour"] = "red"; }),
      changed([&](auto& r) { r.at("options").as_object()["d_in"] = "twelve"; }),
      changed([&](auto& r) { r.at("options").as_object()["d_in"] = -12; }),
      changed([&](auto& r) { r.at("options").as_object()["d_in"] = 13 * 16; }),  // pages do not fit
      changed([&](auto& r) { generation(r, 0).erase("rows"); }),
      changed([&](auto& r) { generation(r, 0)["rows"] = -1; }),
      changed([&](auto& r) { generation(r, 0)["rows"] = 0; }),
      changed([&](auto& r) { generation(r, 1)["cols"] = 0; }),
      changed([&](auto& r) { generation(r, 0)["rows"] = 1; }),       // a gap, and a page in it
      changed([&](auto& r) { generation(r, 1)["first_row"] = 2; }),  // overlaps
      changed([&](auto& r) { generation(r, 0)["cols"] = 2; }),       // a page beyond
      changed([&](auto& r) { generation(r, 0)["digest"] = "12"; }),
      changed([&](auto& r) { generation(r, 0)["digest"] = std::string(32, 'z'); }),
      changed([&](auto& r) { generation(r, 0)["frozen"] = false; }),  // two open generations
      changed([&](auto& r) { generation(r, 0).at("recipe").as_object()["version"] = 2; }),
      changed([&](auto& r) { generation(r, 0).at("recipe").as_object()["u_scale"] = -2; }),
  };
  for (const std::string& record : malformed) {
    SCOPED_TRACE(record);
    const std::unique_ptr<storage::PageStore> store = stored_pool();
    set_dense(*store, "pool/0", record);
    EXPECT_THAT(message_of<DataError>([&] { (void)Pool::load(0, *store, 0); }), HasSubstr("pool"));
  }
}

}  // namespace
}  // namespace perennial
