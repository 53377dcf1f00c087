// SPDX-License-Identifier: Apache-2.0
// Initial values, growth and folding of a router.
#include "nn/router.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "perennial/kernels/philox.h"

namespace perennial {

namespace {

// What a tensor's random numbers are drawn for; the first word of Philox's counter after the
// element.
enum Part : std::uint32_t { kQuery = 0x51000000, kRowKeys = 0x52000000, kColKeys = 0x43000000 };

std::span<float> values(torch::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

std::string numbered(const char* name, std::size_t number) {
  char text[32];
  std::snprintf(text, sizeof(text), "%s_%05zu", name, number);
  return text;
}

}  // namespace

Router::Router(const PeerOptions& options, std::uint32_t index) : options_(options), index_(index) {
  const std::int64_t channels = options_.heads * options_.d_key;
  query = at::empty({channels, options_.d_in});
  // Xavier uniform (Glorot & Bengio 2010) over one head's network.
  const double bound = std::sqrt(6.0 / static_cast<double>(options_.d_in + options_.d_key));
  kernels::fill_uniform(static_cast<std::uint64_t>(options_.seed), index_, 0, kQuery,
                        static_cast<float>(bound), values(query));
  register_parameter("query", query);
  if (options_.query_norm != QueryNorm::none) {
    gamma = register_parameter("gamma", at::ones({channels}));
  }
  if (options_.query_norm == QueryNorm::batch || options_.query_norm == QueryNorm::layer) {
    beta = register_parameter("beta", at::zeros({channels}));
  }
  if (options_.query_norm == QueryNorm::batch) {
    running_mean = register_buffer("running_mean", at::zeros({channels}));
    running_var = register_buffer("running_var", at::ones({channels}));
  }
}

std::string Router::prefix(std::uint32_t index) { return numbered("router", index) + "/"; }

std::string Router::col_keys_name(std::size_t block) { return numbered("col_keys", block); }

torch::Tensor Router::new_keys(std::uint32_t block, std::uint32_t part, std::int64_t n) const {
  const std::int64_t sets = options_.sub_keys == SubKeys::per_head ? options_.heads : 1;
  torch::Tensor keys = at::empty({sets, n, options_.d_key / 2});
  kernels::fill_normal(static_cast<std::uint64_t>(options_.seed), index_, block, part,
                       static_cast<float>(options_.key_scale), values(keys));
  return keys;
}

void Router::add_rows(const Generation& generation, bool visible) {
  RowBlock block;
  block.generation = generation.index;
  block.first_row = generation.first_row;
  block.rows = generation.rows;
  block.cols = generation.cols;
  block.visible = visible;
  block.keys = register_parameter(
      numbered("row_keys", row_blocks.size()),
      new_keys(static_cast<std::uint32_t>(row_blocks.size()), kRowKeys, generation.rows));
  row_blocks.push_back(std::move(block));
}

void Router::add_columns(std::uint32_t cols) {
  std::int64_t have = 0;
  for (const torch::Tensor& keys : col_blocks) have += keys.size(1);
  if (cols <= have) return;
  col_blocks.push_back(register_parameter(
      col_keys_name(col_blocks.size()),
      new_keys(static_cast<std::uint32_t>(col_blocks.size()), kColKeys, cols - have)));
}

void Router::unmask(std::uint32_t open_cols) {
  for (RowBlock& block : row_blocks) block.visible = true;
  if (open_cols > 0) row_blocks.back().cols = open_cols;
}

bool Router::has_masked() const {
  for (const RowBlock& block : row_blocks) {
    if (!block.visible) return true;
  }
  return false;
}

std::vector<kernels::KeySegment> Router::segments() const {
  std::vector<kernels::KeySegment> segments;
  std::int64_t begin = 0;
  for (const RowBlock& block : row_blocks) {
    if (block.visible) {
      // Neighbouring blocks of equal width are one run: fewer merges, the same result.
      if (!segments.empty() && segments.back().cols == block.cols &&
          segments.back().key_begin + segments.back().rows == begin &&
          segments.back().first_row + segments.back().rows == block.first_row) {
        segments.back().rows += block.rows;
      } else {
        segments.push_back({begin, block.rows, block.cols, block.first_row});
      }
    }
    begin += block.rows;
  }
  return segments;
}

std::int64_t Router::visible_experts() const {
  std::int64_t experts = 0;
  for (const kernels::KeySegment& segment : segments()) experts += segment.rows * segment.cols;
  return experts;
}

std::vector<torch::Tensor> Router::row_key_blocks() const {
  std::vector<torch::Tensor> keys;
  for (const RowBlock& block : row_blocks) keys.push_back(block.keys);
  return keys;
}

torch::Tensor Router::row_keys() const {
  return row_blocks.size() == 1 ? row_blocks.front().keys : at::cat(row_key_blocks(), 1);
}

torch::Tensor Router::col_keys() const {
  return col_blocks.size() == 1 ? col_blocks.front() : at::cat(col_blocks, 1);
}

kernels::SubKeys Router::packed_rows() const { return packed(row_panels_, row_key_blocks()); }
kernels::SubKeys Router::packed_cols() const { return packed(col_panels_, col_blocks); }

bool Router::up_to_date(const Panels& panels, const std::vector<torch::Tensor>& blocks) {
  if (panels.trained || panels.blocks.size() != blocks.size()) return false;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    // Tensors made in inference mode count no versions.
    if (!panels.blocks[i].is_same(blocks[i]) || blocks[i].is_inference() ||
        panels.versions[i] != blocks[i]._version() ||
        !panels.storages[i].is_alias_of(blocks[i].storage())) {
      return false;
    }
  }
  return true;
}

kernels::SubKeys Router::packed(Panels& panels, const std::vector<torch::Tensor>& blocks) const {
  kernels::SubKeys side;
  for (const torch::Tensor& block : blocks) side.count += block.size(1);
  side.per_head = options_.sub_keys == SubKeys::per_head;
  if (!up_to_date(panels, blocks)) {
    const torch::NoGradGuard no_grad;
    const torch::Tensor keys =
        rounded(blocks.size() == 1 ? blocks.front() : at::cat(blocks, 1), amp).contiguous();
    const std::int64_t sets = keys.size(0), n = keys.size(1), dim = keys.size(2);
    const std::int64_t floats = kernels::panel_floats(n, dim);
    if (!panels.values.defined() || panels.values.size(1) != floats) {
      panels.values = at::empty({sets, floats});
    }
    const float* from = keys.const_data_ptr<float>();
    float* to = panels.values.mutable_data_ptr<float>();
    at::parallel_for(0, sets, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t set = begin; set < end; ++set) {
        kernels::pack_panels(n, dim, from + set * n * dim, to + set * floats);
      }
    });
    panels.blocks = blocks;
    panels.versions.clear();
    panels.storages.clear();
    panels.trained = false;
    for (const torch::Tensor& block : blocks) {
      panels.versions.push_back(block.is_inference() ? 0 : block._version());
      panels.storages.push_back(block.storage());  // kept: its address is not used again
      panels.trained = panels.trained || block.grad().defined();  // a step may be to come
    }
  }
  side.panels = panels.values.const_data_ptr<float>();
  return side;
}

