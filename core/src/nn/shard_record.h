// SPDX-License-Identifier: Apache-2.0
// What a shard file says of itself, as metadata and back.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "perennial/core/peer.h"
#include "perennial/storage/safetensors.h"

namespace perennial {

struct ShardRecord {
  PeerOptions options;
  std::int64_t tile = 0;
  Generation generation;  // frozen; as it is in the layer it comes from
  storage::Digest content;
  // Of the model's generation, where it has several layers.
  std::optional<storage::Digest> model;
};

storage::SafetensorsMetadata to_metadata(const ShardRecord& record);
// Throws DataError, without the file's name.
ShardRecord record_from(const storage::SafetensorsMetadata& metadata);

// The record of a layer's generation, without its content digest.
ShardRecord record_of(const PeerImpl& layer, std::uint32_t generation);

// Throws DataError naming each option that shapes outputs and differs, with both values.
void require_same_shape(const ShardRecord& record, const PeerImpl& layer);

storage::Digest content_digest(const ShardRecord& record, const std::vector<WrittenPage>& written,
                               const PeerImpl::RouterTensors& router);

}  // namespace perennial
