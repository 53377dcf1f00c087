// SPDX-License-Identifier: Apache-2.0
// Batch, layer and RMS norm of queries. Sums are plain double loops of fixed order; only the affine
// map needs a fused multiply-add and so is compiled per target.
#include "perennial/kernels/norm.h"

#include <cmath>
#include <vector>

#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norm.cc"
#include "hwy/foreach_target.h"
#include "lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

template <class D>
HWY_INLINE void affine_step(D d, const float* x, const float* scale, const float* shift, float* y) {
  hn::StoreU(fused_multiply_add(d, hn::LoadU(d, x), hn::LoadU(d, scale), hn::LoadU(d, shift)), d,
             y);
}

void affine_target(std::int64_t begin, std::int64_t end, std::int64_t channels, const float* x,
                   const float* scale, const float* shift, float* y) {
  for (std::int64_t t = begin; t < end; ++t) {
    const float* in = x + t * channels;
    float* out = y + t * channels;
    std::int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      affine_step(FloatTag(), in + c, scale + c, shift + c, out + c);
    }
    for (; c < channels; ++c) affine_step(OneTag(), in + c, scale + c, shift + c, out + c);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(affine_target);

namespace {

// Sum of f(0) .. f(n - 1) in eight double lanes that fold by halves: a chain of dependent
// additions would bound the speed.
template <class F>
double lane_sum(std::int64_t n, F f) {
  double lanes[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (std::int64_t l = 0; l < 8; ++l) lanes[l] += f(i + l);
  }
  for (std::int64_t l = 0; i < n; ++i, ++l) lanes[l] += f(i);
  for (int half = 4; half >= 1; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

}  // namespace

void batch_norm_forward(std::int64_t tokens, std::int64_t channels, std::int64_t begin,
                        std::int64_t end, const float* x, const float* gamma, const float* beta,
                        float eps, float* y, float* mean, float* rstd) {
  const auto width = static_cast<std::size_t>(end - begin);
  std::vector<double> centre(width), square(width);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* row = x + t * channels + begin;
    for (std::size_t c = 0; c < width; ++c) centre[c] += row[c];
  }
  for (double& value : centre) value /= static_cast<double>(tokens);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* row = x + t * channels + begin;
    for (std::size_t c = 0; c < width; ++c) {
      const double delta = row[c] - centre[c];
      square[c] += delta * delta;
    }
  }
  for (std::size_t c = 0; c < width; ++c) {
    const double variance = square[c] / static_cast<double>(tokens);
    mean[begin + static_cast<std::int64_t>(c)] = static_cast<float>(centre[c]);
    rstd[begin + static_cast<std::int64_t>(c)] =
        static_cast<float>(1.0 / std::sqrt(variance + static_cast<double>(eps)));
  }
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* row = x + t * channels;
    float* out = y + t * channels;
    for (std::int64_t c = begin; c < end; ++c) {
      out[c] = gamma[c] * ((row[c] - mean[c]) * rstd[c]) + beta[c];
    }
  }
}

void batch_norm_backward(std::int64_t tokens, std::int64_t channels, std::int64_t begin,
                         std::int64_t end, const float* x, const float* gamma, const float* mean,
                         const float* rstd, const float* dy, float* dx, float* dgamma,
                         float* dbeta) {
  const auto width = static_cast<std::size_t>(end - begin);
  std::vector<double> sum(width), dot(width);  // of dy, and of dy * normalised x
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* row = x + t * channels + begin;
    const float* grad = dy + t * channels + begin;
    for (std::size_t c = 0; c < width; ++c) {
      sum[c] += grad[c];
      dot[c] += static_cast<double>(grad[c]) * (static_cast<double>(row[c]) - mean[begin + c]) *
                rstd[begin + c];
    }
  }
  for (std::size_t c = 0; c < width; ++c) {
    dbeta[begin + c] = static_cast<float>(sum[c]);
    dgamma[begin + c] = static_cast<float>(dot[c]);
    sum[c] /= static_cast<double>(tokens);
    dot[c] /= static_cast<double>(tokens);
  }
  // dx = gamma rstd (dy - mean(dy) - xhat mean(dy xhat))
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* row = x + t * channels + begin;
    const float* grad = dy + t * channels + begin;
    float* out = dx + t * channels + begin;
    for (std::size_t c = 0; c < width; ++c) {
      const double scale = rstd[begin + c];
      const double normalised = (static_cast<double>(row[c]) - mean[begin + c]) * scale;
      out[c] =
          static_cast<float>(gamma[begin + c] * scale * (grad[c] - sum[c] - normalised * dot[c]));
    }
  }
}

void affine_forward(std::int64_t begin, std::int64_t end, std::int64_t channels, const float* x,
                    const float* scale, const float* shift, float* y) {
  HWY_DYNAMIC_DISPATCH(affine_target)(begin, end, channels, x, scale, shift, y);
}

