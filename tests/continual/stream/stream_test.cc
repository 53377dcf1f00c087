// SPDX-License-Identifier: Apache-2.0
// Streams: what each kind hands out, that it depends on the seed only, and what is refused.
#include "perennial/continual/stream.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "continual/data/data_files.h"

namespace perennial::continual {
namespace {

constexpr std::int64_t kFeatures = 9;
constexpr std::int64_t kClasses = 6;
constexpr std::int64_t kTrain = 60;
constexpr std::int64_t kTest = 24;

// Pixel j of example i is unlike any other of the example, and labels go round.
Dataset make_part(std::int64_t size, int step) {
  Dataset data;
  data.x = (torch::arange(size).view({size, 1}) * step + torch::arange(kFeatures) * 25)
               .remainder(256)
               .to(torch::kByte);
  data.y = torch::arange(size).remainder(kClasses);
  for (std::int64_t c = 0; c < kClasses; ++c) data.label_names.push_back(std::to_string(c));
  return data;
}

TrainTest make_data() { return {make_part(kTrain, 1), make_part(kTest, 3), "made"}; }

Stream make_stream(StreamOptions options = {}) { return Stream(options, make_data()); }

// The raw bytes of preprocessed rows.
torch::Tensor raw(const Stream& stream, const torch::Tensor& x) {
  const Preprocessing& p = stream.preprocessing();
  return (x.to(torch::kDouble) * p.deviation + p.mean).round().to(torch::kByte);
}

std::multiset<std::string> rows_of(const torch::Tensor& bytes, const torch::Tensor& y) {
  std::multiset<std::string> rows;
  for (std::int64_t i = 0; i < bytes.size(0); ++i) {
    const torch::Tensor row = bytes[i].contiguous();
    const auto* data = row.const_data_ptr<std::uint8_t>();
    rows.insert(std::string(data, data + row.numel()) + char('0' + y[i].item<int>()));
  }
  return rows;
}

Batch whole_epoch(const Stream& stream, std::int64_t experience, std::int64_t epoch,
                  std::int64_t batch, std::int64_t seed) {
  std::vector<torch::Tensor> x, y;
  for (std::int64_t step = 0; step < stream.steps_per_epoch(experience, batch); ++step) {
    const Batch part = stream.train_batch(experience, epoch, step, batch, seed);
    x.push_back(part.x);
    y.push_back(part.y);
  }
  return {torch::cat(x), torch::cat(y)};
}

TEST(Stream, PermutedGivesEachExperienceItsOwnOrderOfPixels) {
  const Stream stream = make_stream();
  ASSERT_EQ(stream.experiences(), 5);
  EXPECT_EQ(stream.test_sets(), 5);
  EXPECT_EQ(stream.features(), kFeatures);
  EXPECT_EQ(stream.classes(), kClasses);
  const Dataset data = make_part(kTest, 3);
  std::set<std::string> orders;
  for (std::int64_t e = 0; e < 5; ++e) {
    ASSERT_EQ(stream.test_size(e), kTest);
    const Batch batch = stream.test_batch(e, 0, kTest);
    EXPECT_TRUE(at::equal(batch.y, data.y));
    const torch::Tensor bytes = raw(stream, batch.x);
    // One permutation explains every row: find it in row 0, whose pixels differ.
    std::string order;
    for (std::int64_t j = 0; j < kFeatures; ++j) {
      const torch::Tensor at = (data.x[0] == bytes[0][j]).nonzero();
      ASSERT_EQ(at.numel(), 1);
      order += char('0' + at.item<int>());
    }
    for (std::int64_t j = 0; j < kFeatures; ++j) {
      EXPECT_TRUE(at::equal(bytes.select(1, j), data.x.select(1, order[size_t(j)] - '0')));
    }
    std::string sorted = order;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, "012345678");
    // The first experience is the data as they are, so that raw inputs can be predicted.
    if (e == 0) {
      EXPECT_EQ(order, sorted);
    }
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 5U);
}

TEST(Stream, TrainAndTestOfAnExperienceShareThePermutation) {
  const Stream stream = Stream({}, TrainTest{make_part(kTrain, 1), make_part(kTrain, 1), "same"});
  for (std::int64_t e = 0; e < 5; ++e) {
    const Batch train = whole_epoch(stream, e, 0, 7, 1);
    const Batch test = stream.test_batch(e, 0, kTrain);
    EXPECT_EQ(rows_of(raw(stream, train.x), train.y), rows_of(raw(stream, test.x), test.y));
  }
}

TEST(Stream, BatchesArePreprocessedToTheBitAsRowsForPredictionAre) {
  const Stream stream = make_stream({.stream = StreamKind::single});
  const Dataset data = make_part(kTest, 3);
  EXPECT_TRUE(at::equal(stream.test_batch(0, 0, kTest).x, stream.preprocessing().apply(data.x)));
  const Preprocessing fitted = Preprocessing::fit(make_part(kTrain, 1).x);
  EXPECT_EQ(stream.preprocessing().mean, fitted.mean);
  EXPECT_EQ(stream.preprocessing().deviation, fitted.deviation);
}

TEST(Stream, FloatsAndBytesOfEqualValueGiveEqualBatches) {
  TrainTest floats = make_data();
  floats.train.x = floats.train.x.to(torch::kFloat);
  floats.test.x = floats.test.x.to(torch::kFloat);
  const Stream a = make_stream(), b({}, floats);
  EXPECT_TRUE(at::equal(a.test_batch(2, 3, 20).x, b.test_batch(2, 3, 20).x));
}

// The examples of the data's class `c`, by their first pixels, whatever number the class has.
std::multiset<int> first_pixels(const Dataset& data, std::int64_t c) {
  std::multiset<int> pixels;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    if (data.y[i].item<std::int64_t>() == c) pixels.insert(data.x[i][0].item<int>());
  }
  return pixels;
}

