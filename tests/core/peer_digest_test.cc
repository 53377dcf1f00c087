// SPDX-License-Identifier: Apache-2.0
// What the digests of frozen generations cover, byte by byte: stores and shard files of earlier
// versions must stay intact.
#include <boost/json/serialize.hpp>

#include "core/core_testing.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/shard_file.h"

namespace perennial {
namespace {

using namespace perennial::testing;

PeerOptions plain_options() {
  PeerOptions options = small_options();
  options.query_norm = QueryNorm::none;
  return options;
}

// The options that the first version had, and no others.
constexpr std::string_view kFirstOptions =
    R"({"d_in":12,"d_out":6,"heads":2,"top_k":3,"d_key":8,"rows":8,"cols":8,)"
    R"("routing":"isolated","sub_keys":"per-head","score":"softmax","activation":"gelu",)"
    R"("glu":false,"query_norm":"none","norm_eps":1E-5,"norm_momentum":1E-1,"key_scale":5E-1,)"
    R"("distribution":"normal","u_scale":0E0,"v_scale":5E-1,"page_bytes":256,"seed":3})";
constexpr std::string_view kFirstShape =
    R"({"d_in":12,"d_out":6,"glu":false,"heads":2,"top_k":3,"d_key":8,"sub_keys":"per-head",)"
    R"("score":"softmax","activation":"gelu","query_norm":"none","norm_eps":1E-5,"tile":2})";

void add(storage::Hasher& hasher, const std::string& prefix, const PeerImpl& peer) {
  for (const auto& [name, tensor] : peer.router_tensors(0)) {
    const storage::Bytes bytes = bytes_from(tensor);
    hasher.update(std::string_view(prefix + name)).update(std::span<const std::byte>(bytes));
  }
}

TEST(PeerDigest, OfDefaultsSeesTheFirstOptionsAlone) {
  PeerImpl peer(plain_options());
  peer.freeze();
  const Generation& g = peer.pool().generation(0);
  storage::Hasher router;
  router.update(kFirstOptions);
  add(router, "router_00000/", peer);
  EXPECT_EQ(g.router_digest, router.finish());

  storage::Hasher content;
  content.update(std::string_view("perennial shard content 1")).update(kFirstShape);
  content.update(boost::json::serialize(to_json(g.recipe)));
  content.update(std::uint64_t{8}).update(std::uint64_t{8}).update(std::uint64_t{0});
  add(content, "", peer);
  EXPECT_EQ(shard_content_digest(peer, 0), content.finish());
}

TEST(PeerDigest, SeesEachLaterOption) {
  const auto digest_with = [](const std::function<void(PeerOptions&)>& change) {
    PeerOptions options = plain_options();
    change(options);
    PeerImpl peer(options);
    peer.freeze();
    return peer.pool().generation(0).router_digest;
  };
  const storage::Digest plain = digest_with([](PeerOptions&) {});
  EXPECT_NE(digest_with([](PeerOptions& o) { o.expert_width = 2; }), plain);
  EXPECT_NE(digest_with([](PeerOptions& o) { o.dtype = kernels::WeightType::bf16; }), plain);
  EXPECT_NE(digest_with([](PeerOptions& o) { o.dropout = 0.1; }), plain);
}

}  // namespace
}  // namespace perennial
