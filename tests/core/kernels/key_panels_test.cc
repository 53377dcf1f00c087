// SPDX-License-Identifier: Apache-2.0
// Panels of sub-keys: the documented order of summation bit for bit, at every awkward size.
#include "perennial/kernels/key_panels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "inputs.h"

namespace perennial::kernels {
namespace {

struct Shape {
  std::int64_t tokens, keys, dim;
};

const std::vector<Shape> kShapes{{0, 5, 3},   {1, 1, 1},   {1, 64, 16},  {1, 200, 33},
                                 {2, 63, 5},  {5, 65, 17}, {6, 128, 64}, {7, 129, 31},
                                 {13, 70, 1}, {60, 300, 8}};

TEST(KeyPanels, ScoresFollowTheirDefinitionBitForBit) {
  for (const auto& [tokens, keys, dim] : kShapes) {
    SCOPED_TRACE(testing::Message() << tokens << " x " << keys << " x " << dim);
    const std::int64_t ldq = dim + 3, panels = panels_of(keys), ldo = panels * kPanelKeys + 1;
    Misaligned query(uniform(tokens * ldq + 1, 1)), key(uniform(keys * dim, 2));
    std::vector<float> packed(static_cast<std::size_t>(panel_floats(keys, dim)), 5.0f);
    pack_panels(keys, dim, key.data(), packed.data());
    std::vector<float> out(static_cast<std::size_t>(tokens * ldo), 7.0f), expected = out;
    score_panels(tokens, dim, query.data(), ldq, packed.data(), 0, panels, out.data(), ldo);
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t j = 0; j < panels * kPanelKeys; ++j) {
        float sum = 0;
        for (std::int64_t i = 0; i < dim; ++i) {
          const float k = j < keys ? key.data()[j * dim + i] : 0.0f;
          sum = std::fma(query.data()[t * ldq + i], k, sum);
        }
        expected[static_cast<std::size_t>(t * ldo + j)] = sum;
      }
    }
    expect_same_bits(out, expected);
    if (panels < 2) continue;
    // The later panels alone.
    std::vector<float> later(static_cast<std::size_t>(tokens * ldo), 7.0f);
    score_panels(tokens, dim, query.data(), ldq, packed.data(), 1, panels, later.data(), ldo);
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t j = 0; j < (panels - 1) * kPanelKeys; ++j) {
        const auto at = static_cast<std::size_t>(t * ldo + j);
        ASSERT_EQ(later[at], out[at + static_cast<std::size_t>(kPanelKeys)]);
      }
    }
  }
}

}  // namespace
}  // namespace perennial::kernels
