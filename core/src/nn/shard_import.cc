// SPDX-License-Identifier: Apache-2.0
// Checks shard files, and appends what they hold to a layer.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "nn/shard_layout.h"
#include "nn/shard_record.h"
#include "perennial/core/shard_file.h"
#include "perennial/storage/safetensors.h"

namespace perennial {

namespace {

using storage::TensorType;

// A shard file that is read for a layer. Throws without the file's name.
class ShardSource {
 public:
  ShardSource(const storage::SafetensorsReader& reader, const Pool& pool, const Generation& g)
      : reader_(reader), pool_(pool), g_(g), parts_(parts_of(pool.options().layout())) {}

  // Every tensor is one of a shard of this size, and none is missing.
  void require_tensors(const PeerImpl::RouterTensors& router) const {
    const storage::TensorInfo* const written = reader_.find(kWrittenPages);
    const std::uint64_t pages = pool_.options().pages(g_.rows, g_.cols);
    if (written == nullptr || written->shape.size() != 1 || written->shape[0] > pages) {
      throw DataError("tensor 'pages.written' is missing or malformed");
    }
    const auto specs = specs_of(pool_.options(), g_, written->shape[0], router);
    for (const storage::TensorSpec& spec : specs) {
      const storage::TensorInfo* const found = reader_.find(spec.name);
      if (found == nullptr || found->type != spec.type || found->shape != spec.shape) {
        throw DataError("tensor '" + spec.name + "' is missing or has another shape or type than " +
                        std::to_string(g_.rows) + " rows x " + std::to_string(g_.cols) +
                        " cols of this layer's experts have");
      }
    }
    if (reader_.tensors().size() != specs.size()) {
      throw DataError("it holds tensors that no shard has");
    }
  }

  PeerImpl::RouterTensors router() const {
    PeerImpl::RouterTensors tensors;
    for (const storage::TensorInfo& info : reader_.tensors()) {
      if (!info.name.starts_with(kRouterPrefix)) continue;
      if (info.type != TensorType::f32 || info.bytes == 0) {
        throw DataError("tensor '" + info.name + "' is empty or not F32");
      }
      const std::vector<std::int64_t> sizes(info.shape.begin(), info.shape.end());
      at::Tensor tensor = at::empty(sizes);
      read(info.name, 0,
           std::span(tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())));
      tensors[info.name.substr(kRouterPrefix.size())] = std::move(tensor);
    }
    return tensors;
  }

  std::vector<WrittenPage> written() const {
    const std::uint64_t pages = pool_.options().pages(g_.rows, g_.cols);
    std::vector<std::int64_t> numbers(reader_.find(kWrittenPages)->shape[0]);
    std::vector<std::array<std::uint8_t, kDigestBytes>> digests(numbers.size());
    read(kWrittenPages, 0, std::span(numbers));
    read(kPageDigests, 0, std::span(digests));
    std::vector<WrittenPage> written(numbers.size());
    std::int64_t least = 0;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (numbers[i] < least || static_cast<std::uint64_t>(numbers[i]) >= pages) {
        throw DataError("tensor 'pages.written' is no ascending list of its " +
                        std::to_string(pages) + " pages");
      }
      written[i] = {static_cast<std::uint32_t>(numbers[i]), {digests[i]}};
      least = numbers[i] + 1;
    }
    return written;
  }

  // A page as a store would hold it: the file's experts, and the recipe's where none exist.
  void load(std::uint32_t page, std::span<std::byte> payload) const {
    pool_.initial_page(g_, page, payload);
    const auto record = static_cast<std::size_t>(pool_.options().layout().record_bytes());
    const PageExperts experts(pool_.options(), g_, page);
    std::vector<std::byte> values;
    for (const ShardPart& part : parts_) {
      values.resize(experts.count * part.bytes);
      read(part.name, experts.first * part.bytes, std::span(values));
      for (std::size_t i = 0; i < experts.count; ++i) {
        std::memcpy(payload.data() + i * record + part.at, values.data() + i * part.bytes,
                    part.bytes);
      }
    }
  }

  // Each written page has its digest, each other one its recipe's values.
  void require_pages(const std::vector<WrittenPage>& written) const {
    const auto pages = static_cast<std::int64_t>(pool_.options().pages(g_.rows, g_.cols));
    at::parallel_for(0, pages, 16, [&](std::int64_t begin, std::int64_t end) {
      std::vector<std::byte> payload(pool_.payload_bytes()), initial(pool_.payload_bytes());
      auto next =
          std::lower_bound(written.begin(), written.end(), begin,
                           [](const WrittenPage& w, std::int64_t page) { return w.page < page; });
      for (std::int64_t i = begin; i < end; ++i) {
        const auto page = static_cast<std::uint32_t>(i);
        load(page, payload);
        bool intact = false;
        if (next != written.end() && next->page == page) {
          intact = storage::digest_of(payload) == next->digest;
          ++next;
        } else {
          pool_.initial_page(g_, page, initial);
          intact = payload == initial;
        }
        if (!intact) {
          const PageExperts experts(pool_.options(), g_, page);
          throw DataError("experts " + std::to_string(experts.first) + " to " +
                          std::to_string(experts.first + experts.count - 1) +
                          " (row by row) are not what was exported");
        }
      }
    });
  }

