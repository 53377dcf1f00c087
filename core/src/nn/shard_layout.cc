// SPDX-License-Identifier: Apache-2.0
// The tensors of a shard file.
#include "nn/shard_layout.h"

#include <string>
#include <utility>

namespace perennial {

using storage::TensorType;

std::vector<ShardPart> parts_of(const kernels::ExpertLayout& layout) {
  const auto part = [&](std::string_view name, std::int64_t at, std::int64_t width) {
    const std::int64_t bytes = layout.element_bytes();
    return ShardPart{name, static_cast<std::size_t>(at * bytes),
                     static_cast<std::size_t>(layout.width * width * bytes),
                     static_cast<std::uint64_t>(width)};
  };
  std::vector<ShardPart> parts = {part("experts.u", layout.u(), layout.d_in),
                                  part("experts.v", layout.v(), layout.d_out)};
  if (layout.glu) parts.push_back(part("experts.w", layout.w(), layout.d_in));
  return parts;
}

std::vector<storage::TensorSpec> specs_of(const PoolOptions& pool, const Generation& g,
                                          std::uint64_t written,
                                          const PeerImpl::RouterTensors& router) {
  std::vector<storage::TensorSpec> specs;
  const kernels::ExpertLayout layout = pool.layout();
  const bool bf16 = layout.type == kernels::WeightType::bf16;
  for (const ShardPart& part : parts_of(layout)) {
    std::vector<std::uint64_t> shape = {g.rows, g.cols, part.width};
    if (layout.width > 1) shape.insert(shape.end() - 1, static_cast<std::uint64_t>(layout.width));
    specs.push_back(
        {std::string(part.name), bf16 ? TensorType::bf16 : TensorType::f32, std::move(shape)});
  }
  specs.push_back({std::string(kWrittenPages), TensorType::i64, {written}});
  for (const auto& [name, tensor] : router) {
    const at::IntArrayRef sizes = tensor.sizes();
    specs.push_back(
        {std::string(kRouterPrefix) + name, TensorType::f32, {sizes.begin(), sizes.end()}});
  }
  specs.push_back({std::string(kPageDigests), TensorType::u8, {written, kDigestBytes}});
  return specs;
}

}  // namespace perennial
