// SPDX-License-Identifier: Apache-2.0
// The built program using a learnt store: predict, grow, freeze, restore, log, export, reshard.
#include <sstream>

#include "learning_fixture.h"

namespace perennial::cli {
namespace {

TEST_F(LearningTest, WhereTheDataAreIsNoPartOfTheState) {
  from_ = folder_;
  std::string digest;
  for (const std::string& place : Args{"data", "./runs/../data/", path("data")}) {
    SCOPED_TRACE(place);
    fs::create_directories(folder_ / "runs");
    fs::remove_all(folder_ / "store");
    Args args = train("store");
    *(std::find(args.begin(), args.end(), "--dataset") + 1) = place;
    const std::string of_this(succeed(args).at("state_digest").as_string());
    if (digest.empty()) digest = of_this;
    EXPECT_EQ(of_this, digest);
    from_ = "/";  // another folder than it was learnt from
    succeed({"eval", "--store", path("store")});
    EXPECT_EQ(succeed({"train", "--store", path("store"), "--threads", "1"}).at("state_digest"),
              json::value(digest));
    from_ = folder_;
  }
  fs::rename(folder_ / "data", folder_ / "moved");
  EXPECT_EQ(run({"eval", "--store", path("store")}).code, 3);
  succeed({"eval", "--store", path("store"), "--dataset", "moved"});
}

TEST_F(LearningTest, WhatWasMeasuredBeforeAnUnlearningIsShownAsSuch) {
  const json::object learnt = succeed(train("store"));
  succeed({"unlearn", "--store", path("store"), "--generation", "0"});
  const Args again = {"train", "--store", path("store"), "--threads", "1"};
  const Finished shown = run(again);
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("measured before generation 0 was unlearned"));
  const json::object result = succeed(again);
  EXPECT_EQ(result.at("matrix"), learnt.at("matrix"));
  EXPECT_EQ(result.at("unlearned_since"), json::parse("[0]"));