void rms_norm_forward(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim,
                      const float* x, const float* gamma, float eps, float* y, float* rrms) {
  for (std::int64_t t = begin; t < end; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* row = x + (t * heads + h) * dim;
      const float* scale = gamma + h * dim;
      float* out = y + (t * heads + h) * dim;
      const double squares =
          lane_sum(dim, [row](std::int64_t i) { return static_cast<double>(row[i]) * row[i]; });
      const auto factor = static_cast<float>(
          1.0 / std::sqrt(squares / static_cast<double>(dim) + static_cast<double>(eps)));
      rrms[t * heads + h] = factor;
      for (std::int64_t i = 0; i < dim; ++i) out[i] = scale[i] * (row[i] * factor);
    }
  }
}

void rms_norm_backward(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim,
                       const float* x, const float* gamma, const float* rrms, const float* dy,
                       float* dx) {
  for (std::int64_t t = begin; t < end; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* row = x + (t * heads + h) * dim;
      const float* scale = gamma + h * dim;
      const float* grad = dy + (t * heads + h) * dim;
      float* out = dx + (t * heads + h) * dim;
      const double factor = rrms[t * heads + h];
      const double dot = lane_sum(
          dim, [=](std::int64_t i) { return static_cast<double>(grad[i]) * scale[i] * row[i]; });
      // dx = r (gamma dy - x r^2 mean(gamma dy x))
      const double pull = dot * factor * factor / static_cast<double>(dim);
      for (std::int64_t i = 0; i < dim; ++i) {
        out[i] =
            static_cast<float>(factor * (static_cast<double>(grad[i]) * scale[i] - row[i] * pull));
      }
    }
  }
}

void rms_norm_backward_gamma(std::int64_t tokens, std::int64_t heads, std::int64_t dim,
                             std::int64_t begin, std::int64_t end, const float* x,
                             const float* rrms, const float* dy, float* dgamma) {
  const std::int64_t channels = heads * dim;
  const auto width = static_cast<std::size_t>(end - begin);
  std::vector<double> sum(width);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* row = x + t * channels;
    const float* grad = dy + t * channels;
    for (std::int64_t c = begin; c < end; ++c) {
      sum[static_cast<std::size_t>(c - begin)] +=
          static_cast<double>(grad[c]) * row[c] * rrms[t * heads + c / dim];
    }
  }
  for (std::size_t c = 0; c < width; ++c) {
    dgamma[begin + static_cast<std::int64_t>(c)] = static_cast<float>(sum[c]);
  }
}

void layer_norm_forward(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim,
                        const float* x, const float* gamma, const float* beta, float eps, float* y,
                        float* mean, float* rstd) {
  const auto n = static_cast<double>(dim);
  for (std::int64_t r = begin * heads; r < end * heads; ++r) {
    const float* row = x + r * dim;
    const float* scale = gamma + r % heads * dim;
    const float* shift = beta + r % heads * dim;
    float* out = y + r * dim;
    const double centre = lane_sum(dim, [=](std::int64_t i) { return double{row[i]}; }) / n;
    const double squares =
        lane_sum(dim, [=](std::int64_t i) { return (row[i] - centre) * (row[i] - centre); });
    mean[r] = static_cast<float>(centre);
    rstd[r] = static_cast<float>(1.0 / std::sqrt(squares / n + static_cast<double>(eps)));
    for (std::int64_t i = 0; i < dim; ++i) {
      out[i] = scale[i] * ((row[i] - mean[r]) * rstd[r]) + shift[i];
    }
  }
}

void layer_norm_backward(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim,
                         const float* x, const float* gamma, const float* mean, const float* rstd,
                         const float* dy, float* dx) {
  const auto n = static_cast<double>(dim);
  for (std::int64_t r = begin * heads; r < end * heads; ++r) {
    const float* row = x + r * dim;
    const float* scale = gamma + r % heads * dim;
    const float* grad = dy + r * dim;
    float* out = dx + r * dim;
    const double centre = mean[r], factor = rstd[r];
    const auto pulled = [=](std::int64_t i) { return double{grad[i]} * scale[i]; };
    const auto normalised = [=](std::int64_t i) { return (row[i] - centre) * factor; };
    const double sum = lane_sum(dim, pulled) / n;
    const double dot = lane_sum(dim, [=](std::int64_t i) { return pulled(i) * normalised(i); }) / n;
    // dx = rstd (gamma dy - mean(gamma dy) - xhat mean(gamma dy xhat))
    for (std::int64_t i = 0; i < dim; ++i) {
      out[i] = static_cast<float>(factor * (pulled(i) - sum - normalised(i) * dot));
    }
  }
}

void layer_norm_backward_affine(std::int64_t tokens, std::int64_t heads, std::int64_t dim,
                                std::int64_t begin, std::int64_t end, const float* x,
                                const float* mean, const float* rstd, const float* dy,
                                float* dgamma, float* dbeta) {
  const std::int64_t channels = heads * dim;
  for (std::int64_t c = begin; c < end; ++c) {
    double sum = 0, dot = 0;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const double grad = dy[t * channels + c];
      const std::int64_t r = t * heads + c / dim;
      sum += grad;
      dot += grad * (double{x[t * channels + c]} - mean[r]) * rstd[r];
    }
    dbeta[c] = static_cast<float>(sum);
    dgamma[c] = static_cast<float>(dot);
  }
}

}  // namespace perennial::kernels
#endif