TEST(Stream, SplitTakesClassesInTheOrderThatIsSaid) {
  const StreamOptions split{.stream = StreamKind::split, .experiences = kClasses};
  const auto ordered = [&](const std::string& order, std::int64_t seed = 1) {
    StreamOptions options = split;
    options.class_order = order;
    options.stream_seed = seed;
    return make_stream(options);
  };
  const Dataset data = make_part(kTest, 3);
  const std::vector<std::string> names = make_data().train.label_names;
  const auto expect_order = [&](const Stream& stream, const std::vector<std::size_t>& order) {
    for (std::size_t e = 0; e < order.size(); ++e) {
      const auto n = static_cast<std::int64_t>(e);
      EXPECT_EQ(stream.label_names()[e], names[order[e]]);
      EXPECT_EQ(stream.classes_of(n), (std::vector<std::int64_t>{n}));
      const Batch batch = stream.test_batch(n, 0, stream.test_size(n));
      EXPECT_TRUE(batch.y.eq(n).all().item<bool>());
      const torch::Tensor bytes = raw(stream, batch.x);
      std::multiset<int> pixels;
      for (std::int64_t i = 0; i < bytes.size(0); ++i) pixels.insert(bytes[i][0].item<int>());
      EXPECT_EQ(pixels, first_pixels(data, static_cast<std::int64_t>(order[e])));
    }
  };
  expect_order(ordered("ascending"), {0, 1, 2, 3, 4, 5});
  expect_order(ordered("reversed"), {5, 4, 3, 2, 1, 0});
  expect_order(ordered("3,1,0,2,5,4"), {3, 1, 0, 2, 5, 4});
  // By chance, of the seed; each class once.
  const std::vector<std::string> one = ordered("random").label_names();
  EXPECT_EQ(ordered("random").label_names(), one);
  std::set<std::vector<std::string>> drawn;
  for (std::int64_t seed = 1; seed <= 5; ++seed)
    drawn.insert(ordered("random", seed).label_names());
  EXPECT_GT(drawn.size(), 1U);
  EXPECT_EQ(std::set<std::string>(one.begin(), one.end()),
            std::set<std::string>(names.begin(), names.end()));
  // The data are the same.
  EXPECT_EQ(ordered("reversed").data_digest(), make_stream(split).data_digest());

  for (const std::string wrong : {"3,1,0", "0,0,1,2,3,4", "0,1,2,3,4,6", "falling", ""}) {
    try {
      ordered(wrong);
      ADD_FAILURE() << wrong;
    } catch (const InvalidOptions& error) {
      EXPECT_NE(std::string(error.what()).find("class_order is '" + wrong + "'"), std::string::npos)
          << error.what();
    }
  }
  EXPECT_THROW(make_stream({.class_order = "reversed"}), InvalidOptions) << "stream permuted";
}

