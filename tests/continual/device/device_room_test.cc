// SPDX-License-Identifier: Apache-2.0
// What becomes of a run that its device has no room for.
#include <gmock/gmock.h>

#include "device_run_testing.h"
#include "host_device.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DeviceRoomTest : public ::testing::Test {
 protected:
  void SetUp() override {
    config_ = small_config({"", [](RunConfig&) {}});
  }
  void TearDown() override { cuda::host_device() = {}; }

  // The weights of a generation: 6 x 6 experts of 12 + 4 floats, in pages of 4.
  static constexpr std::int64_t kWeights = 6 * 8 * 16 * 4;
  RunConfig config_;
};

TEST_F(DeviceRoomTest, IsRefusedBeforeAnythingStarts) {
  for (const std::int64_t room : {kWeights - 1, kWeights + 1}) {  // without room for Adam's state
    cuda::host_device().available = room;
    const auto store = storage::make_memory_store();
    try {
      RunSettings settings;
      settings.placement = on_device();
      const Trainer trainer(config_, make_stream(config_), store.get(), settings);
      ADD_FAILURE() << "accepted with room for " << room << " bytes";
    } catch (const DeviceError& error) {
      EXPECT_THAT(error.what(), HasSubstr(std::to_string(room)));
    }
    EXPECT_FALSE(store->head().ok());
  }
}

TEST_F(DeviceRoomTest, RefusesToCountPagesThatChangeOnTheDevice) {
  RunSettings settings;
  settings.placement = on_device();
  settings.commit_dirty_bytes = 1;
  EXPECT_THROW(Trainer(config_, make_stream(config_), nullptr, settings), InvalidOptions);
}

TEST_F(DeviceRoomTest, TakesTheCpuWhereThatIsAllowed) {
  const auto store = storage::make_memory_store(), here = storage::make_memory_store();
  std::vector<std::string> warnings;
  RunSettings settings;
  settings.placement = on_device();
  settings.placement.or_cpu = true;
  settings.on_warning = [&](const std::string& warning) { warnings.push_back(warning); };
  cuda::host_device().available = kWeights - 1;
  const RunResult result = Trainer(config_, make_stream(config_), store.get(), settings).run();
  EXPECT_TRUE(result.placement.device.is_cpu());
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("computing on the CPU: generation 0 needs")));
  EXPECT_EQ(result.state_digest, run(config_, here.get()).state_digest);

  warnings.clear();
  const LearntModel learnt = load_learnt(*store, 0, settings.placement, settings.on_warning);
  EXPECT_FALSE(learnt.placement.place);
  EXPECT_EQ(warnings.size(), 1U);
  settings.placement.or_cpu = false;
  EXPECT_THROW(load_learnt(*store, 0, settings.placement), DeviceError);
}

}  // namespace
}  // namespace perennial::continual
