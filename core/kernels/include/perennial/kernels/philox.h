// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011) and the exact initial values
// made of them: a function of (seed, counter) only, the same bits on every machine.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace perennial::kernels {

// One block: four 32-bit words of stream `seed` at a 128-bit counter.
std::array<std::uint32_t, 4> philox(std::uint64_t seed, std::array<std::uint32_t, 4> counter);

// Standard normal quantile of (word + 0.5) / 2^32, by algorithm AS 241 (Wichura 1988, PPND7, about
// seven digits) in double with a logarithm of our own: only +, -, *, / and sqrt, each exactly
// rounded, so no mathematics library decides a bit.
double normal_quantile(std::uint32_t word);

// out[i] = scale * N(0, 1), element i taken from word i % 4 of counter (i / 4, a, b, c).
void fill_normal(std::uint64_t seed, std::uint32_t a, std::uint32_t b, std::uint32_t c, float scale,
                 std::span<float> out);
// out[i] uniform in [-scale, scale]: scale * (word - 2^31) / 2^31, words as above. (The upper end
// appears by rounding to float only.)
// Both round once, from double. At most 2^34 values a call: the first counter word then wraps.
void fill_uniform(std::uint64_t seed, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                  float scale, std::span<float> out);

// A sequential stream of the same generator, for shuffles and sampling. The whole state is seed,
// lane and position, so it stores and resumes exactly. Single-threaded. A seed shared with
// fill_normal shares its counters too: give streams seeds of their own.
class RandomStream {
 public:
  // `lane` tells streams of one seed apart: word i of the stream is word i % 4 of counter
  // (i / 4, lane), each 64 bits wide, low word first.
  explicit RandomStream(std::uint64_t seed, std::uint64_t lane = 0, std::uint64_t position = 0)
      : seed_(seed), lane_(lane), position_(position) {}

  std::uint32_t next();
  // Uniform in [0, bound) without bias (Lemire 2019); bound >= 1.
  std::uint32_t below(std::uint32_t bound);
  std::uint64_t position() const { return position_; }

 private:
  std::uint64_t seed_;
  std::uint64_t lane_;
  std::uint64_t position_;  // words drawn so far
};

// A permutation of 0 .. n-1 (Fisher-Yates over RandomStream(seed, lane)); n < 2^32.
void shuffled_indices(std::uint64_t seed, std::uint64_t lane, std::span<std::uint32_t> out);

}  // namespace perennial::kernels
