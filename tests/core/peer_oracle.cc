// SPDX-License-Identifier: Apache-2.0
// The oracle's loops.
#include "core/peer_oracle.h"

#include <cmath>

#include "core/core_testing.h"
#include "perennial/kernels/reference.h"

namespace perennial::testing {

namespace reference = kernels::reference;

std::vector<double> to_doubles(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kDouble).contiguous().view(-1);
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

PeerOracle::PeerOracle(PeerImpl& peer, const at::Tensor& x, bool training)
    : options_(peer.options()), tokens_(x.size(0)) {
  const auto parameters = peer.named_parameters();
  const auto buffers = peer.named_buffers();
  values["x"] = to_doubles(x);
  values["query"] = to_doubles(parameters["router_0.query"]);
  if (options_.query_norm != QueryNorm::none)
    values["gamma"] = to_doubles(parameters["router_0.gamma"]);
  if (parameters.contains("router_0.beta"))
    values["beta"] = to_doubles(parameters["router_0.beta"]);
  if (options_.query_norm == QueryNorm::batch) {
    batch_statistics_ = training;
    mean_ = to_doubles(buffers["router_0.running_mean"]);
    var_ = to_doubles(buffers["router_0.running_var"]);
  }
  std::vector<at::Tensor> rows, cols;
  for (const auto& item : parameters) {
    if (item.key().find(".row_keys_") != std::string::npos) rows.push_back(item.value());
    if (item.key().find(".col_keys_") != std::string::npos) cols.push_back(item.value());
  }
  const at::Tensor row_keys = at::cat(rows, 1), col_keys = at::cat(cols, 1);
  row_keys_ = row_keys.size(1);
  col_keys_ = col_keys.size(1);
  values["row_keys"] = to_doubles(row_keys);
  values["col_keys"] = to_doubles(col_keys);
  retrieve();
  for (const std::int64_t id : ids_) {
    const ExpertValues expert = peer.pool().experts_at({id});
    std::vector<double>& record = values[std::to_string(id)];
    record = to_doubles(expert.u);
    for (const at::Tensor& part : {expert.v, expert.w}) {
      if (!part.defined()) continue;
      const std::vector<double> more = to_doubles(part);
      record.insert(record.end(), more.begin(), more.end());
    }
  }
}

std::vector<double> PeerOracle::normed_query() const {
  const std::int64_t channels = options_.heads * options_.d_key, d_in = options_.d_in;
  const std::vector<double>&x = values.at("x"), &weight = values.at("query");
  std::vector<double> query(static_cast<std::size_t>(tokens_ * channels));
  const auto q = [&](std::int64_t b, std::int64_t c) -> double& {
    return query[static_cast<std::size_t>(b * channels + c)];
  };
  for (std::int64_t b = 0; b < tokens_; ++b) {
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t i = 0; i < d_in; ++i) {
        q(b, c) += x[static_cast<std::size_t>(b * d_in + i)] *
                   weight[static_cast<std::size_t>(c * d_in + i)];
      }
    }
  }
  const double eps = options_.norm_eps;
  const bool layer = options_.query_norm == QueryNorm::layer;
  if (layer || options_.query_norm == QueryNorm::rms) {
    const std::vector<double>& gamma = values.at("gamma");
    const auto dim = static_cast<double>(options_.d_key);
    for (std::int64_t b = 0; b < tokens_; ++b) {
      for (std::int64_t h = 0; h < options_.heads; ++h) {
        const std::int64_t begin = h * options_.d_key, end = begin + options_.d_key;
        double mean = 0, squares = 0;
        for (std::int64_t c = begin; c < end && layer; ++c) mean += q(b, c) / dim;
        for (std::int64_t c = begin; c < end; ++c) {
          squares += (q(b, c) - mean) * (q(b, c) - mean) / dim;
        }
        for (std::int64_t c = begin; c < end; ++c) {
          const auto at = static_cast<std::size_t>(c);
          q(b, c) = gamma[at] * (q(b, c) - mean) / std::sqrt(squares + eps);
          if (layer) q(b, c) += values.at("beta")[at];
        }
      }
    }
  } else if (options_.query_norm == QueryNorm::batch) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const auto at = static_cast<std::size_t>(c);
      double mean = mean_[at], var = var_[at];
      if (batch_statistics_) {
        mean = var = 0;
        for (std::int64_t b = 0; b < tokens_; ++b) mean += q(b, c) / static_cast<double>(tokens_);
        for (std::int64_t b = 0; b < tokens_; ++b) {
          var += (q(b, c) - mean) * (q(b, c) - mean) / static_cast<double>(tokens_);
        }
      }
      const double scale = values.at("gamma")[at] / std::sqrt(var + eps);
      for (std::int64_t b = 0; b < tokens_; ++b) {
        q(b, c) = scale * (q(b, c) - mean) + values.at("beta")[at];
      }
    }
  }
  return query;
}

