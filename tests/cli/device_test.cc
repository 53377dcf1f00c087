// SPDX-License-Identifier: Apache-2.0
// The built program and --device: what is refused, what auto says, and that the CPU is the same run
// however it is asked for; and --amp.
#include "learning_fixture.h"

namespace perennial::cli {
namespace {

#ifdef PERENNIAL_WITH_CUDA
constexpr bool kWithCuda = true;
#else
constexpr bool kWithCuda = false;
#endif

TEST_F(LearningTest, RefusesADeviceThatCannotBeUsedBeforeThereIsAStore) {
  const auto refuse = [&](const std::string& device, const Args& parts) {
    expect_refused(train("store") + Args{"--device", device}, 2, parts);
    EXPECT_FALSE(fs::exists(folder_ / "store"));
  };
  for (const char* wrong : {"gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", ""}) {
    refuse(wrong, {"--device", "cpu, cuda, cuda:N or auto"});
  }
  if (kWithCuda) {
    // However many devices this machine has.
    refuse("cuda:99", {});
  } else {
    refuse("cuda", {"this build has no CUDA: configure with --preset cuda"});
    refuse("cuda:1", {"this build has no CUDA: configure with --preset cuda"});
  }
  succeed(train("store"));
  for (const Args& command : {Args{"eval", "--store", path("store")},
                              Args{"predict", "--store", path("store"), "--input", path("none")},
                              Args{"demo", "--store", path("demo")},
                              Args{"bench", "continual", "--protocol", "rotated", "--out",
                                   path("bench"), "--dataset", path("data")}}) {
    expect_refused(command + Args{"--device", "gpu"}, 2, {"--device"});
  }
  EXPECT_FALSE(fs::exists(folder_ / "demo") || fs::exists(folder_ / "bench"));
}

TEST_F(LearningTest, TheDeviceIsNoPartOfTheRun) {
  const json::object plain = succeed(train("plain"));
  EXPECT_EQ(plain.at("device"), "cpu");
  const json::object asked = succeed(train("asked") + Args{"--device", "cpu"});
  EXPECT_EQ(asked.at("state_digest"), plain.at("state_digest"));

  // auto says what it took, and why no device.
  const Finished chosen = run(train("chosen") + Args{"--device", "auto", "--json"});
  ASSERT_EQ(chosen.code, 0) << chosen.err;
  EXPECT_THAT(chosen.err, HasSubstr("note: computing on "));
  const json::object result = chosen.object();
  if (result.at("device") == "cpu") {
    EXPECT_THAT(chosen.err, HasSubstr("note: computing on the CPU: "));
    EXPECT_EQ(chosen.err.find("this build has no CUDA") == std::string::npos, kWithCuda);
    EXPECT_EQ(result.at("state_digest"), plain.at("state_digest"));
  } else {
    EXPECT_EQ(result.at("device"), "cuda:0");
  }
  for (const char* device : {"cpu", "auto"}) {
    const json::object eval =
        succeed({"eval", "--store", path("chosen"), "--device", device, "--threads", "1"});
    EXPECT_NEAR(eval.at("acc").as_double(), plain.at("acc").as_double(), 0.05);
    EXPECT_EQ(eval.at("device") == "cpu",
              device == std::string("cpu") || result.at("device") == "cpu");
  }
}

TEST_F(LearningTest, MixedPrecisionIsPartOfTheRun) {
  const json::object off = succeed(train("off"));
  const json::object low = succeed(train("low") + Args{"--amp", "bf16"});
  EXPECT_NE(low.at("state_digest"), off.at("state_digest"));
  EXPECT_NEAR(low.at("acc").as_double(), off.at("acc").as_double(), 0.1);
  EXPECT_EQ(succeed({"train", "--store", path("low"), "--threads", "1"}).at("state_digest"),
            low.at("state_digest"));
  expect_refused({"train", "--store", path("low"), "--amp", "off"}, 2,
                 {"train.amp: \"bf16\" stored, \"off\" asked for"});
  expect_refused(train("other") + Args{"--amp", "fp16"}, 2, {"--amp", "bf16"});
}

}  // namespace
}  // namespace perennial::cli
