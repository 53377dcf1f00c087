// SPDX-License-Identifier: Apache-2.0
// The metadata of shard files, and the digest of what decides a generation's outputs.
#include "nn/shard_record.h"

#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <string>
#include <string_view>

#include "nn/option_digest.h"
#include "perennial/core/dense_state.h"

namespace perennial {

namespace {

namespace json = boost::json;

constexpr std::string_view kFormat = "perennial shard ";
constexpr std::string_view kShardVersion = "1";

// The options without which an expert or a router would mean something else.
constexpr std::array<std::string_view, 13> kShaping = {
    "d_in",  "d_out",      "glu",        "heads",    "top_k",        "d_key", "sub_keys",
    "score", "activation", "query_norm", "norm_eps", "expert_width", "dtype"};

json::object shaping(const PeerOptions& options, std::int64_t tile) {
  const json::object all = to_json(options);
  json::object chosen;
  for (const std::string_view name : kShaping) chosen[name] = all.at(name);
  chosen["tile"] = tile;
  return chosen;
}

template <class T>
T number(const std::string& name, const std::string& text) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  throw DataError("metadata '" + name + "' is no number in range");
}

}  // namespace

storage::SafetensorsMetadata to_metadata(const ShardRecord& record) {
  const Generation& g = record.generation;
  storage::SafetensorsMetadata metadata{
      {"format", std::string(kFormat) + std::string(kShardVersion)},
      {"options", json::serialize(to_json(record.options))},
      {"recipe", json::serialize(to_json(g.recipe))},
      {"tile", std::to_string(record.tile)},
      {"generation", std::to_string(g.index)},
      {"first_row", std::to_string(g.first_row)},
      {"rows", std::to_string(g.rows)},
      {"cols", std::to_string(g.cols)},
      {"digest", g.digest.hex()},
      {"router_digest", g.router_digest.hex()},
      {"content_digest", record.content.hex()}};
  if (record.model) metadata["model_digest"] = record.model->hex();
  return metadata;
}

ShardRecord record_from(const storage::SafetensorsMetadata& metadata) {
  const auto field = [&](const std::string& name) -> const std::string& {
    const auto found = metadata.find(name);
    if (found == metadata.end()) throw DataError("metadata '" + name + "' is missing");
    return found->second;
  };
  const auto format = metadata.find("format");
  if (format == metadata.end() || !format->second.starts_with(kFormat)) {
    throw DataError("it is no shard of Perennial");
  }
  if (format->second.substr(kFormat.size()) != kShardVersion) {
    throw DataError("it has the format '" + format->second + "'; this program knows '" +
                    std::string(kFormat) + std::string(kShardVersion) + "'");
  }
  const auto u32 = [&](const char* name) { return number<std::uint32_t>(name, field(name)); };
  ShardRecord record;
  Generation& g = record.generation;
  try {
    record.options = from_json<PeerOptions>(json::parse(field("options")).as_object());
    validate_ranges(record.options);
    g.recipe = from_json<Recipe>(json::parse(field("recipe")).as_object());
    validate_ranges(g.recipe);
  } catch (const DataError&) {
    throw;
  } catch (const std::exception& error) {
    throw DataError(std::string("its options or its recipe are malformed: ") + error.what());
  }
  record.tile = number<std::int64_t>("tile", field("tile"));
  g.index = u32("generation");
  g.first_row = u32("first_row");
  g.rows = u32("rows");
  g.cols = u32("cols");
  g.state = GenerationState::frozen;
  g.digest = digest_from_hex(field("digest"));
  g.router_digest = digest_from_hex(field("router_digest"));
  record.content = digest_from_hex(field("content_digest"));
  if (metadata.contains("model_digest")) record.model = digest_from_hex(field("model_digest"));
  return record;
}

ShardRecord record_of(const PeerImpl& layer, std::uint32_t generation) {
  return {
      layer.options(), layer.pool().options().tile(), layer.pool().generation(generation), {}, {}};
}

void require_same_shape(const ShardRecord& record, const PeerImpl& layer) {
  const json::object here = shaping(layer.options(), layer.pool().options().tile());
  std::string differences;
  for (const auto& [name, there] : shaping(record.options, record.tile)) {
    if (here.at(name) == there) continue;
    differences += differences.empty() ? "" : ", ";
    differences += std::string(std::string_view(name)) + " is " + json::serialize(there) +
                   " there and " + json::serialize(here.at(name)) + " here";
  }
  if (!differences.empty()) throw DataError("it does not fit the layer: " + differences);
}

storage::Digest content_digest(const ShardRecord& record, const std::vector<WrittenPage>& written,
                               const PeerImpl::RouterTensors& router) {
  const Generation& g = record.generation;
  storage::Hasher hasher;
  hasher.update(std::string_view("perennial shard content 1"));
  hasher.update(json::serialize(digested_options(shaping(record.options, record.tile))));
  hasher.update(json::serialize(to_json(g.recipe)));
  hasher.update(std::uint64_t{g.rows}).update(std::uint64_t{g.cols});
  hasher.update(std::uint64_t{written.size()});
  for (const WrittenPage& page : written) {
    hasher.update(std::uint64_t{page.page}).update(page.digest);
  }
  for (const auto& [name, tensor] : router) {
    hasher.update(std::string_view(name));
    hasher.update(std::span<const std::byte>(bytes_from(tensor)));
  }
  return hasher.finish();
}

}  // namespace perennial
