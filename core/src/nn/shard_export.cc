// SPDX-License-Identifier: Apache-2.0
// Writes frozen generations to shard files.
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/shard_layout.h"
#include "nn/shard_record.h"
#include "perennial/core/shard_file.h"
#include "perennial/storage/safetensors.h"

namespace perennial {

namespace {

// Appends one of u, v, w of every expert, row by row.
void append_part(storage::SafetensorsWriter& writer, const Pool& pool, const Generation& g,
                 const ShardPart& part, const std::vector<WrittenPage>& written) {
  constexpr std::size_t kFlushBytes = std::size_t{1} << 20;
  const auto record = static_cast<std::size_t>(pool.options().layout().record_bytes());
  std::vector<std::byte> payload(pool.payload_bytes()), out;
  const auto flush = [&] {
    throw_if_failed(writer.append(out));
    out.clear();
  };
  auto next_written = written.begin();
  const std::uint64_t pages = pool.options().pages(g.rows, g.cols);
  for (std::uint32_t page = 0; page < pages; ++page) {
    pool.read_page(g.index, page, payload);
    if (next_written != written.end() && next_written->page == page) {
      if (storage::digest_of(payload) != next_written->digest) {
        throw DataError("page " + std::to_string(page) + " of generation " +
                        std::to_string(g.index) + " is not what froze");
      }
      ++next_written;
    }
    const std::uint64_t experts = PageExperts(pool.options(), g, page).count;
    for (std::uint64_t i = 0; i < experts; ++i) {
      const std::byte* const from = payload.data() + i * record + part.at;
      out.insert(out.end(), from, from + part.bytes);
    }
    if (out.size() >= kFlushBytes) flush();
  }
  flush();
}

}  // namespace

storage::Digest shard_content_digest(PeerImpl& layer, std::uint32_t generation) {
  return content_digest(record_of(layer, generation), layer.pool().written_pages(generation),
                        layer.router_tensors(generation));
}

namespace {

void require_frozen(GenerationState state, std::uint32_t generation) {
  if (state != GenerationState::open) return;
  throw Error("generation " + std::to_string(generation) +
              " is open; freeze it before it is exported");
}

void require_intact(bool intact, std::uint32_t generation) {
  if (intact) return;
  throw DataError("generation " + std::to_string(generation) +
                  " is not what froze: its digest has changed");
}

void write_shard(PeerImpl& layer, std::uint32_t generation,
                 const std::optional<storage::Digest>& model, const std::filesystem::path& path) {
  const PeerImpl::RouterTensors router = layer.router_tensors(generation);
  ShardRecord record = record_of(layer, generation);
  const Generation& g = record.generation;
  const Pool& pool = layer.pool();
  const std::vector<WrittenPage> written = layer.pool().written_pages(generation);
  record.content = content_digest(record, written, router);
  record.model = model;
  const auto writer = value_or_throw(storage::SafetensorsWriter::create(
      path, specs_of(pool.options(), g, written.size(), router), to_metadata(record)));
  const auto append = [&]<class T>(std::span<const T> values) {
    throw_if_failed(writer->append(std::as_bytes(values)));
  };
  for (const ShardPart& part : parts_of(pool.options().layout())) {
    append_part(*writer, pool, g, part, written);
  }
  std::vector<std::int64_t> numbers;
  std::vector<std::uint8_t> digests;
  for (const WrittenPage& page : written) {
    numbers.push_back(page.page);
    digests.insert(digests.end(), page.digest.bytes.begin(), page.digest.bytes.end());
  }
  append(std::span<const std::int64_t>(numbers));
  for (const auto& [name, tensor] : router) {
    const at::Tensor values = tensor.detach().cpu().contiguous();
    append(std::span(values.const_data_ptr<float>(), static_cast<std::size_t>(values.numel())));
  }
  append(std::span<const std::uint8_t>(digests));
  throw_if_failed(writer->finish());
}

}  // namespace

void export_shard(PeerImpl& layer, std::uint32_t generation, const std::filesystem::path& path) {
  (void)layer.router_tensors(generation);  // isolated routing
  require_frozen(layer.pool().generation(generation).state, generation);
  require_intact(layer.frozen_intact(generation), generation);
  write_shard(layer, generation, {}, path);
}

storage::Digest shard_content_digest(ExpertLayers& layers, std::uint32_t generation) {
  if (layers.layers().size() == 1) {
    return shard_content_digest(*layers.layers().begin()->second, generation);
  }
  storage::Hasher hasher;
  for (const auto& [name, layer] : layers.layers()) {
    hasher.update(name).update(shard_content_digest(*layer, generation));
  }
  return hasher.finish();
}

void export_shards(ExpertLayers& layers, std::uint32_t generation,
                   const std::filesystem::path& folder) {
  require_frozen(layers.state(generation), generation);
  for (const auto& [name, layer] : layers.layers()) (void)layer->router_tensors(generation);
  require_intact(layers.frozen_intact(generation), generation);
  std::error_code error;
  if (!std::filesystem::create_directory(folder, error)) {
    throw StorageError(storage::Status(
        error ? storage::StatusCode::io_error : storage::StatusCode::invalid_argument,
        "cannot make folder " + folder.string() + ": " +
            (error ? error.message() : std::string("it exists"))));
  }
  try {
    for (const auto& [name, layer] : layers.layers()) {
      write_shard(*layer, generation, layers.digest(generation), folder / shard_file_name(name));
    }
  } catch (...) {
    std::filesystem::remove_all(folder, error);
    throw;
  }
}

}  // namespace perennial
