// SPDX-License-Identifier: Apache-2.0
// The tensors of a shard file.
#include "nn/shard_layout.h"

#include <string>

namespace perennial {

using storage::TensorType;

std::vector<ShardPart> parts_of(const kernels::ExpertLayout& layout) {
  std::vector<ShardPart> parts = {{"experts.u", layout.u(), layout.d_in},
                                  {"experts.v", layout.v(), layout.d_out}};
  if (layout.glu) parts.push_back({"experts.w", layout.w(), layout.d_in});
  return parts;
}

std::vector<storage::TensorSpec> specs_of(const PoolOptions& pool, const Generation& g,
                                          std::uint64_t written,
                                          const PeerImpl::RouterTensors& router) {
  std::vector<storage::TensorSpec> specs;
  for (const ShardPart& part : parts_of(pool.layout())) {
    specs.push_back({std::string(part.name),
                     TensorType::f32,
                     {g.rows, g.cols, static_cast<std::uint64_t>(part.width)}});
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