 private:
  template <class T>
  void read(std::string_view name, std::uint64_t offset, std::span<T> out) const {
    throw_if_failed(reader_.read(name, offset, std::as_writable_bytes(out)));
  }

  const storage::SafetensorsReader& reader_;
  const Pool& pool_;
  const Generation& g_;
  std::vector<ShardPart> parts_;
};

// A shard file that has been found to fit a layer. Its content reads the file, so it stays open.
struct CheckedShard {
  std::unique_ptr<storage::SafetensorsReader> reader;
  ShardRecord record;
  PeerImpl::RouterTensors router;
  ForeignGeneration content;
};

// `result` stays where it is: the content's reads are of it.
void check(PeerImpl& layer, CheckedShard& result, bool experts) {
  const storage::SafetensorsReader& reader = *result.reader;
  result.record = record_from(reader.metadata());
  const ShardRecord& record = result.record;
  const Generation& g = record.generation;
  require_same_shape(record, layer);
  if (std::uint64_t{g.rows} * g.cols < static_cast<std::uint64_t>(layer.options().top_k)) {
    throw DataError("it has fewer experts than top_k = " + std::to_string(layer.options().top_k));
  }
  (void)layer.pool().next_generation(g.rows, g.cols, g.recipe);
  const auto source = std::make_shared<ShardSource>(reader, layer.pool(), g);
  result.router = source->router();
  source->require_tensors(result.router);
  ForeignGeneration& content = result.content;
  content = {g.rows, g.cols, g.recipe, source->written(), {}};
  if (layer.pool().shard_digest(g, content.written) != g.digest) {
    throw DataError("its recipe, size and list of pages have not the digest " + g.digest.hex());
  }
  if (content_digest(record, content.written, result.router) != record.content) {
    throw DataError("its router and list of pages have not the content digest " +
                    record.content.hex());
  }
  if (experts) source->require_pages(content.written);
  content.read = [source](std::uint32_t page, std::span<std::byte> payload) {
    source->load(page, payload);
  };
}

// Opens and checks a file; every error names it.
std::unique_ptr<CheckedShard> checked(PeerImpl& layer, const std::filesystem::path& path,
                                      bool experts) {
  auto shard = std::make_unique<CheckedShard>();
  shard->reader = value_or_throw(storage::SafetensorsReader::open(path));
  try {
    check(layer, *shard, experts);
  } catch (const DataError& error) {
    throw DataError("shard " + path.string() + ": " + error.what());
  } catch (const InvalidOptions& error) {
    throw InvalidOptions("shard " + path.string() + ": " + error.what());
  }
  return shard;
}

void require_importing(Routing routing, std::optional<std::uint32_t> open) {
  if (routing != Routing::isolated) {
    throw Error("a shard cannot be imported with shared routing: its router would serve all");
  }
  if (open) {
    throw Error("generation " + std::to_string(*open) +
                " is open; freeze it before a shard is imported");
  }
}

}  // namespace

const Generation& import_shard(PeerImpl& layer, const std::filesystem::path& path) {
  require_importing(layer.options().routing, layer.pool().open_generation());
  const auto shard = checked(layer, path, true);
  try {
    return layer.add_frozen(shard->content, shard->router);
  } catch (const DataError& error) {
    throw DataError("shard " + path.string() + ": " + error.what());
  }
}

std::uint32_t import_shards(ExpertLayers& layers, const std::filesystem::path& folder) {
  std::map<std::string, std::unique_ptr<CheckedShard>> shards;
  std::map<const Pool*, const CheckedShard*> of_pool;
  for (const auto& [name, layer] : layers.layers()) {
    require_importing(layer->options().routing, layers.open_generation());
    const auto known = of_pool.find(&layer->pool());
    const std::filesystem::path path = folder / shard_file_name(name);
    auto shard = checked(*layer, path, known == of_pool.end());
    if (!shards.empty() && shard->record.model != shards.begin()->second->record.model) {
      throw DataError("shard " + path.string() + " is of another generation than those beside it");
    }
    of_pool.try_emplace(&layer->pool(), shard.get());
    shards[name] = std::move(shard);
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors" &&
        !shards.contains(entry.path().stem().string())) {
      throw DataError("shard " + entry.path().string() + " is of no layer of the model");
    }
  }
  std::map<std::string, ExpertLayers::FrozenLayer> frozen;
  for (const auto& [name, shard] : shards) frozen[name] = {shard->content, shard->router};
  return layers.add_frozen(frozen);
}

}  // namespace perennial
