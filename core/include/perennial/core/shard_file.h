// SPDX-License-Identifier: Apache-2.0
// Frozen generations as safetensors files: out of one layer, into another, bit for bit.
//
// Tensors, little-endian (N pages that were ever written, tile experts a page):
//   experts.u (rows, cols, d_in), experts.v (rows, cols, d_out), with GLU experts.w as experts.u
//   pages.written (N) int64: their numbers, row * ceil(cols / tile) + column / tile, ascending
//   pages.digest (N, 16) uint8: XXH3-128 of each page as the store holds it
//   router.<name>: query, query_bias, gamma, ... as the layer names them
// Metadata, all text: format "perennial shard 1"; options, the layer's, and recipe, as JSON; tile,
// generation, first_row, rows, cols; digest and router_digest, the generation's where it came from;
// content_digest; of a model of several layers model_digest, equal in the files of a generation.
//
// A page that was never written holds its recipe's values: the file has them for other readers, and
// an import leaves such a page unwritten. The **content digest** is XXH3-128 over what decides the
// generation's outputs and nothing of its place: the options that shape them, recipe, size, written
// pages and router.
#pragma once

#include <cstdint>
#include <filesystem>

#include "perennial/core/expert_layers.h"
#include "perennial/core/peer.h"

namespace perennial {

// Isolated routing only, here and below: with shared routing the query network and column keys
// belong to all generations, and none has outputs of its own to carry elsewhere; an Error.

// The content digest of a generation as it is now. Cost: as Pool::shard_digest, and its router.
storage::Digest shard_content_digest(PeerImpl& layer, std::uint32_t generation);
// Of a model: its layer's where there is one, else XXH3-128 over the layers' names and digests.
storage::Digest shard_content_digest(ExpertLayers& layers, std::uint32_t generation);

// Writes a frozen generation to `path`, which must not exist; after a failure nothing is there. The
// layer may have changes that are not committed; its cache stays as it is. Throws Error for an open
// generation (its optimizer state has no place in the file: freeze it first), DataError when its
// pages or router are not what froze, StorageError. Cost: reads each page two or three times, once
// for each of u, v and w, with a few MB of memory.
void export_shard(PeerImpl& layer, std::uint32_t generation, const std::filesystem::path& path);

// Appends the generation in `path` to the layer, frozen, at the next free rows, and returns it.
// Its outputs, experts and content digest are what they were; the next commit stores its written
// pages and its router. `digest` and `router_digest` are new: they cover the place.
//
// Everything is checked before the layer is touched: the file, that the layer has equal widths,
// tile, heads and whatever else shapes an output (a DataError names what differs, and both values),
// every digest, and every expert of an unwritten page against the recipe. Throws Error while a
// generation is open, DataError, StorageError, InvalidOptions when rows run out; the layer is then
// as it was. Cost: reads the file once and the written pages twice, and draws every expert anew.
const Generation& import_shard(PeerImpl& layer, const std::filesystem::path& path);

// The same of a generation of all layers of a model: a folder, which must not exist, with a file
// LAYER.safetensors for each layer. Each is a shard file as above, so the experts of a pool that
// several layers read are in the files of all of them.
void export_shards(ExpertLayers& layers, std::uint32_t generation,
                   const std::filesystem::path& folder);
// Appends it to the model, frozen, and returns its number. The folder must have exactly the files
// of the model's layers, of one generation.
std::uint32_t import_shards(ExpertLayers& layers, const std::filesystem::path& folder);

}  // namespace perennial
