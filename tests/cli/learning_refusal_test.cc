// SPDX-License-Identifier: Apache-2.0
// What the built program refuses to learn, leaving everything as it was.
#include "learning_fixture.h"
#include "perennial/storage/rocksdb_store.h"

namespace perennial::cli {
namespace {

TEST_F(LearningTest, RefusesAnotherConfigurationAndAStoreInUse) {
  const json::object result = succeed(train("store"));
  const auto files = content("store");
  const json::value before = commits("store");
  const Args resume = {"train", "--store", path("store"), "--threads", "1"};
  expect_refused(resume + Args{"--lr", "0.5", "--heads", "2"}, 2,
                 {"train.lr: ", " stored, 5E-1 asked for", "model.heads: 4 stored, 2 asked for"});
  expect_refused(resume + Args{"--experiences", "3"}, 2, {"stream.experiences: 2 stored, 3"});
  EXPECT_EQ(content("store"), files);
  EXPECT_EQ(commits("store"), before);
  EXPECT_EQ(succeed(resume).at("state_digest"), result.at("state_digest"));
  {
    const auto held = storage::open_rocksdb_store(path("store"));
    ASSERT_TRUE(held.ok());
    for (const char* command : {"train", "grow", "freeze"}) {
      expect_refused({command, "--store", path("store")}, 1,
                     {path("store"), std::to_string(::getpid())});
    }
    // Who only reads is not in the way.
    for (const char* command : {"eval", "inspect", "scrub"}) {
      succeed({command, "--store", path("store")});
    }
  }
  // Another data set in the place of the one that was learnt.
  const Images other = make_images(kTrain, 3);
  write_file(folder_ / "data" / "train-images-idx3-ubyte",
             idx({kTrain, kSide, kSide}, other.pixels));
  expect_refused({"eval", "--store", path("store")}, 3, {"data set is not the one"});
  EXPECT_EQ(content("store"), files);
}

TEST_F(LearningTest, RefusesWrongDataAndCombinationsWithoutMakingAStore) {
  const auto refuse = [&](const Args& flags, int code, const Args& parts) {
    expect_refused(Args{"train", "--store", path("store"), "--dataset", path("data")} + flags, code,
                   parts);
    EXPECT_FALSE(fs::exists(folder_ / "store"));
  };
  refuse({"--model", "mlp"}, 2, {"grow_freeze", "mlp"});
  // Flags that this run would not look at.
  refuse({"--model", "mlp", "--strategy", "naive", "--heads", "8"}, 2, {"--heads", "peer"});
  refuse({"--hidden", "8"}, 2, {"--hidden", "mlp"});
  refuse({"--head", "analytic", "--strategy", "naive"}, 2,
         {"head_filter_size is 7", "8 x 8", "1 to 5", "--head-filter-size 5"});
  refuse({"--strategy", "naive", "--gate-temperature", "3"}, 2,
         {"--gate-temperature", "gate none"});
  refuse({"--width", "32"}, 2, {"isolated", "width 0, not 32"});
  refuse({"--strategy", "naive", "--gate", "analytic"}, 2, {"gate analytic"});
  refuse({"--routing", "shared", "--gate", "oracle"}, 2, {"gate oracle"});
  refuse({"--stream", "split", "--experiences", "2"}, 2, {"experiences is 2", "3 classes"});
  refuse({"--batch", "1"}, 2, {"batch is 1", "query_norm"});
  refuse({"--top-k", "2000"}, 2, {"top_k is 2000"});
  refuse({"--d-key", "7"}, 2, {"d_key is 7"});
  refuse({"--budget", "1"}, 2, {"budget of 1 bytes", "at least"});
  refuse({"--strategy", "grow-freeze"}, 2, {"did you mean 'grow_freeze'?"});
  refuse({"--bach", "3"}, 2, {"did you mean '--batch'?"});

  const fs::path images = folder_ / "data" / "train-images-idx3-ubyte";
  const fs::path labels = folder_ / "data" / "train-labels-idx1-ubyte";
  const std::string whole = read_file(images), names = read_file(labels);
  write_file(images, whole.substr(0, whole.size() - 7));
  refuse({}, 3, {images.string(), "600 x 8 x 8"});
  write_file(images, whole.substr(0, 9));
  refuse({}, 3, {images.string(), "truncated"});
  write_file(images, names);
  refuse({}, 3, {images.string(), "labels"});
  write_file(images, whole);
  write_file(labels, idx({kTrain - 1}, names.substr(9)));
  refuse({}, 3, {labels.string(), "599 labels", "600 images"});
  fs::remove(labels);
  refuse({}, 3, {"train-labels-idx1-ubyte"});
}

}  // namespace
}  // namespace perennial::cli
