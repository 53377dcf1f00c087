// SPDX-License-Identifier: Apache-2.0
// The task of numbers against its formulas, written out, and the targets of tables and arrays.
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "continual/data/data_files.h"
#include "perennial/continual/stream.h"
#include "perennial/continual/task.h"

namespace perennial::continual {
namespace {

// Of sums of a few numbers near 1 in 32 bits.
constexpr double kTargetRounding = 1e-5;

// Two targets: price with mean 10 and deviation 4, weight with mean -1 and deviation 0.5.
std::shared_ptr<const Task> prices() {
  StreamOptions options;
  options.table.task = TaskKind::regression;
  return make_task(options, {},
                   {.features = 2,
                    .means = {10, -1},
                    .deviations = {4, 0.5},
                    .columns = {"price", "weight, kg"}});
}

// (3, 2)
torch::Tensor priced_answers() {
  return at::tensor({0., 1., -1., 0.5, 2., 0.}, at::kFloat).view({3, 2});
}
torch::Tensor priced_targets() {
  return at::tensor({0.5, 1., -1., 0., 1., -0.5}, at::kFloat).view({3, 2});
}

TEST(Regression, LosesTheMeanSquaredError) {
  const auto task = prices();
  const torch::Tensor losses = task->losses(priced_answers(), priced_targets());
  EXPECT_TRUE(at::allclose(losses, at::tensor({0.125, 0.125, 0.625}, at::kFloat)));
  EXPECT_NEAR(task->loss(priced_answers(), priced_targets()).item<double>(), 0.875 / 3,
              kTargetRounding);
  EXPECT_TRUE(answers_of(task->kind(), priced_answers()).equal(priced_answers()));
  EXPECT_EQ(task->outputs(), 2);
  EXPECT_NEAR(task->divergence(priced_targets(), priced_answers(), 2).item<double>() * 4, 0.875 / 3,
              kTargetRounding);
}

// The loss is -log p of a normal distribution of variance C / 2: of two targets 1.
TEST(Regression, ItsFisherInformationIsThatOfANormalDistribution) {
  const auto task = prices();
  torch::Tensor z = priced_answers().requires_grad_();
  torch::Tensor exact = at::zeros_like(priced_answers());
  for (const FisherTerm& term : task->fisher_terms(z)) {
    z.mutable_grad() = torch::Tensor();
    term.value.sum().backward();
    exact += z.grad().square() * term.weight;
  }
  EXPECT_TRUE(at::allclose(exact, at::ones_like(exact)));
  // A draw is one deviation off, to either side.
  double u = 0.2;
  const torch::Tensor drawn = task->drawn(priced_answers(), [&] { return u = 1 - u; });
  z.mutable_grad() = torch::Tensor();
  task->losses(z, drawn).sum().backward();
  EXPECT_TRUE(at::allclose(z.grad().square(), exact));
  EXPECT_LT(z.grad()[0][0].item<float>() * z.grad()[0][1].item<float>(), 0);
}

TEST(Regression, ScoresRSquaredAgainstTheMeanOfTheTestSet) {
  const auto task = prices();
  const auto score = [&](const torch::Tensor& f, const torch::Tensor& y, std::int64_t rows,
                         std::vector<double>* errors = nullptr) {
    const auto scorer = task->scorer();
    for (std::int64_t i = 0; i < y.size(0); i += rows) {
      const std::int64_t n = std::min(rows, y.size(0) - i);
      scorer->add(f.narrow(0, i, n), {{}, y.narrow(0, i, n)});
    }
    if (errors != nullptr) *errors = scorer->errors();
    return scorer->score();
  };
  // price: squares .25 + 0 + 1 of a spread of 13/6; weight: 0 + .25 + .25 of 7/6.
  const double expected = 1 - (1.25 / (13.0 / 6) + 0.5 / (7.0 / 6)) / 2;
  std::vector<double> errors;
  EXPECT_NEAR(score(priced_answers(), priced_targets(), 3, &errors), expected, kTargetRounding);
  EXPECT_NEAR(errors.at(0), 4 * std::sqrt(1.25 / 3), kTargetRounding);
  EXPECT_NEAR(errors.at(1), 0.5 * std::sqrt(0.5 / 3), kTargetRounding);
  EXPECT_EQ(score(priced_answers(), priced_targets(), 1),
            score(priced_answers(), priced_targets(), 3));
  EXPECT_EQ(score(priced_targets(), priced_targets(), 2), 1);
  // Nothing to explain: right or not.
  const torch::Tensor same = at::ones_like(priced_targets());
  EXPECT_EQ(score(same, same, 3), 1);
  EXPECT_EQ(score(priced_answers(), same, 3), 0);
  // A model that has diverged.
  EXPECT_EQ(score(priced_answers() * NAN, priced_targets(), 3), -1e9);
  EXPECT_EQ(score(priced_answers() * 1e30, priced_targets(), 3), -1e9);
}

TEST(Regression, AnswersInTheUnitsOfTheData) {
  const auto task = prices();
  EXPECT_EQ(task->prediction_columns(), (std::vector<std::string>{"price", "weight, kg"}));
  const auto lines = task->predictions(priced_answers());
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[2][0].text, "18");
  EXPECT_EQ(lines[2][0].value.as_double(), 18);
  EXPECT_EQ(lines[1][1].text, "-0.75");
}

StreamOptions priced(const std::string& dataset, const std::string& targets) {
  StreamOptions options{.stream = StreamKind::single, .dataset = dataset};
  options.table.task = TaskKind::regression;
  options.table.target_column = targets;
  return options;
}

constexpr const char* kTable =
    "size,price,age,weight\n"
    "1,10,5,2\n2,20,4,4\n3,30,3,6\n4,40,2,8\n5,50,1,10\n";

TEST(RegressionData, TargetsAreColumnsOfATable) {
  const TempFolder folder;
  folder.write("d/train.csv", kTable);
  folder.write("d/test.csv", "weight,age,size,price\n3,4.5,1.5,15\n");
  const std::string place = (folder.path() / "d").string();
  const Stream stream(priced(place, "weight,price"));
  EXPECT_EQ(stream.features(), 2);
  EXPECT_EQ(stream.preprocessing().columns, (std::vector<std::string>{"size", "age"}));
  EXPECT_EQ(stream.classes(), 0);
  EXPECT_EQ(stream.task().names(), (std::vector<std::string>{"weight", "price"}));
  EXPECT_EQ(stream.targets().means, (std::vector<double>{6, 30}));
  EXPECT_DOUBLE_EQ(stream.targets().deviations[1], std::sqrt(200));
  const Batch test = stream.test_batch(0, 0, 1);
  EXPECT_NEAR(test.y[0][0].item<double>(), -3 / std::sqrt(8), kTargetRounding);
  EXPECT_NEAR(test.y[0][1].item<double>(), -15 / std::sqrt(200), kTargetRounding);
  // By number; a name may have commas of its own.
  const auto numbered = folder.write("numbered.csv", kTable);
  EXPECT_EQ(Stream(priced(numbered.string(), "4,2")).task().names(), stream.task().names());
  const auto alone = folder.write("comma.csv", "a,\"b,c\"\n1,2\n3,4\n5,9\n");
  EXPECT_EQ(Stream(priced(alone.string(), "b,c")).task().names(),
            (std::vector<std::string>{"b,c"}));
  const auto bare = folder.write("bare.csv", "1,2\n3,4\n5,9\n");
  EXPECT_EQ(Stream(priced(bare.string(), "2")).task().names(),
            (std::vector<std::string>{"column 2"}));
  const auto lines = folder.write("p.jsonl", "{\"a\":1,\"p\":2}\n{\"p\":3,\"a\":2}\n");
  EXPECT_EQ(Stream(priced(lines.string(), "p")).features(), 1);
}

TEST(RegressionData, SaysWhatIsWrongWithTargets) {
  const TempFolder folder;
  const auto file = folder.write("t.csv", kTable).string();
  expect_data_error([&] { Stream(priced(file, "")); }, {"t.csv", "line 1", "target_column"});
  expect_data_error([&] { Stream(priced(file, "cost")); }, {"no column 'cost'"});
  expect_data_error([&] { Stream(priced(file, "price,2")); }, {"'price' twice"});
  expect_data_error([&] { Stream(priced(file, "1,2,3,4")); }, {"no column beside the targets"});
  for (const char* cell : {"x", "", "inf", "NA"}) {
    const auto bad = folder.write("bad.csv", std::string("a,p\n1,2\n2,") + cell + "\n").string();
    expect_data_error([&] { Stream(priced(bad, "p")); }, {"line 3, column 2 ('p')"});
    StreamOptions skipping = priced(bad, "p");
    skipping.table.bad_rows = BadRows::skip;
    skipping.table.missing_values = MissingValues::mean;
    expect_data_error([&] { Stream stream(skipping); }, {"no two examples"});
  }
  StreamOptions split = priced(file, "price");
  split.stream = StreamKind::split;
  EXPECT_THROW(Stream stream(split), InvalidOptions);
  StreamOptions labelled = priced(file, "price");
  labelled.table.label_column = "age";
  EXPECT_THROW(Stream stream(labelled), InvalidOptions);
  StreamOptions classes = priced(file, "price");
  classes.table.task = TaskKind::classification;
  EXPECT_THROW(Stream stream(classes), InvalidOptions);
  write_idx_dataset(folder, "images", 10, 4, 2);
  EXPECT_THROW(Stream(priced((folder.path() / "images").string(), "")), InvalidOptions);
}

TEST(RegressionData, TargetsAreAnArrayOfNumbers) {
  const TempFolder folder;
  const auto array = [](const char* type, const char* shape, const std::string& payload) {
    return npy_bytes(std::string("{'descr': '") + type +
                         "', 'fortran_order': False, 'shape': " + shape + ", }\n",
                     payload);
  };
  const std::string x = array("<f4", "(4, 2)", raw_bytes<float>({1, 2, 3, 4, 5, 6, 7, 8}));
  folder.write("n/x.npy", x);
  folder.write("n/y.npy", array("<f8", "(4,)", raw_bytes<double>({1, 2, 3, 4})));
  const std::string place = (folder.path() / "n").string();
  const Stream one(priced(place, ""));
  EXPECT_EQ(one.task().names(), (std::vector<std::string>{"target"}));
  EXPECT_EQ(one.train_size(0) + one.test_size(0), 4);
  folder.write("n/y.npy", array("<f4", "(4, 2)", raw_bytes<float>({1, 2, 3, 4, 5, 6, 7, 8})));
  EXPECT_EQ(Stream(priced(place, "")).task().names(),
            (std::vector<std::string>{"target 1", "target 2"}));
  EXPECT_THROW(Stream(priced(place, "1")), InvalidOptions);
  for (const auto& [bad, word] :
       {std::pair{array("<i8", "(4,)", raw_bytes<std::int64_t>({1, 2, 3, 4})), "<f4 or <f8"},
        {array("<f4", "(3,)", raw_bytes<float>({1, 2, 3})), "3 targets for the 4 examples"},
        {array("<f4", "(4,)", raw_bytes<float>({1, 2, 3, NAN})), "row 3"},
        {array("<f4", "(4, 1, 1)", raw_bytes<float>({1, 2, 3, 4})), "dimension"}}) {
    folder.write("n/y.npy", bad);
    expect_data_error([&] { Stream(priced(place, "")); }, {"y.npy", word});
  }
}

}  // namespace
}  // namespace perennial::continual