  write_file(folder_ / "rows.csv", csv(test_.pixels.substr(0, kPixels), 1));
  const Args predict = {"predict", "--store",        path("store"),
                        "--input", path("rows.csv"), "--generation"};
  expect_refused(predict + Args{"0"}, 2, {"generation 0 was unlearned"});
  expect_refused(predict + Args{"0", "--output", path("labels.csv")}, 2, {"unlearned"});
  EXPECT_FALSE(fs::exists(folder_ / "labels.csv"));
  EXPECT_EQ(run(predict + Args{"1"}).code, 0);
}

TEST_F(LearningTest, PredictsTheSameFromEveryFormat) {
  const json::object result = succeed(train("store"));
  const std::string pixels = test_.pixels.substr(0, std::size_t{kPredicted} * kPixels);
  write_file(folder_ / "rows.idx", idx({kPredicted, kSide, kSide}, pixels));
  write_file(folder_ / "rows.npy", npy(pixels, kPredicted));
  write_file(folder_ / "rows.csv", csv(pixels, kPredicted));
  const Finished from_idx = run({"predict", "--store", path("store"), "--input", path("rows.idx")});
  ASSERT_EQ(from_idx.code, 0) << from_idx.err;
  EXPECT_EQ(from_idx.err, "");
  for (const char* file : {"rows.npy", "rows.csv"}) {
    const Finished same = run({"predict", "--store", path("store"), "--input", path(file)});
    EXPECT_EQ(same.code, 0) << same.err;
    EXPECT_EQ(same.out, from_idx.out) << file;
  }
  std::istringstream lines(from_idx.out);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(line, "row,label,confidence,generation");
  int rows = 0, right = 0;
  for (; std::getline(lines, line); ++rows) {
    EXPECT_THAT(line, ::testing::MatchesRegex("[0-9]+,[0-2],[01]\\.[0-9]+,[01]"));
    EXPECT_TRUE(line.starts_with(std::to_string(rows) + ","));
    const std::size_t at = line.find(',') + 1;
    right += line[at] - '0' == test_.labels[static_cast<std::size_t>(rows)] ? 1 : 0;
  }
  EXPECT_EQ(rows, kPredicted);
  EXPECT_GE(right, kPredicted * 3 / 4);

  // --output and --quiet give the same rows; --json gives them as an object.
  const Args predict = {"predict", "--store", path("store"), "--input", path("rows.csv")};
  EXPECT_EQ(run(predict + Args{"--quiet"}).out, from_idx.out);
  const Finished to_file = run(predict + Args{"--output", path("labels.csv")});
  EXPECT_EQ(to_file.code, 0) << to_file.err;
  EXPECT_EQ(to_file.out, "");
  EXPECT_EQ(read_file(folder_ / "labels.csv"), from_idx.out);
  const json::array predictions = succeed(predict).at("predictions").as_array();
  ASSERT_EQ(predictions.size(), std::size_t{kPredicted});
  EXPECT_TRUE(predictions[0].at("label").is_string());
  EXPECT_TRUE(predictions[0].at("confidence").is_double());
  EXPECT_TRUE(predictions[0].at("generation").is_int64());
  const json::object told = succeed(predict + Args{"--generation", "1"});
  for (const json::value& row : told.at("predictions").as_array()) {
    EXPECT_EQ(row.at("generation"), 1);
  }

  expect_refused(predict + Args{"--generation", "2"}, 2, {"--generation is 2", "0 to 1"});
  expect_refused(predict + Args{"--output", path("no/labels.csv")}, 1, {"labels.csv"});
  write_file(folder_ / "narrow.csv", "1,2,3\n");
  expect_refused({"predict", "--store", path("store"), "--input", path("narrow.csv")}, 3,
                 {"narrow.csv", "rows of 3", "rows of 64"});
}

TEST_F(LearningTest, GrowsFreezesAndRestores) {
  const json::object result = succeed(train("store"));
  const Args at_store = {"--store", path("store")};
  const json::object learnt = succeed(Args{"eval"} + at_store);
  const json::object grown =
      succeed(Args{"grow", "--freeze", "--rows", "64", "--snapshot", "wide"} + at_store);
  EXPECT_EQ(grown.at("pages_written"), 0);
  EXPECT_EQ(grown.at("snapshot"), "wide");
  EXPECT_EQ(grown.at("generation").at("rows"), 64);
  EXPECT_EQ(grown.at("generation").at("state"), "open");
  EXPECT_EQ(grown.at("experts"), 2 * 16 * 16 + 64 * 16);
  EXPECT_EQ(succeed(Args{"eval"} + at_store).at("accuracy"), learnt.at("accuracy"));

  const json::object frozen = succeed(Args{"freeze"} + at_store);
  EXPECT_EQ(frozen.at("generation").at("state"), "frozen");
  EXPECT_EQ(frozen.at("generation").at("digest").as_string().size(), 32U);
  const json::object inspected = succeed(Args{"inspect"} + at_store);
  EXPECT_EQ(inspected.at("frozen_intact"), true);
  EXPECT_EQ(inspected.at("finished"), true);
  ASSERT_EQ(inspected.at("generations").as_array().size(), 3U);
  EXPECT_EQ(inspected.at("generations").as_array()[2], frozen.at("generation"));
  EXPECT_EQ(run(Args{"freeze"} + at_store).code, 1);  // none is open

  succeed(Args{"restore", "--to", "experience-1"} + at_store);
  const json::object earlier = succeed(Args{"eval"} + at_store);
  EXPECT_EQ(earlier.at("accuracy"), result.at("matrix").as_array()[1]);
  EXPECT_NE(earlier.at("accuracy"), learnt.at("accuracy"));
  EXPECT_EQ(succeed(Args{"inspect"} + at_store).at("finished"), false);
  expect_refused(Args{"grow"} + at_store, 2, {"not finished"});
  // Learning on from there ends where the first run did.
  const json::object relearnt = succeed(Args{"train", "--threads", "1"} + at_store);
  EXPECT_EQ(relearnt.at("state_digest"), result.at("state_digest"));
  EXPECT_EQ(relearnt.at("matrix"), result.at("matrix"));

  succeed(Args{"restore", "--to", "experience-2", "--name", "back"} + at_store);
  EXPECT_EQ(succeed(Args{"eval"} + at_store).at("accuracy"), learnt.at("accuracy"));
  EXPECT_EQ(commits("store").as_array().back().at("state_digest"), result.at("state_digest"));
}

TEST_F(LearningTest, FreezingByHandClosesTheGatesAutoencoders) {
  succeed(train("store", "grow_freeze", "peer", "autoencoder") + Args{"--autoencoder-code", "8"});
  const Args at_store = {"--store", path("store")};
  // Only a store that is in parts lists its entries.
  const auto moments = [&](const std::string& part) {
    succeed(
        Args{"reshard", "--from", path("store"), "--into", path(part) + "," + path(part + "b")});
    const json::object inspected = succeed({"inspect", "--store", path(part)});
    int count = 0;
    for (const json::value& entry : inspected.at("dense").as_array()) {
      const std::string name(entry.at("name").as_string());
      count += name.starts_with("gate/") && (name.ends_with("/m") || name.ends_with("/v")) ? 1 : 0;
    }
    return count;
  };
  succeed(Args{"export", "--generation", "0", "--into", path("shard")} + at_store);
  succeed(Args{"import", "--file", path("shard")} + at_store);
  EXPECT_EQ(moments("imported"), 0);
  succeed(Args{"grow"} + at_store);
  EXPECT_GT(moments("open"), 0);
  succeed(Args{"freeze"} + at_store);
  EXPECT_EQ(moments("frozen"), 0);
}

TEST_F(LearningTest, AnUnlearnedGenerationIsNeitherFrozenNorDamaged) {
  succeed(train("store"));
  const Args at_store = {"--store", path("store")};
  succeed(Args{"unlearn", "--generation", "0"} + at_store);
  const json::object scrubbed = succeed(Args{"scrub", "--rate", "0"} + at_store);
  EXPECT_EQ(scrubbed.at("intact"), true);
  ASSERT_EQ(scrubbed.at("shards").as_array().size(), 1U);
  EXPECT_EQ(scrubbed.at("shards").at(0).at("generation"), 1);
  const json::object inspected = succeed(Args{"inspect"} + at_store);
  EXPECT_EQ(inspected.at("generations").at(0).at("state"), "unlearned");
  EXPECT_TRUE(inspected.at("generations").at(0).at("digest").is_null());
  EXPECT_EQ(inspected.at("generations").at(1).at("state"), "frozen");
  EXPECT_THAT(run(Args{"inspect"} + at_store).out,
              testing::AllOf(HasSubstr("unlearned"), testing::Not(HasSubstr("00000000"))));
  expect_refused(Args{"export", "--generation", "0", "--into", path("shard")} + at_store, 2,
                 {"generation 0 was unlearned"});
  EXPECT_FALSE(fs::exists(path("shard")));
}

TEST_F(LearningTest, TheLogShowsGenerationsAndAccuracy) {
  const json::object result = succeed(train("store"));
  succeed({"grow", "--store", path("store"), "--freeze"});
  const json::array listed = commits("store").as_array();
  const json::value grown = listed.back().at("note");
  EXPECT_EQ(grown.at("generations"), 3);
  EXPECT_FALSE(grown.as_object().contains("acc"));  // of the model before
  const auto of = [&](const char* snapshot) {
    for (const json::value& commit : listed) {
      if (commit.at("snapshot") == snapshot) return commit.at("note");
    }
    return json::value();
  };
  EXPECT_EQ(of("experience-1").at("acc"), result.at("matrix").at(1).at(0));
  EXPECT_EQ(of("experience-2").at("acc"), result.at("acc"));
  EXPECT_EQ(of("experience-2").at("generations"), 2);
  const std::string people = run({"log", "--store", path("store")}).out;
  for (const char* part : {"generations", "acc", "experience 2", "grow\n"}) {
    EXPECT_THAT(people, HasSubstr(part));
  }
}

TEST_F(LearningTest, ExportsAndImportsOnlyWhatIsWhole) {
  succeed(train("store"));
  const Args at_store = {"--store", path("store")};
  const json::object out =
      succeed(Args{"export", "--generation", "1", "--into", path("shard")} + at_store);
  expect_refused(Args{"export", "--into", path("shard")} + at_store, 2, {"exists already"});
  expect_refused(Args{"export", "--generation", "2", "--into", path("other")} + at_store, 2,
                 {"--generation is 2", "0 to 1"});
  EXPECT_FALSE(fs::exists(path("other")));
  const auto before = commits("store");
  std::string bytes = read_file(path("shard"));
  write_file(path("short"), bytes.substr(0, bytes.size() / 2));
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_file(path("bad"), bytes);
  expect_refused(Args{"import", "--file", path("bad")} + at_store, 3, {"shard", "bad"});
  expect_refused(Args{"import", "--file", path("short")} + at_store, 3, {"short"});
  expect_refused(Args{"import", "--file", path("none")} + at_store, 3, {"none"});
  EXPECT_EQ(commits("store"), before);
  const json::object in = succeed(Args{"import", "--file", path("shard")} + at_store);
  EXPECT_EQ(in.at("content_digest"), out.at("content_digest"));
  succeed(Args{"grow", "--freeze"} + at_store);
  expect_refused(Args{"export", "--generation", "3", "--into", path("other")} + at_store, 2,
                 {"generation 3 is open"});
}

TEST_F(LearningTest, APartOfAStoreIsNotTakenForTheWhole) {
  succeed(train("store"));
  const json::object learnt = succeed({"eval", "--store", path("store")});
  succeed({"reshard", "--from", path("store"), "--into", path("a") + "," + path("b")});
  for (const char* command : {"eval", "train", "grow", "freeze"}) {
    SCOPED_TRACE(command);
    expect_refused({command, "--store", path("b")}, 2, {"part 2 of 2", "reshard"});
  }
  EXPECT_EQ(succeed({"inspect", "--store", path("a")}).at("part"), true);
  EXPECT_EQ(succeed({"scrub", "--store", path("a")}).at("intact"), true);
  succeed({"reshard", "--from", path("a") + "," + path("b"), "--into", path("whole")});
  EXPECT_EQ(succeed({"eval", "--store", path("whole")}).at("accuracy"), learnt.at("accuracy"));
  // Its finished run has no folder here; train makes one and reports it again.
  EXPECT_EQ(succeed({"train", "--store", path("whole")}).at("finished"), true);
  EXPECT_TRUE(fs::exists(folder_ / "whole" / "runs" / "grow_freeze" / "summary.json"));
}

}  // namespace
}  // namespace perennial::cli
