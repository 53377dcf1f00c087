// SPDX-License-Identifier: Apache-2.0
// Records from frames to rows, and the bits of updated experts.
#include "perennial/kernels/cuda/records.h"

#include <gtest/gtest.h>

#include <vector>

#include "../inputs.h"
#include "../update_pool.h"
#include "device_testing.h"

namespace perennial::kernels::cuda {
namespace {

class CudaRecords : public CudaTest {};

TEST_F(CudaRecords, AreGathered) {
  for (const ExpertLayout& layout : update_layouts()) {
    UpdatePool pool({}, layout);
    DeviceFrames frames(pool.weight_table());
    const std::vector<std::int64_t> ids = {expert_id(1, 5), expert_id(0, 0), expert_id(1, 2)};
    const std::int64_t words = layout.record_floats();
    std::vector<float> expected;
    for (const std::int64_t id : ids) {
      const float* record = pool.weights_of(pool.index(id));
      expected.insert(expected.end(), record, record + words);
    }
    OnDevice<std::int64_t> device_ids(ids);
    OnDevice<float> rows(expected.size());
    ASSERT_CUDA(gather_records(frames.table(), device_ids.data(), 3, rows.data(), nullptr));
    expect_same_bits(rows.read(), expected);
  }
}

TEST_F(CudaRecords, MarksWhatWasUpdated) {
  const OpenGeneration generation{7, 3, 50};
  const std::vector<std::int64_t> ids = {expert_id(7, 0), expert_id(7, 31), expert_id(8, 0),
                                         expert_id(9, 49), expert_id(9, 48)};
  OnDevice<std::int64_t> device_ids(ids);
  OnDevice<std::uint32_t> experts(std::vector<std::uint32_t>{4});  // the last is none of them
  OnDevice<std::uint32_t> bits(std::vector<std::uint32_t>(5, 0));
  ASSERT_CUDA(mark_experts(device_ids.data(), experts.data(), 5, generation, bits.data(), nullptr));
  EXPECT_EQ(bits.read(), (std::vector<std::uint32_t>{0x80000001u, 1u << 18, 0, 0, 1u << 21}));
}

}  // namespace
}  // namespace perennial::kernels::cuda