// Also drops the last gradient: an optimizer that still has the tensor moves it no more, and its
// keys count as unchanged.
void Router::stop_gradient(torch::Tensor tensor) {
  tensor.requires_grad_(false);
  tensor.mutable_grad().reset();
}

void Router::fold_and_freeze() {
  const torch::NoGradGuard no_grad;
  if (options_.query_norm == QueryNorm::batch && !folded()) {
    // gamma (W x - mean) / sqrt(var + eps) + beta = (s W) x + (beta - s mean)
    const torch::Tensor scale = gamma / (running_var + options_.norm_eps).sqrt();
    query_bias = register_buffer("query_bias", beta - scale * running_mean);
    query.copy_(query * scale.unsqueeze(1));
  }
  for (auto& parameter : parameters()) stop_gradient(parameter);
}

void Router::freeze_rows() { stop_gradient(row_blocks.back().keys); }

bool Router::assign(const Router& other) {
  const torch::NoGradGuard no_grad;
  const auto own = tensors(), others = other.tensors();
  const bool alike = std::equal(own.begin(), own.end(), others.begin(), others.end(),
                                [](const auto& a, const auto& b) {
                                  return a.first == b.first && a.second.sizes() == b.second.sizes();
                                });
  if (!alike) return false;
  for (std::size_t i = 0; i < own.size(); ++i) own[i].second.copy_(others[i].second);
  for (std::size_t i = 0; i < row_blocks.size(); ++i) {
    row_blocks[i].cols = other.row_blocks[i].cols;
    row_blocks[i].visible = other.row_blocks[i].visible;
  }
  first_draw = other.first_draw;
  keys_changed();
  return true;
}

std::vector<std::pair<std::string, torch::Tensor>> Router::tensors() const {
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
  for (const auto& item : named_parameters())
    tensors.emplace_back(prefix() + item.key(), item.value());
  for (const auto& item : named_buffers())
    tensors.emplace_back(prefix() + item.key(), item.value());
  // By name: the order of registration is another one after loading.
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return tensors;
}

std::vector<std::pair<std::string, torch::Tensor>> Router::trainable() const {
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
  for (const auto& item : named_parameters()) {
    if (item.value().requires_grad()) tensors.emplace_back(prefix() + item.key(), item.value());
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return tensors;
}

}  // namespace perennial
