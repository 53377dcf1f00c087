// SPDX-License-Identifier: Apache-2.0
// Every instruction set the processor has gives the same bits for every kernel.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "expert_pool.h"
#include "inputs.h"
#include "perennial/kernels/matmul.h"
#include "perennial/kernels/norm.h"
#include "perennial/kernels/philox.h"
#include "retrieval.h"
#include "update_pool.h"

namespace perennial::kernels {
namespace {

using Bytes = std::vector<std::uint8_t>;

template <class T>
void append(Bytes& bytes, const std::vector<T>& values) {
  const std::size_t at = bytes.size();
  bytes.resize(at + values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data() + at, values.data(), values.size() * sizeof(T));
}

Bytes matmul_bits() {
  Bytes bytes;
  for (const std::int64_t k : {0, 1, 15, 16, 17, 40, 200}) {
    for (const auto& [m, n] : {std::pair{1, 1}, {3, 35}, {9, 70}}) {
      // Values so small that partial sums underflow, some of them to -0.
      for (const float scale : {1.0f, 1e-22f}) {
        auto a = uniform(m * k + 1, 1), b = uniform(n * k + 1, 2);
        for (float& value : a) value *= scale;
        for (float& value : b) value *= scale;
        const auto bias = uniform(n, 3);
        std::vector<float> out(static_cast<std::size_t>(m * n));
        matmul_nt(m, n, k, a.data(), k, b.data(), k, nullptr, out.data(), n);
        append(bytes, out);
        matmul_nt(m, n, k, a.data(), k, b.data(), k, bias.data(), out.data(), n);
        append(bytes, out);
        matmul_nn(m, n, k, a.data(), k, 1, b.data(), n, out.data(), n, true);
        append(bytes, out);
        matmul_nn(m, n, k, a.data(), 1, m, b.data(), n, out.data(), n, false);
        append(bytes, out);
      }
    }
  }
  return bytes;
}

Bytes retrieve_bits() {
  Bytes bytes;
  for (const RetrievalCase& shape : retrieval_cases()) {
    Retrieval problem(shape, uniform);
    if (!problem.query.empty()) problem.query.back() = std::nanf("");
    const RetrieveArgs args = problem.args();
    retrieve(args, 0, shape.tokens, 0, shape.heads);
    append(bytes, problem.ids);
    append(bytes, problem.row_index);
    for (float& score : problem.scores) score = score == score ? score : 0;  // a NaN has many bits
    append(bytes, problem.scores);
    problem.query = uniform(std::ssize(problem.query), 11);
    const auto dscores = uniform(std::ssize(problem.scores), 21);
    std::vector<float> dquery(problem.query.size()), drow(problem.row_keys.size()),
        dcol(problem.col_keys.size());
    retrieve_backward_query(problem.args(), dscores.data(), 0, shape.tokens, dquery.data());
    retrieve_backward_keys(problem.args(), dscores.data(), shape.tokens, 0, shape.heads,
                           drow.data(), dcol.data());
    append(bytes, dquery);
    append(bytes, drow);
    append(bytes, dcol);
  }
  return bytes;
}

Bytes experts_bits() {
  Bytes bytes;
  for (const ExpertCase& shape : expert_cases()) {
    ExpertPool pool(shape);
    pool.forward(0, shape.tokens);
    pool.backward(0, shape.tokens);
    for (const auto* values :
         {&pool.y, &pool.pre, &pool.gate, &pool.dx, &pool.dweights, &pool.cu, &pool.cv, &pool.cw}) {
      append(bytes, *values);
    }
    std::vector<Use> uses;
    for (std::uint32_t i = 0; i < pool.ids.size(); ++i) uses.push_back({0, i});
    std::vector<float> gradient(static_cast<std::size_t>(shape.layout.stride()));
    const Contribution contribution = pool.contribution();
    expert_gradient(shape.layout, {&contribution, 1}, uses, gradient.data());
    append(bytes, gradient);
  }
  return bytes;
}

Bytes score_bits() {
  Bytes bytes;
  for (const auto function : kScoreFunctions) {
    const auto scores = uniform(5 * 3 * 7, 1);
    std::vector<float> weights(scores.size()), dscores(scores.size());
    score_forward(function, 3, 7, scores.data(), weights.data(), 0, 5);
    score_backward(function, 3, 7, weights.data(), scores.data(), dscores.data(), 0, 5);
    append(bytes, weights);
    append(bytes, dscores);
  }
  return bytes;
}

Bytes norm_bits() {
  Bytes bytes;
  const std::int64_t tokens = 5, heads = 3, dim = 19, channels = heads * dim;
  const auto x = uniform(tokens * channels, 1), gamma = uniform(channels, 2),
             beta = uniform(channels, 3), dy = uniform(tokens * channels, 4);
  std::vector<float> y(x.size()), dx(x.size()), mean(gamma.size()), rstd(gamma.size()),
      dgamma(gamma.size()), dbeta(gamma.size()), rrms(static_cast<std::size_t>(tokens * heads));
  batch_norm_forward(tokens, channels, 0, channels, x.data(), gamma.data(), beta.data(), 1e-5f,
                     y.data(), mean.data(), rstd.data());
  batch_norm_backward(tokens, channels, 0, channels, x.data(), gamma.data(), mean.data(),
                      rstd.data(), dy.data(), dx.data(), dgamma.data(), dbeta.data());
  for (const auto* values : {&y, &dx, &mean, &rstd, &dgamma, &dbeta}) append(bytes, *values);
  affine_forward(0, tokens, channels, x.data(), gamma.data(), beta.data(), y.data());
  append(bytes, y);
  rms_norm_forward(0, tokens, heads, dim, x.data(), gamma.data(), 1e-5f, y.data(), rrms.data());
  rms_norm_backward(0, tokens, heads, dim, x.data(), gamma.data(), rrms.data(), dy.data(),
                    dx.data());
  rms_norm_backward_gamma(tokens, heads, dim, 0, channels, x.data(), rrms.data(), dy.data(),
                          dgamma.data());
  for (const auto* values : {&y, &rrms, &dx, &dgamma}) append(bytes, *values);
  std::vector<float> centre(rrms.size());
  layer_norm_forward(0, tokens, heads, dim, x.data(), gamma.data(), beta.data(), 1e-5f, y.data(),
                     centre.data(), rrms.data());
  layer_norm_backward(0, tokens, heads, dim, x.data(), gamma.data(), centre.data(), rrms.data(),
                      dy.data(), dx.data());
  layer_norm_backward_affine(tokens, heads, dim, 0, channels, x.data(), centre.data(), rrms.data(),
                             dy.data(), dgamma.data(), dbeta.data());
  for (const auto* values : {&y, &centre, &rrms, &dx, &dgamma, &dbeta}) append(bytes, *values);
  return bytes;
}

Bytes optimizer_bits() {
  Bytes bytes;
  for (const auto& [name, rule] : rule_cases()) {
    for (const ExpertLayout& layout : update_layouts()) {
      UpdatePool pool(rule, layout);
      for (std::uint32_t step = 1; step <= 5; ++step) {
        pool.draw(step);
        pool.update();
      }
      append(bytes, pool.weights);
      append(bytes, pool.state);
    }
  }
  return bytes;
}

Bytes philox_bits() {
  Bytes bytes;
  for (const std::size_t n : {1u, 130u, 100000u}) {
    std::vector<float> values(n);
    fill_normal(1, 2, 3, 4, 0.1f, values);
    append(bytes, values);
    fill_uniform(1, 2, 3, 4, 0.1f, values);
    append(bytes, values);
  }
  std::vector<double> quantiles;
  for (std::uint32_t i = 0; i < 10000; ++i) quantiles.push_back(normal_quantile(i * 429496u));
  append(bytes, quantiles);
  return bytes;
}

TEST(Bits, AreTheSameOnEveryInstructionSet) {
  const std::map<std::string, std::function<Bytes()>> kernels{
      {"matmul", matmul_bits}, {"retrieve", retrieve_bits}, {"experts", experts_bits},
      {"scores", score_bits},  {"norm", norm_bits},         {"optimizer", optimizer_bits},
      {"philox", philox_bits}};
  const std::int64_t supported = hwy::SupportedTargets();
  std::map<std::string, Bytes> first;
  int targets = 0;
  for (int bit = 0; bit < 63; ++bit) {
    const std::int64_t target = std::int64_t{1} << bit;
    // A target that the kernels are not compiled for runs their fallback, which is one more check.
    if ((supported & target) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    ++targets;
    for (const auto& [name, run] : kernels) {
      const Bytes bytes = run();
      ASSERT_FALSE(bytes.empty());
      if (targets == 1) {
        first[name] = bytes;
      } else {
        EXPECT_TRUE(bytes == first[name]) << name << " on " << hwy::TargetName(target);
      }
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  EXPECT_GE(targets, 1);
  RecordProperty("targets", targets);
}

}  // namespace
}  // namespace perennial::kernels