TEST(Stream, SplitGivesClassesInTurnUnderTheirOwnNumbers) {
  const Stream stream = make_stream({.stream = StreamKind::split, .experiences = 3});
  ASSERT_EQ(stream.experiences(), 3);
  for (std::int64_t e = 0; e < 3; ++e) {
    EXPECT_EQ(stream.classes_of(e), (std::vector<std::int64_t>{2 * e, 2 * e + 1}));
    EXPECT_EQ(stream.train_size(e), kTrain / 3);
    for (const torch::Tensor& y :
         {whole_epoch(stream, e, 0, 6, 1).y, stream.test_batch(e, 0, stream.test_size(e)).y}) {
      EXPECT_EQ(y.min().item<int>(), 2 * e);
      EXPECT_EQ(y.max().item<int>(), 2 * e + 1);
    }
  }
  // Fit on what the first experience shows, not on what comes later.
  const Dataset data = make_part(kTrain, 1);
  const Preprocessing first = Preprocessing::fit(data.x.index({data.y < 2}));
  EXPECT_EQ(stream.preprocessing().mean, first.mean);
  EXPECT_EQ(stream.preprocessing().deviation, first.deviation);
}

TEST(Stream, SingleIsOneExperienceWhateverTheOptionSays) {
  const Stream stream = make_stream({.stream = StreamKind::single, .experiences = 4});
  EXPECT_EQ(stream.experiences(), 1);
  EXPECT_EQ(stream.options().experiences, 1);
  EXPECT_EQ(stream.train_size(0), kTrain);
  EXPECT_EQ(stream.classes_of(0).size(), 6U);
}

TEST(Stream, AnEpochHasEveryExampleOnceInAnOrderOfItsOwn) {
  const Stream stream = make_stream();
  EXPECT_EQ(stream.steps_per_epoch(0, 7), 9);
  EXPECT_EQ(stream.steps_per_epoch(0, 60), 1);
  EXPECT_EQ(stream.steps_per_epoch(0, 100), 1);
  EXPECT_EQ(stream.train_batch(0, 0, 8, 7, 1).x.size(0), 4);
  EXPECT_EQ(stream.train_batch(0, 0, 0, 100, 1).x.size(0), 60);
  const Batch first = whole_epoch(stream, 1, 0, 7, 1);
  const auto rows = rows_of(raw(stream, first.x), first.y);
  EXPECT_EQ(rows.size(), std::size_t{kTrain});
  for (const auto& [epoch, seed] : {std::pair{1, 1}, std::pair{0, 2}}) {
    const Batch other = whole_epoch(stream, 1, epoch, 7, seed);
    EXPECT_EQ(rows_of(raw(stream, other.x), other.y), rows);
    EXPECT_FALSE(at::equal(other.x, first.x)) << epoch << " " << seed;
  }
  // Another experience draws another order.
  EXPECT_FALSE(at::equal(whole_epoch(stream, 2, 0, 7, 1).y, first.y));
}

TEST(Stream, ABatchIsAFunctionOfItsArgumentsOnly) {
  const Stream once = make_stream({.experiences = 3, .limit = 40});
  const Stream again = make_stream({.experiences = 3, .limit = 40});
  for (std::int64_t e : {0, 2}) whole_epoch(again, e, 3, 4, 9);  // another history
  const int threads = at::get_num_threads();
  for (const int count : {1, 2, 5}) {
    at::set_num_threads(count);
    const Batch a = once.train_batch(1, 2, 0, 40, 5), b = again.train_batch(1, 2, 0, 40, 5);
    EXPECT_TRUE(at::equal(a.x, b.x));
    EXPECT_TRUE(at::equal(a.y, b.y));
  }
  at::set_num_threads(threads);
  const Stream other = make_stream({.experiences = 3, .limit = 40, .stream_seed = 2});
  EXPECT_FALSE(at::equal(other.test_batch(0, 0, kTest).x, once.test_batch(0, 0, kTest).x));
}

TEST(Stream, LimitsChooseSubsetsOfAnExperiencesOwn) {
  const Stream stream =
      make_stream({.stream = StreamKind::split, .experiences = 2, .limit = 11, .test_limit = 5});
  EXPECT_EQ(stream.train_size(1), 11);
  EXPECT_EQ(stream.test_size(1), 5);
  const Batch train = whole_epoch(stream, 1, 0, 4, 1);
  const auto rows = rows_of(raw(stream, train.x), train.y);
  EXPECT_EQ(std::set<std::string>(rows.begin(), rows.end()).size(), 11U);
  EXPECT_GE(train.y.min().item<int>(), 3);
  // Permuted experiences of one data set see different examples.
  const Stream permuted = make_stream({.experiences = 2, .test_limit = 6});
  EXPECT_FALSE(at::equal(permuted.test_batch(0, 0, 6).y, permuted.test_batch(1, 0, 6).y));
}

