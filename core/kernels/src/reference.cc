// SPDX-License-Identifier: Apache-2.0
// The reference kernels: obvious loops.
#include "perennial/kernels/reference.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <utility>

#include "pair_order.h"

namespace perennial::kernels::reference {
namespace {

template <class T>
double dot(const T* a, const T* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

double tanh_argument(double x) {
  return std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
}

double score_of(ScoreFunction function, double score) {
  if (function == ScoreFunction::sigmoid) return 1 / (1 + std::exp(-score));
  return function == ScoreFunction::relu && score < 0 ? 0 : score;
}

}  // namespace

template <class T>
std::vector<Retrieved<T>> retrieve(std::span<const T> query, std::span<const T> row_keys,
                                   std::span<const T> col_keys, std::int64_t sub_dim,
                                   std::span<const KeySegment> segments, std::int64_t k) {
  struct Candidate {
    Pair pair;
    bool lowest;
    Retrieved<T> retrieved;
  };
  std::vector<Candidate> all;
  for (const KeySegment& segment : segments) {
    for (std::int64_t r = 0; r < segment.rows; ++r) {
      const std::int64_t row_index = segment.key_begin + r;
      const auto row =
          static_cast<T>(dot(query.data(), row_keys.data() + row_index * sub_dim, sub_dim));
      for (std::int64_t c = 0; c < segment.cols; ++c) {
        const auto col =
            static_cast<T>(dot(query.data() + sub_dim, col_keys.data() + c * sub_dim, sub_dim));
        const std::int64_t id = expert_id(segment.first_row + static_cast<std::uint32_t>(r),
                                          static_cast<std::uint32_t>(c));
        all.push_back({Pair(row, col, id),
                       is_lowest(row) || is_lowest(col),
                       {id, row_index, c, static_cast<double>(row) + static_cast<double>(col)}});
      }
    }
  }
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    if (a.lowest != b.lowest) return b.lowest;
    return a.lowest ? id_before(a.pair.id, b.pair.id) : a.pair.before(b.pair);
  });
  std::vector<Retrieved<T>> best;
  for (std::size_t i = 0; i < all.size() && i < static_cast<std::size_t>(k); ++i) {
    best.push_back(all[i].retrieved);
  }
  return best;
}

template <class T>
T activate(Activation activation, T x) {
  switch (activation) {
    case Activation::relu:
      return x < 0 ? T{0} : x;
    case Activation::gelu:
      return static_cast<T>(0.5 * x * (1 + std::erf(x / std::numbers::sqrt2)));
    case Activation::identity:
      return x;
    case Activation::gelu_tanh:
      return static_cast<T>(0.5 * x * (1 + std::tanh(tanh_argument(x))));
    case Activation::silu:
      return static_cast<T>(x / (1 + std::exp(-static_cast<double>(x))));
  }
  return x;
}

template <class T>
T activate_derivative(Activation activation, T x) {
  switch (activation) {
    case Activation::relu:
      return x > 0 ? T{1} : T{0};
    case Activation::gelu:
      return static_cast<T>(0.5 * (1 + std::erf(x / std::numbers::sqrt2)) +
                            x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi));
    case Activation::identity:
      return T{1};
    case Activation::gelu_tanh: {
      const double t = std::tanh(tanh_argument(x));
      const double slope = std::sqrt(2 / std::numbers::pi) * (1 + 3 * 0.044715 * x * x);
      return static_cast<T>(0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope);
    }
    case Activation::silu: {
      const double s = 1 / (1 + std::exp(-static_cast<double>(x)));
      return static_cast<T>(s + x * s * (1 - s));
    }
  }
  return T{1};
}

template <class T>
std::vector<T> score(ScoreFunction function, std::span<const T> scores) {
  std::vector<double> weights(scores.size());
  double sum = 0, top = scores.empty() ? 0 : scores[0];
  for (const T value : scores) top = std::max(top, static_cast<double>(value));
  for (std::size_t i = 0; i < scores.size(); ++i) {
    weights[i] = function == ScoreFunction::softmax
                     ? std::exp(static_cast<double>(scores[i]) - top)
                     : score_of(function, static_cast<double>(scores[i]));
    sum += weights[i];
  }
  std::vector<T> out(scores.size());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    out[i] = static_cast<T>(function == ScoreFunction::softmax ? weights[i] / sum : weights[i]);
  }
  return out;
}

