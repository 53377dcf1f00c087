// SPDX-License-Identifier: Apache-2.0
// Shard files: a generation has the same bits in another layer, at other rows.
#include "core/shard_file_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;

std::uint64_t stored_pages(const storage::PageStore& store, const Generation& g) {
  const std::vector<storage::PageId> pages = store.pages();
  return static_cast<std::uint64_t>(
      std::count_if(pages.begin(), pages.end(), [&](const storage::PageId& id) {
        EXPECT_EQ(id.kind, storage::PageKind::weights);
        return id.row >= g.first_row && id.row - g.first_row < g.rows;
      }));
}

class ShardFileOf : public ShardFile,
                    public ::testing::WithParamInterface<std::tuple<QueryNorm, bool>> {
 protected:
  PeerOptions options() const {
    PeerOptions options = small_options();
    options.query_norm = std::get<0>(GetParam());
    options.glu = std::get<1>(GetParam());
    if (options.glu) options.distribution = Distribution::uniform;
    if (options.glu) options.sub_keys = SubKeys::common;
    if (options.query_norm == QueryNorm::layer) {
      options.dtype = kernels::WeightType::bf16;
      options.expert_width = 3;
    }
    return options;
  }
};

TEST_P(ShardFileOf, HasTheSameBitsAtOtherRows) {
  const auto source = learnt(options());
  const auto store = storage::make_memory_store();
  const auto target = other(options(), store.get());
  const at::Tensor x = inputs(5, 32);
  const at::Tensor older = evaluate(*target, x, 0);
  for (const std::uint32_t g : {0u, 1u}) {
    export_shard(*source, g, path(std::to_string(g)));
    const Generation added = import_shard(*target, path(std::to_string(g)));
    EXPECT_EQ(added.index, g + 1);
    EXPECT_EQ(added.first_row, g == 0 ? 3 : 11);
    expect_same(*source, g, *target, added.index);
    const std::uint64_t pages = target->pool().options().pages(added.rows, added.cols);
    EXPECT_GT(target->pool().written_pages(added.index).size(), 0u);
    EXPECT_LT(target->pool().written_pages(added.index).size(), pages) << "nothing was lazy";
  }
  EXPECT_TRUE(same_bits(evaluate(*target, x, 0), older));
  // And is the same once more, from the store, with what is learnt after it.
  target->grow(4, 4);
  SparseOptimizer adam(target->pool(), {});
  train(*target, adam, 2, 4);
  target->freeze();
  commit(*store, *target);
  const std::shared_ptr<PeerImpl> loaded = PeerImpl::load(*store, 0);
  for (const std::uint32_t g : {0u, 1u}) {
    expect_same(*source, g, *target, g + 1);
    expect_same(*source, g, *loaded, g + 1);
    EXPECT_EQ(stored_pages(*store, loaded->pool().generation(g + 1)),
              source->pool().written_pages(g).size());
    // On to a third layer: the recipe's origin is still the first one's.
    export_shard(*loaded, g + 1, path("again" + std::to_string(g)));
    const auto third = other(options());
    expect_same(*source, g, *third, import_shard(*third, path("again" + std::to_string(g))).index);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, ShardFileOf,
                         ::testing::Values(std::tuple(QueryNorm::batch, false),
                                           std::tuple(QueryNorm::rms, true),
                                           std::tuple(QueryNorm::layer, true),
                                           std::tuple(QueryNorm::none, false)),
                         [](const auto& info) {
                           return std::string(enum_name(std::get<0>(info.param))) +
                                  (std::get<1>(info.param) ? "_glu" : "");
                         });

TEST_F(ShardFile, GoesIntoALayerWithoutGenerations) {
  const auto source = learnt(small_options());
  export_shard(*source, 1, path());
  PeerImpl target(small_options(), nullptr, 0);
  EXPECT_EQ(import_shard(target, path()).first_row, 0u);
  expect_same(*source, 1, target, 0);
}

TEST_F(ShardFile, TheMemoryBudgetChangesNoBit) {
  const auto source_store = storage::make_memory_store();
  auto source = learnt(small_options(), source_store.get());
  export_shard(*source, 0, path("resident"));
  commit(*source_store, *source);
  const std::shared_ptr<PeerImpl> absent = PeerImpl::load(*source_store, 6 * 256);
  (void)evaluate(*absent, inputs(1, 1), 1);
  const std::uint64_t initialised = absent->pool().counters().initialised;
  export_shard(*absent, 0, path());
  EXPECT_EQ(absent->pool().counters().initialised, initialised) << "the cache was disturbed";
  std::ifstream resident(path("resident"), std::ios::binary);
  EXPECT_EQ(bytes(), std::string(std::istreambuf_iterator<char>(resident), {}));

  const auto store = storage::make_memory_store();
  PeerImpl target(small_options(), store.get(), 6 * 256);
  import_shard(target, path());
  EXPECT_GT(target.pool().counters().spilled, 0u) << "the budget was never short";
  export_shard(target, 0, path("from_spill"));
  expect_same(*source, 0, target, 0);
  commit(*store, target);
  expect_same(*source, 0, target, 0);
  std::ifstream spilled(path("from_spill"), std::ios::binary);
  EXPECT_EQ(bytes(), std::string(std::istreambuf_iterator<char>(spilled), {}));
}

TEST_F(ShardFile, HoldsWhatOtherProgramsRead) {
  const auto source = learnt(small_options());
  export_shard(*source, 1, path());
  const auto reader = value_or_throw(storage::SafetensorsReader::open(path()));
  const Generation& g = source->pool().generation(1);
  const ExpertValues expected = source->pool().experts_at(ids_of(g));
  for (const auto& [name, values] :
       {std::pair("experts.u", expected.u), {"experts.v", expected.v}}) {
    const storage::TensorInfo* info = reader->find(name);
    ASSERT_NE(info, nullptr);
    EXPECT_EQ(info->shape,
              (std::vector<std::uint64_t>{5, 11, static_cast<std::uint64_t>(values.size(1))}));
    at::Tensor found = at::empty(values.sizes());
    ASSERT_TRUE(reader
                    ->read(name, 0,
                           std::as_writable_bytes(std::span(
                               found.data_ptr<float>(), static_cast<std::size_t>(found.numel()))))
                    .ok());
    EXPECT_TRUE(same_bits(found, values)) << name;
  }
  EXPECT_NE(reader->find("router.query_bias"), nullptr);
  EXPECT_NE(reader->find("router.col_keys_00001"), nullptr);
  EXPECT_EQ(reader->metadata().at("digest"), g.digest.hex());
  EXPECT_EQ(reader->metadata().at("router_digest"), g.router_digest.hex());
  EXPECT_EQ(reader->metadata().at("content_digest"), shard_content_digest(*source, 1).hex());
  EXPECT_EQ(reader->metadata().at("first_row"), "8");
}

TEST_F(ShardFile, HoldsBf16AsBf16) {
  PeerOptions options = small_options();
  options.dtype = kernels::WeightType::bf16;
  options.expert_width = 2;
  const auto source = learnt(options);
  export_shard(*source, 1, path());
  const auto reader = value_or_throw(storage::SafetensorsReader::open(path()));
  const storage::TensorInfo* info = reader->find("experts.v");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->type, storage::TensorType::bf16);
  EXPECT_EQ(info->shape, (std::vector<std::uint64_t>{5, 11, 2, 6}));
  at::Tensor found = at::empty({55, 12}, at::kBFloat16);
  const std::span<std::byte> bytes(static_cast<std::byte*>(found.mutable_data_ptr()),
                                   found.nbytes());
  ASSERT_TRUE(reader->read("experts.v", 0, bytes).ok());
  EXPECT_TRUE(same_bits(found.to(at::kFloat),
                        source->pool().experts_at(ids_of(source->pool().generation(1))).v));
}