namespace {

// The keys of one head, of `keys` (H or 1, n, D).
std::span<const double> head_keys(const std::vector<double>& keys, std::int64_t n, std::int64_t dim,
                                  std::int64_t head) {
  const auto size = static_cast<std::size_t>(n * dim);
  const std::size_t begin = keys.size() == size ? 0 : static_cast<std::size_t>(head) * size;
  return std::span(keys).subspan(begin, size);
}

}  // namespace

void PeerOracle::retrieve() {
  const std::vector<double> query = normed_query();
  const std::int64_t dim = options_.d_key / 2;
  const std::vector<kernels::KeySegment> all = {{0, row_keys_, col_keys_, 0}};
  for (std::int64_t b = 0; b < tokens_; ++b) {
    for (std::int64_t h = 0; h < options_.heads; ++h) {
      const auto begin = static_cast<std::size_t>((b * options_.heads + h) * options_.d_key);
      for (const auto& found : reference::retrieve<double>(
               std::span(query).subspan(begin, static_cast<std::size_t>(options_.d_key)),
               head_keys(values["row_keys"], row_keys_, dim, h),
               head_keys(values["col_keys"], col_keys_, dim, h), dim, all, options_.top_k)) {
        ids_.push_back(found.id);
      }
    }
  }
}

std::vector<double> PeerOracle::forward() const {
  const std::vector<double> query = normed_query();
  const std::int64_t dim = options_.d_key / 2;
  const kernels::ExpertLayout layout{options_.d_in, options_.d_out, options_.glu,
                                     options_.expert_width};
  std::vector<double> y;
  std::size_t slot = 0;
  for (std::int64_t b = 0; b < tokens_; ++b) {
    std::vector<double> weights;
    std::vector<const double*> experts;
    for (std::int64_t h = 0; h < options_.heads; ++h) {
      const double* q = query.data() + (b * options_.heads + h) * options_.d_key;
      std::vector<double> scores;
      for (std::int64_t k = 0; k < options_.top_k; ++k, ++slot) {
        const std::int64_t id = ids_[slot];
        const auto rows = head_keys(values.at("row_keys"), row_keys_, dim, h);
        const auto cols = head_keys(values.at("col_keys"), col_keys_, dim, h);
        double score = 0;
        for (std::int64_t d = 0; d < dim; ++d) {
          score += q[d] * rows[static_cast<std::size_t>(kernels::row_of(id) * dim + d)];
          score += q[dim + d] * cols[static_cast<std::size_t>(kernels::col_of(id) * dim + d)];
        }
        scores.push_back(score);
        experts.push_back(values.at(std::to_string(id)).data());
      }
      for (const double weight : reference::score<double>(options_.score, scores)) {
        const std::size_t at = slot - scores.size() + weights.size() % scores.size();
        weights.push_back(slot_factors.empty() ? weight : weight * slot_factors[at]);
      }
    }
    const auto x = std::span(values.at("x"))
                       .subspan(static_cast<std::size_t>(b * options_.d_in),
                                static_cast<std::size_t>(options_.d_in));
    for (const double value :
         reference::experts_forward<double>(layout, options_.activation, experts, weights, x)) {
      y.push_back(value);
    }
  }
  return y;
}

std::vector<double> PeerOracle::gradient(const std::string& name, const std::vector<double>& dy) {
  // Rounding of about 1e-16 / step against truncation of step^2: both below 1e-9.
  constexpr double kStep = 1e-5;
  const auto loss = [&] {
    const std::vector<double> y = forward();
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  std::vector<double> gradient;
  for (double& value : values.at(name)) {
    const double kept = value;
    value = kept + kStep;
    const double above = loss();
    value = kept - kStep;
    const double below = loss();
    value = kept;
    gradient.push_back((above - below) / (2 * kStep));
  }
  return gradient;
}

}  // namespace perennial::testing