template <class T>
std::vector<T> score_backward(ScoreFunction function, std::span<const T> weights,
                              std::span<const T> dweights) {
  const double mean = dot(weights.data(), dweights.data(), std::ssize(weights));
  std::vector<T> out(weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double g = weights[i], dg = dweights[i];
    double slope = function == ScoreFunction::sigmoid ? g * (1 - g) : 1;
    if (function == ScoreFunction::relu && g == 0) slope = 0;
    out[i] = static_cast<T>(function == ScoreFunction::softmax ? g * (dg - mean) : slope * dg);
  }
  return out;
}

template <class T>
std::vector<T> experts_forward(const ExpertLayout& layout, Activation activation,
                               std::span<const T* const> experts, std::span<const T> weights,
                               std::span<const T> x) {
  std::vector<double> sum(static_cast<std::size_t>(layout.d_out));
  for (std::size_t s = 0; s < experts.size(); ++s) {
    for (std::int64_t j = 0; j < layout.width; ++j) {
      const T* u = experts[s] + layout.u() + j * layout.d_in;
      const T* v = experts[s] + layout.v() + j * layout.d_out;
      const T* w = experts[s] + layout.w() + j * layout.d_in;
      const auto pre = static_cast<T>(dot(u, x.data(), layout.d_in));
      double hidden = reference::activate<T>(activation, pre);
      if (layout.glu) hidden *= dot(w, x.data(), layout.d_in);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weights[s] * hidden * v[i];
    }
  }
  return std::vector<T>(sum.begin(), sum.end());
}

template <class T>
ExpertsBackward<T> experts_backward(const ExpertLayout& layout, Activation activation,
                                    std::span<const T* const> experts, std::span<const T> weights,
                                    std::span<const T> x, std::span<const T> dy) {
  std::vector<double> dx(static_cast<std::size_t>(layout.d_in));
  ExpertsBackward<T> out;
  for (std::size_t s = 0; s < experts.size(); ++s) {
    std::vector<T> gradient(static_cast<std::size_t>(layout.stride()));
    double dweight = 0;
    for (std::int64_t j = 0; j < layout.width; ++j) {
      const std::int64_t at_u = layout.u() + j * layout.d_in, at_v = layout.v() + j * layout.d_out,
                         at_w = layout.w() + j * layout.d_in;
      const T *u = experts[s] + at_u, *v = experts[s] + at_v, *w = experts[s] + at_w;
      const auto pre = static_cast<T>(dot(u, x.data(), layout.d_in));
      const double act = reference::activate<T>(activation, pre);
      const double slope = reference::activate_derivative<T>(activation, pre);
      const double gate = layout.glu ? dot(w, x.data(), layout.d_in) : 1.0;
      const double t = dot(v, dy.data(), layout.d_out);
      const double cu = weights[s] * t * slope * gate;
      const double cv = weights[s] * act * gate;
      const double cw = weights[s] * t * act;
      dweight += t * act * gate;
      T* const du = gradient.data() + at_u;
      T* const dv = gradient.data() + at_v;
      T* const dw = gradient.data() + at_w;
      for (std::size_t i = 0; i < dx.size(); ++i) {
        dx[i] += cu * u[i];
        du[i] = static_cast<T>(cu * x[i]);
        if (layout.glu) {
          dx[i] += cw * w[i];
          dw[i] = static_cast<T>(cw * x[i]);
        }
      }
      for (std::size_t i = 0; i < dy.size(); ++i) dv[i] = static_cast<T>(cv * dy[i]);
    }
    out.dweights.push_back(static_cast<T>(dweight));
    out.dexperts.push_back(std::move(gradient));
  }
  out.dx.assign(dx.begin(), dx.end());
  return out;
}

#define PERENNIAL_INSTANTIATE(T)                                                                 \
  template std::vector<Retrieved<T>> retrieve(std::span<const T>, std::span<const T>,            \
                                              std::span<const T>, std::int64_t,                  \
                                              std::span<const KeySegment>, std::int64_t);        \
  template T activate(Activation, T);                                                            \
  template T activate_derivative(Activation, T);                                                 \
  template std::vector<T> score(ScoreFunction, std::span<const T>);                              \
  template std::vector<T> score_backward(ScoreFunction, std::span<const T>, std::span<const T>); \
  template std::vector<T> experts_forward(const ExpertLayout&, Activation,                       \
                                          std::span<const T* const>, std::span<const T>,         \
                                          std::span<const T>);                                   \
  template ExpertsBackward<T> experts_backward(const ExpertLayout&, Activation,                  \
                                               std::span<const T* const>, std::span<const T>,    \
                                               std::span<const T>, std::span<const T>);
PERENNIAL_INSTANTIATE(float)
PERENNIAL_INSTANTIATE(double)
#undef PERENNIAL_INSTANTIATE

}  // namespace perennial::kernels::reference
