// SPDX-License-Identifier: Apache-2.0
// Event files, read back by a decoder of the test's own, down to the bytes of a known record.
#include "perennial/continual/tensorboard.h"

#include <gtest/gtest.h>

#include <bit>
#include <boost/json/parse.hpp>
#include <optional>
#include <stdexcept>

#include "continual/metrics/tensorboard_reader.h"

namespace perennial::continual {
namespace {

TEST(Tensorboard, MasksTheCrcOfRfc3720) {
  // RFC 3720 B.4: 32 bytes of zero have CRC-32C 0x8A9136AA, of ones 0x62A8AB43; "123456789" is the
  // usual check value 0xE3069283.
  const auto masked = [](std::uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U; };
  EXPECT_EQ(masked_crc32c(std::string(32, '\0')), masked(0x8A9136AA));
  EXPECT_EQ(masked_crc32c(std::string(32, '\xFF')), masked(0x62A8AB43));
  EXPECT_EQ(masked_crc32c("123456789"), masked(0xE3069283));
}

TEST(Tensorboard, AScalarIsTheseBytes) {
  // wall_time 1.5, step 300, tag "a", value 0.25.
  const std::string event = {0x09, 0,
                             0,    0,
                             0,    0,
                             0,    static_cast<char>(0xF8),
                             0x3F,  // 1: double 1.5
                             0x10, static_cast<char>(0xAC),
                             0x02,        // 2: varint 300
                             0x2A, 0x0A,  // 5: summary of 10 bytes
                             0x0A, 0x08,  //   1: value of 8 bytes
                             0x0A, 0x01,
                             'a',  //     1: tag
                             0x15, 0,
                             0,    static_cast<char>(0x80),
                             0x3E};  //     2: float 0.25
  EXPECT_EQ(tensorboard_record(1.5, {"a", 300, 0.25F}), tfrecord(event));
}

TEST(Tensorboard, ReadsBack) {
  const std::string file = tensorboard_header(10) + tensorboard_record(11.25, {"loss", 0, 2.5F}) +
                           tensorboard_record(12, {"accuracy/test_01", 1'234'567, -0.125F});
  const std::vector<continual::testing::ReadEvent> events = continual::testing::read_events(file);
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_EQ(events[0].wall_time, 10);
  EXPECT_EQ(events[1].wall_time, 11.25);
  EXPECT_EQ(events[1].tag, "loss");
  EXPECT_EQ(events[1].step, 0);
  EXPECT_EQ(events[1].value, 2.5F);
  EXPECT_EQ(events[2].tag, "accuracy/test_01");
  EXPECT_EQ(events[2].step, 1'234'567);
  EXPECT_EQ(events[2].value, -0.125F);
  // The reader would notice damage anywhere.
  for (std::size_t i = 0; i < file.size(); ++i) {
    std::string damaged = file;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    EXPECT_THROW(continual::testing::read_events(damaged), std::runtime_error) << i;
  }
}

TEST(Tensorboard, EventsOfARunBecomeScalars) {
  const auto scalars = [](const char* text) {
    std::string all;
    for (const Scalar& s : scalars_of(boost::json::parse(text).as_object())) {
      all += s.tag + "@" + std::to_string(s.step) + "=" + std::to_string(s.value) + " ";
    }
    return all;
  };
  EXPECT_EQ(scalars(R"({"event":"step","steps":50,"loss":0.5})"), "train/loss@50=0.500000 ");
  EXPECT_EQ(scalars(R"({"event":"evaluate","row":1,"steps":7,"accuracy":[0.5,1]})"),
            "accuracy/test_01@7=0.500000 accuracy/test_02@7=1.000000 ");
  EXPECT_EQ(scalars(R"({"event":"evaluate","row":1,"steps":7,"r2":[0.5,-1],)"
                    R"("rmse":{"net price":[12.5,null],"rent":[3,4]}})"),
            "r2/test_01@7=0.500000 r2/test_02@7=-1.000000 rmse/net price/test_01@7=12.500000 "
            "rmse/rent/test_01@7=3.000000 rmse/rent/test_02@7=4.000000 ");
  EXPECT_EQ(scalars(R"({"event":"anytime","steps":9,"accuracy":[0.5,1]})"),
            "anytime/test_01@9=0.500000 anytime/test_02@9=1.000000 "
            "anytime/mean_of_seen@9=0.750000 ");
  EXPECT_EQ(scalars(R"({"event":"experience","experience":2,"steps":9,"seconds":3,"x":null})"),
            "experience/seconds@2=3.000000 ");
  EXPECT_EQ(scalars(R"({"event":"end","steps":9,"metrics":{"acc":0.5,"bwt.gem":null}})"),
            "metrics/acc@9=0.500000 ");
  EXPECT_EQ(scalars(R"({"event":"commit","commit":2})"), "");
  EXPECT_EQ(scalars(R"({"no":"event"})"), "");
}

}  // namespace
}  // namespace perennial::continual
