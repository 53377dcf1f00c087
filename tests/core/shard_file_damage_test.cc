// SPDX-License-Identifier: Apache-2.0
// Damaged, foreign and unfitting shard files are refused, and the layer is as it was.
#include "core/shard_file_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;

TEST_F(ShardFile, WhatDoesNotFitIsRefusedWithBothValues) {
  export_shard(*learnt(small_options()), 0, path());
  const auto with = [&](const std::function<void(PeerOptions&)>& change) {
    PeerOptions options = small_options();
    change(options);
    return refusal(*other(options));
  };
  EXPECT_THAT(with([](PeerOptions& o) { o.d_in = 16, o.d_out = 7; }),
              AllOf(HasSubstr("d_in is 12 there and 16 here"), HasSubstr("d_out is 6 there and 7"),
                    HasSubstr(path().string())));
  EXPECT_THAT(with([](PeerOptions& o) { o.glu = true; }), HasSubstr("glu is false there and true"));
  EXPECT_THAT(with([](PeerOptions& o) { o.dtype = kernels::WeightType::bf16; }),
              HasSubstr(R"(dtype is "f32" there and "bf16" here)"));
  EXPECT_THAT(with([](PeerOptions& o) { o.expert_width = 2; }),
              HasSubstr("expert_width is 1 there and 2 here"));
  EXPECT_THAT(with([](PeerOptions& o) { o.page_bytes = 512; }), HasSubstr("tile is 2 there and 4"));
  EXPECT_THAT(with([](PeerOptions& o) { o.heads = 3; }), HasSubstr("heads is 2 there and 3"));
  EXPECT_THAT(with([](PeerOptions& o) { o.top_k = 2; }), HasSubstr("top_k is 3 there and 2"));
  EXPECT_THAT(with([](PeerOptions& o) { o.d_key = 10; }), HasSubstr("d_key is 8 there and 10"));
  EXPECT_THAT(with([](PeerOptions& o) { o.query_norm = QueryNorm::rms; }),
              HasSubstr(R"(query_norm is "batch" there and "rms" here)"));
  EXPECT_THAT(with([](PeerOptions& o) { o.norm_eps = 1e-4; }), HasSubstr("norm_eps"));
  EXPECT_THAT(with([](PeerOptions& o) { o.sub_keys = SubKeys::common; }), HasSubstr("sub_keys"));
  EXPECT_THAT(with([](PeerOptions& o) { o.score = kernels::ScoreFunction::sigmoid; }),
              HasSubstr("score"));
  EXPECT_THAT(with([](PeerOptions& o) { o.activation = kernels::Activation::relu; }),
              HasSubstr("activation"));
  PeerOptions options = small_options();
  options.routing = Routing::shared;
  PeerImpl shared(options);
  shared.freeze();
  EXPECT_THAT(refusal<Error>(shared), HasSubstr("shared routing"));
  PeerImpl open(small_options());
  EXPECT_THAT(refusal<Error>(open), HasSubstr("generation 0 is open"));
}

TEST_F(ShardFile, FilesThatAreNoShardsAreRefused) {
  const auto target = other(small_options());
  EXPECT_THAT(refusal<StorageError>(*target), HasSubstr("No such file"));
  const auto writer =
      value_or_throw(storage::SafetensorsWriter::create(path(), {}, {{"format", "pt"}}));
  throw_if_failed(writer->finish());
  EXPECT_THAT(refusal(*target), HasSubstr("no shard of Perennial"));
  fs::remove(path());
  export_shard(*learnt(small_options()), 1, path());
  const std::string intact = bytes();
  for (const auto& [from, to, reason] : std::vector<std::array<std::string, 3>>{
           {"perennial shard 1", "perennial shard 2", "this program knows 'perennial shard 1'"},
           {"\"rows\":\"5\"", "\"rows\":\"4\"", "'experts.u'"},
           {"\"rows\":\"5\"", "\"rows\":\"x\"", "'rows' is no number"},
           {"\"rows\":\"5\"", "\"rowz\":\"5\"", "'rows' is missing"},
           {"\"cols\":\"11\"", "\"cols\":\"12\"", "'experts.u'"},
           {"\"first_row\":\"8\"", "\"first_row\":\"9\"", "have not the digest"},
           {R"(\"origin_row\":8)", R"(\"origin_row\":9)", "have not the digest"},
           {R"(\"seed\":3,\"origin_pool)", R"(\"seed\":4,\"origin_pool)", "have not the digest"},
           {R"(\"version\":1)", R"(\"version\":2)", "version is 2"},
           {R"(\"version\":1)", R"(\"versiom\":1)", "did you mean 'version'"},
           {"\"router_digest\":\"", "\"router_digezt\":\"", "'router_digest' is missing"},
           {"router.gamma", "router.gamme", "not the content digest"},
           {"router.gamma", "rooter.gamma", "tensors that no shard has"},
           {"router.col_keys_00001", "router.col_keys_00002", ""},
           {"pages.written", "pages.writter", "'pages.written' is missing"},
           {"pages.digest", "pages.digesT", "'pages.digest' is missing"}}) {
    SCOPED_TRACE(from + " -> " + to);
    overwrite(intact);
    replace(from, to);
    EXPECT_THAT(refusal(*target), AllOf(HasSubstr(reason), HasSubstr(path().string())));
  }
  overwrite(intact);
  EXPECT_EQ(import_shard(*target, path()).index, 1u);
}