TEST_F(ShardFile, WhatCannotBeExportedIsRefused) {
  const auto source = learnt(small_options());
  source->grow();
  EXPECT_THAT(message_of<Error>([&] { export_shard(*source, 2, path()); }), HasSubstr("is open"));
  EXPECT_THAT(message_of<Error>([&] { export_shard(*source, 3, path()); }),
              HasSubstr("does not exist"));
  PeerOptions options = small_options();
  options.routing = Routing::shared;
  PeerImpl shared(options);
  shared.freeze();
  EXPECT_THAT(message_of<Error>([&] { export_shard(shared, 0, path()); }), HasSubstr("shared"));
  {
    PeerImpl changed(small_options());
    changed.freeze();
    const at::NoGradGuard no_grad;
    changed.parameters().front().add_(1);
    EXPECT_THAT(message_of<DataError>([&] { export_shard(changed, 0, path()); }),
                HasSubstr("not what froze"));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
  export_shard(*source, 0, path());
  const std::string before = bytes();
  EXPECT_THAT(message_of<StorageError>([&] { export_shard(*source, 1, path()); }),
              HasSubstr("exists already"));
  EXPECT_EQ(bytes(), before);
}

TEST_F(ShardFile, APageThatCannotBeReadLeavesNoFile) {
  const auto store = storage::make_memory_store();
  commit(*store, *learnt(small_options(), store.get()));
  StoreWrapper failing(*store);
  const std::shared_ptr<PeerImpl> layer = PeerImpl::load(failing, 0);
  failing.failing_page = store->pages().back();
  EXPECT_THAT(message_of<StorageError>([&] { export_shard(*layer, 1, path()); }),
              HasSubstr(to_string(*failing.failing_page)));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace perennial