TEST(Stream, JointIsTheUnionWithEachExamplesOwnPermutation) {
  for (const StreamKind kind : {StreamKind::permuted, StreamKind::split}) {
    const Stream stream = make_stream({.stream = kind, .experiences = 3, .limit = 13});
    const Stream joint = stream.joint();
    EXPECT_EQ(joint.experiences(), 1);
    EXPECT_EQ(joint.test_sets(), 3);
    EXPECT_EQ(joint.train_size(0), 39);
    std::multiset<std::string> parts;
    for (std::int64_t e = 0; e < 3; ++e) {
      const Batch part = whole_epoch(stream, e, 0, 5, 1);
      parts.merge(rows_of(raw(stream, part.x), part.y));
      EXPECT_TRUE(at::equal(joint.test_batch(e, 0, joint.test_size(e)).x,
                            stream.test_batch(e, 0, stream.test_size(e)).x));
    }
    const Batch whole = whole_epoch(joint, 0, 0, 5, 1);
    EXPECT_EQ(rows_of(raw(joint, whole.x), whole.y), parts);
    EXPECT_EQ(joint.preprocessing().mean, stream.preprocessing().mean);
  }
}

void expect_invalid(const StreamOptions& options, const std::vector<std::string>& parts) {
  try {
    make_stream(options);
    ADD_FAILURE() << "no InvalidOptions; expected one with '" << parts[0] << "'";
  } catch (const InvalidOptions& error) {
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

TEST(Stream, RefusesOptionsThatCannotWork) {
  expect_invalid({.experiences = 0}, {"experiences", "0"});
  expect_invalid({.limit = -1}, {"limit", "-1"});
  expect_invalid({.dataset = ""}, {"dataset"});
  expect_invalid({.stream = StreamKind::split, .experiences = 4}, {"4", "6 classes"});
  expect_invalid({.stream = StreamKind::split, .experiences = 12}, {"12", "6 classes"});
  expect_invalid({.limit = 61}, {"limit is 61", "experience 0", "60 training"});
  expect_invalid({.test_limit = 25}, {"test_limit is 25", "24 test"});
  expect_invalid({.stream = StreamKind::split, .experiences = 3, .limit = 21}, {"21", "20"});
  // Options are looked at before the data.
  EXPECT_THROW(Stream({.dataset = "/no/such/folder", .experiences = 0}), InvalidOptions);
  EXPECT_THROW(Stream({.dataset = "/no/such/folder"}), DataError);
}

TEST(Stream, RefusesDataThatCannotWork) {
  TrainTest data = make_data();
  data.test.y = data.test.y + 1;
  expect_data_error([&] { Stream({}, data); }, {"test set", "label 6"});
  data = make_data();
  data.train.y = data.train.y.clamp_min(2);
  expect_data_error([&] { Stream({.stream = StreamKind::split, .experiences = 3}, data); },
                    {"experience 0", "training"});
  data = make_data();
  data.train.x = data.train.x.to(torch::kLong);
  expect_data_error([&] { Stream({}, data); }, {"uint8, float32 or float64"});
}

TEST(Stream, RefusesPositionsThatAreNotThere) {
  const Stream stream = make_stream();
  EXPECT_THROW(stream.train_batch(5, 0, 0, 7, 1), Error);
  EXPECT_THROW(stream.train_batch(-1, 0, 0, 7, 1), Error);
  EXPECT_THROW(stream.train_batch(0, 0, 9, 7, 1), Error);
  EXPECT_THROW(stream.train_batch(0, -1, 0, 7, 1), Error);
  EXPECT_THROW(stream.train_batch(0, 0, 0, 0, 1), Error);
  EXPECT_THROW(stream.test_batch(0, 0, kTest + 1), Error);
  EXPECT_THROW(stream.test_batch(0, 3, 2), Error);
  EXPECT_EQ(stream.test_batch(0, 3, 3).x.size(0), 0);
}

// The numbers of a seed are for ever: a stored run resumes on the same permutations and order.
TEST(Stream, KeepsItsNumbersFromReleaseToRelease) {
  const Stream stream = make_stream({.experiences = 2, .limit = 8});
  const torch::Tensor pixels = raw(stream, stream.test_batch(1, 0, 1).x)[0];
  const torch::Tensor labels = stream.train_batch(1, 1, 0, 8, 3).y;
  std::ostringstream seen;
  for (std::int64_t j = 0; j < kFeatures; ++j) seen << pixels[j].item<int>() << ' ';
  seen << '|';
  for (std::int64_t i = 0; i < 8; ++i) seen << ' ' << labels[i].item<int>();
  EXPECT_EQ(seen.str(), "75 100 0 150 125 175 50 25 200 | 5 3 5 0 5 3 1 5");
}

// Rows of a part as (label, number of the example): the pixels are all different in make_part.
std::multiset<std::string> part_rows(const Dataset& data) { return rows_of(data.x, data.y); }

TEST(ValidationShare, HoldsOutTrainingExamplesAndNeverReadsTheTestPart) {
  const TrainTest data = make_data();
  for (const StreamKind kind : {StreamKind::single, StreamKind::permuted, StreamKind::split}) {
    SCOPED_TRACE(std::string(enum_name(kind)));
    const Stream stream = make_stream({.stream = kind,
                                       .experiences = 3,
                                       .validation_share = 0.3,
                                       .normalize = Normalization::none});
    std::multiset<std::string> seen, held;
    const auto add = [](std::multiset<std::string>& rows, const Batch& batch) {
      rows.merge(rows_of(batch.x.to(torch::kByte), batch.y));
    };
    // Experience 0 of a permuted stream shows the data as they are.
    const std::int64_t shown = kind == StreamKind::split ? 3 : 1;
    for (std::int64_t e = 0; e < shown; ++e) {
      add(seen, whole_epoch(stream, e, 0, 7, 1));
      add(held, stream.test_batch(e, 0, stream.test_size(e)));
    }
    EXPECT_EQ(std::ssize(held), 18) << "3 of the 10 examples of each of 6 classes";
    EXPECT_EQ(std::ssize(seen), kTrain - 18);
    for (const std::string& row : held) EXPECT_FALSE(seen.contains(row)) << "trained on";
    std::multiset<std::string> both = seen;
    both.merge(held);
    EXPECT_EQ(both, part_rows(data.train)) << "neither lost nor from the test part";
  }
}

TEST(ValidationShare, IsAFunctionOfTheSeedAndStratified) {
  const auto held = [](std::int64_t seed) {
    return make_stream({.stream = StreamKind::single, .validation_share = 0.2, .stream_seed = seed})
        .test_rows(0);
  };
  EXPECT_TRUE(at::equal(held(1).x, held(1).x));
  EXPECT_FALSE(at::equal(held(1).x, held(2).x));
  for (std::int64_t c = 0; c < kClasses; ++c) {
    EXPECT_EQ(held(1).y.eq(c).sum().item<std::int64_t>(), 2) << "class " << c;
  }
}

TEST(ValidationShare, ComesBeforeLimitsAndPreprocessingAndLeavesTheDigest) {
  const StreamOptions whole{.stream = StreamKind::single};
  StreamOptions options = whole;
  options.validation_share = 0.5;
  const Stream stream = make_stream(options);
  EXPECT_EQ(stream.data_digest(), make_stream(whole).data_digest()) << "the same data";
  EXPECT_EQ(stream.preprocessing().mean, Preprocessing::fit(stream.train_rows().x).mean);
  EXPECT_EQ(stream.notes().size(), 1U);
  EXPECT_NE(stream.notes()[0].find("30 of 60 training examples"), std::string::npos);
  options.limit = 31;
  EXPECT_THROW(make_stream(options), InvalidOptions);
  options.limit = 30;
  EXPECT_EQ(make_stream(options).train_size(0), 30);
  options.test_limit = 31;
  EXPECT_THROW(make_stream(options), InvalidOptions);
}

TEST(ValidationShare, NeedsAClassOfTwo) {
  TrainTest data = make_data();
  for (torch::Tensor* part : {&data.train.x, &data.train.y}) *part = part->slice(0, 0, kClasses);
  const StreamOptions options{.stream = StreamKind::single, .validation_share = 0.5};
  try {
    const Stream stream(options, data);
    FAIL() << "a class of one was divided";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("kept for validation"), std::string::npos);
  }
}

}  // namespace
}  // namespace perennial::continual