TEST_F(ShardFile, EveryFlippedByteOfATensorIsFound) {
  const auto source = learnt(small_options());
  export_shard(*source, 1, path());
  const auto target = other(small_options());
  const auto reader = value_or_throw(storage::SafetensorsReader::open(path()));
  const std::string intact = bytes();
  std::uint64_t data = intact.size();
  for (const storage::TensorInfo& info : reader->tensors()) data -= info.bytes;
  for (const storage::TensorInfo& info : reader->tensors()) {
    for (std::uint64_t at = 0; at < info.bytes; at += info.bytes < 500 ? 1 : 37) {
      std::string damaged = intact;
      damaged[data + info.offset + at] ^= 1;
      overwrite(damaged);
      EXPECT_THROW(import_shard(*target, path()), DataError) << info.name << " byte " << at;
    }
    std::string damaged = intact;
    damaged[data + info.offset + info.bytes - 1] ^= 1;
    overwrite(damaged);
    (void)refusal(*target);
  }
}

// A bit of the header is either found, or is one of those that say nothing of the content (the
// layer's seed, the generation's former number).
TEST_F(ShardFile, AFlippedBitOfTheHeaderChangesNoExpert) {
  const auto source = learnt(small_options());
  export_shard(*source, 1, path());
  const storage::Digest content = shard_content_digest(*source, 1);
  const std::string intact = bytes();
  std::size_t refused = 0, imported = 0;
  const auto reader = value_or_throw(storage::SafetensorsReader::open(path()));
  const storage::TensorInfo& last = reader->tensors().back();
  const std::size_t header = intact.size() - last.offset - last.bytes;
  for (std::size_t at = 0; at < header; at += 3) {
    std::string damaged = intact;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    overwrite(damaged);
    PeerImpl target(small_options(), nullptr, 0);
    try {
      import_shard(target, path());
      EXPECT_EQ(shard_content_digest(target, 0), content) << damaged.substr(at, 20);
      ++imported;
    } catch (const Error&) {
      EXPECT_TRUE(target.pool().generations().empty());
      ++refused;
    }
  }
  EXPECT_GT(refused, 10 * imported);
}

TEST_F(ShardFile, AFullScratchFolderLeavesTheLayerAsItWas) {
  const auto source = learnt(small_options());
  export_shard(*source, 0, path());
  const auto store = storage::make_memory_store();
  StoreWrapper failing(*store);
  const auto target = std::make_unique<PeerImpl>(small_options(), &failing, 6 * 256);
  failing.scratch = folder.path() / "missing";
  EXPECT_THAT(refusal<StorageError>(*target), HasSubstr("spill file"));
  failing.scratch.reset();
  import_shard(*target, path());
  expect_same(*source, 0, *target, 0);
}

// What a file cannot get past its digests, or only by changing while it is read.
TEST_F(ShardFile, ForeignGenerationsAreCheckedBeforeTheyAreAdded) {
  const auto source = learnt(small_options());
  Pool& from = source->pool();
  const Generation& g = from.generation(1);
  const auto target = other(small_options());
  const storage::Digest before = state_of(*target);
  ForeignGeneration content{g.rows, g.cols, g.recipe, from.written_pages(1), {}};
  content.read = [&](std::uint32_t page, std::span<std::byte> payload) {
    from.read_page(1, page, payload);
  };
  const PeerImpl::RouterTensors router = source->router_tensors(1);
  const auto refusal_of = [&](const std::function<void(PeerImpl::RouterTensors&)>& change) {
    PeerImpl::RouterTensors changed = router;
    change(changed);
    return message_of<DataError>([&] { target->add_frozen(content, changed); });
  };
  using Tensors = PeerImpl::RouterTensors;
  EXPECT_THAT(refusal_of([](Tensors& t) { t.erase("gamma"); }), HasSubstr("'gamma' is missing"));
  EXPECT_THAT(refusal_of([](Tensors& t) { t.erase("col_keys_00001"); }),
              HasSubstr("'col_keys_00001' is missing"));
  EXPECT_THAT(refusal_of([](Tensors& t) { t["col_keys_00001"] = t["col_keys_00000"]; }),
              HasSubstr("does not fit 11 columns"));
  EXPECT_THAT(refusal_of([](Tensors& t) { t["col_keys_00002"] = t["col_keys_00000"]; }),
              HasSubstr("tensors, not"));
  EXPECT_THAT(refusal_of([](Tensors& t) { t["col_keys_00000"] = at::ones({7}); }),
              HasSubstr("does not fit 11 columns"));
  EXPECT_THAT(refusal_of([](Tensors& t) { t["query"] = t["query"].t().contiguous(); }),
              HasSubstr("'query' is Float[12, 16], not Float[16, 12]"));
  EXPECT_THAT(refusal_of([](Tensors& t) { t["beta"] = t["beta"].to(at::kDouble); }),
              HasSubstr("'beta' is Double"));
  // The last page is wrong, when all before it have been added.
  const std::uint32_t last = content.written.back().page;
  content.read = [&](std::uint32_t page, std::span<std::byte> payload) {
    from.read_page(1, page, payload);
    if (page == last) payload.back() = std::byte{1};
  };
  EXPECT_THAT(refusal_of([](Tensors&) {}), HasSubstr("page " + std::to_string(last)));
  EXPECT_EQ(state_of(*target), before);
  EXPECT_EQ(target->pool().generations().size(), 1u);
  target->grow();
  SparseOptimizer adam(target->pool(), {});
  train(*target, adam, 2, 5);
  target->freeze();
  EXPECT_TRUE(target->frozen_intact());
}

}  // namespace
}  // namespace perennial
