// SPDX-License-Identifier: Apache-2.0
// Rows for prediction: CSV, the choice of a format by content, and the preprocessing of rows.
#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>

#include <cmath>
#include <limits>

#include "continual/data/data_files.h"
#include "perennial/continual/dataset.h"

namespace perennial::continual {
namespace {

const torch::Tensor& two_by_three() {
  static const torch::Tensor rows =
      torch::tensor(std::vector<double>{1, 2.5, -300, 4, 5, 6}).view({2, 3});
  return rows;
}

TEST(Csv, ReadsNumbersWithAndWithoutHeader) {
  const TempFolder folder;
  for (const std::string text : {
           "1,2.5,-3e2\n4,5,6\n",
           "a,b,c\n1,2.5,-3e2\n4,5,6",
           "\xEF\xBB\xBF\"a\", \"b\" ,c\r\n 1 ,\"2.5\",\t-300\r\n\r\n+4,5.0,6e0\r\n\n",
       }) {
    const torch::Tensor rows = read_rows(folder.write("rows.csv", text));
    EXPECT_EQ(rows.scalar_type(), torch::kDouble);
    EXPECT_TRUE(at::equal(rows, two_by_three())) << text;
  }
  EXPECT_TRUE(at::equal(read_rows(folder.write("z", gzip("1,2.5,-300\n4,5,6\n"))), two_by_three()));
}

TEST(Csv, KeepsWhatA64BitNumberHolds) {
  const TempFolder folder;
  const torch::Tensor rows = read_rows(folder.write("t.csv", "1700000000123,1e308\n2,0.1\n"));
  EXPECT_EQ(rows[0][0].item<double>(), 1700000000123.0);
  EXPECT_EQ(rows[0][1].item<double>(), 1e308);
  EXPECT_EQ(rows[1][1].item<double>(), 0.1);
}

TEST(Csv, NamesFileLineAndColumnOfABadCell) {
  const TempFolder folder;
  const auto refused = [&](const std::string& text, const std::vector<std::string>& parts) {
    const auto file = folder.write("bad.csv", text);
    expect_data_error([&] { read_rows(file); }, parts);
    expect_data_error([&] { read_rows(file); }, {"bad.csv"});
  };
  refused("1,2\n3,x4\n", {"line 2, column 2", "'x4'"});
  refused("a,b\n\n1,2\n3,\n", {"line 4, column 2", "''"});
  refused("1,2\n3,nan\n", {"line 2, column 2"});
  refused("1,2\n3,1e999\n", {"line 2, column 2"});
  refused("1,b\n", {"line 1, column 2", "'b'"});
  refused("1,2\n3,4,5\n", {"line 2 has 3 cells", "line 1 has 2"});
  refused("1,2\n3;4\n", {"line 2 has 1 cells"});
  refused("1,2\n3,4\xFF\n", {"line 2, column 2", "byte 0xFF", "encoding"});
  refused("a,b\n", {"no rows"});
  refused("\n\n", {"no rows"});
  refused(std::string("\x7F\x45LF\0\0", 6), {"neither IDX, NPY nor text"});
  refused("1\n\x1B[31mred and a lot more of it to follow\n", {"'?[31mred", "..."});
  refused("", {"empty"});
}

TEST(Csv, IsReadInItsEncodingAndWithItsSeparator) {
  const TempFolder folder;
  const TableOptions latin1{.encoding = "latin1"};
  const auto semicolons = folder.write("s.csv",
                                       "gr\xF6\xDF"
                                       "e;h;l\n1;2.5;-300\n4;5;6\n");
  EXPECT_TRUE(at::equal(read_rows(semicolons, {}, latin1), two_by_three()));
  EXPECT_TRUE(at::equal(read_rows(semicolons,
                                  {"gr\xC3\xB6\xC3\x9F"
                                   "e",
                                   "h", "l"},
                                  latin1),
                        two_by_three()));
  expect_data_error([&] { read_rows(semicolons); }, {"s.csv", "line 1, column 1", "byte 0xF6"});
  // A spreadsheet's "Unicode text".
  std::string utf16 = "\xFF\xFE";
  for (const char c : std::string("a\tb\tc\r\n1\t2.5\t-300\r\n4\t5\t6\r\n")) {
    utf16 += {c, '\0'};
  }
  const auto wide = folder.write("w.csv", utf16);
  EXPECT_TRUE(at::equal(read_rows(wide, {}, {.encoding = "utf-16"}), two_by_three()));
  expect_data_error([&] { read_rows(wide); }, {"w.csv", "UTF-16", "encoding"});
  expect_data_error(
      [&] { read_rows(folder.write("j.csv", "1\n\x85\n"), {}, {.encoding = "shift_jis"}); },
      {"j.csv", "line 2", "shift_jis"});
}

TEST(Rows, ChooseTheFormatByContent) {
  const TempFolder folder;
  const torch::Tensor rows =
      read_rows(folder.write("rows.csv", gzip(idx_bytes({2, 1, 3}, "abcdef"))));
  EXPECT_EQ(rows.sizes(), (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(rows[1][0].item<int>(), 'd');
  expect_data_error([&] { read_rows(folder.write("labels", idx_bytes({3}, "abc"))); },
                    {"labels", "images were expected"});
  expect_data_error([&] { read_rows(folder.write("none", idx_bytes({0, 3}, ""))); }, {"no values"});
  // A name is a promise.
  expect_data_error([&] { read_rows(folder.write("t10k-images-idx3-ubyte.gz", "1,2,3\n")); },
                    {"not an IDX file"});
  expect_data_error([&] { read_rows(folder.path() / "absent.csv"); }, {"no such file"});
}

TEST(Preprocessing, FitsMeanAndDeviationOfAllValues) {
  const Preprocessing bytes =
      Preprocessing::fit(torch::tensor(std::vector<int>{0, 2, 4, 6}).to(torch::kByte).view({2, 2}));
  EXPECT_EQ(bytes.features, 2);
  EXPECT_DOUBLE_EQ(bytes.mean, 3);
  EXPECT_DOUBLE_EQ(bytes.deviation, std::sqrt(5.0));
  const Preprocessing floats =
      Preprocessing::fit(torch::tensor(std::vector<float>{0, 2, 4, 6}).view({2, 2}));
  EXPECT_DOUBLE_EQ(floats.mean, 3);
  EXPECT_DOUBLE_EQ(floats.deviation, std::sqrt(5.0));
  // Nothing to divide by.
  EXPECT_DOUBLE_EQ(Preprocessing::fit(torch::full({3, 2}, 7.0F)).deviation, 1);
  EXPECT_THROW(Preprocessing::fit(torch::zeros({0, 2})), DataError);
  EXPECT_THROW(Preprocessing::fit(torch::zeros({2, 2}, torch::kLong)), DataError);
}

TEST(Preprocessing, LosesNothingOfSmallDifferencesBetweenLargeValues) {
  const torch::Tensor x =
      torch::tensor(std::vector<double>{1700000000000.0, 1700000000002.0}, torch::kDouble)
          .view({2, 1});
  const torch::Tensor expected = torch::tensor(std::vector<float>{-1, 1}).view({2, 1});
  EXPECT_TRUE(at::equal(Preprocessing::fit_features(x).apply(x), expected));
  EXPECT_TRUE(at::equal(Preprocessing::fit(x).apply(x), expected));
}

TEST(Preprocessing, TakesEveryFiniteNumber) {
  constexpr double kMost = std::numeric_limits<double>::max();
  for (const double least : {-kMost, kMost / 2, 0.0}) {
    const torch::Tensor x =
        torch::tensor(std::vector<double>{least, kMost}, torch::kDouble).view({2, 1});
    const torch::Tensor z = Preprocessing::fit_features(x).apply(x);
    EXPECT_FLOAT_EQ(z[0][0].item<float>(), -1) << least;
    EXPECT_FLOAT_EQ(z[1][0].item<float>(), 1) << least;
  }
  // What is absurdly far away is still a number, and so is the sum of its squares.
  const Preprocessing narrow = Preprocessing::fit_features(
      torch::tensor(std::vector<double>{1, 2}, torch::kDouble).view({2, 1}));
  const torch::Tensor far = narrow.apply(torch::full({1, 1}, kMost, torch::kDouble));
  EXPECT_GT(far.item<float>(), 1e14);
  EXPECT_TRUE(std::isfinite(far.square().item<float>() * 1000));
}

TEST(Preprocessing, LeavesAConstantAlone) {
  // The mean of 0.1 taken ten times is not 0.1 in floating point.
  const torch::Tensor x = torch::full({10, 1}, 0.1, torch::kDouble);
  for (const Preprocessing& fitted : {Preprocessing::fit_features(x), Preprocessing::fit(x)}) {
    EXPECT_EQ(fitted.apply(x).abs().max().item<float>(), 0);
    EXPECT_FLOAT_EQ(fitted.apply(torch::full({1, 1}, 1.1, torch::kDouble)).item<float>(), 1);
  }
}

TEST(Preprocessing, GivesEqualBitsForEqualValuesOfEveryTypeAndThreadCount) {
  Preprocessing preprocessing{.features = 256, .mean = 72.94, .deviation = 90.02};
  const torch::Tensor bytes = torch::arange(256).to(torch::kByte).view({1, 256}).expand({500, 256});
  const torch::Tensor expected =
      ((torch::arange(256, torch::kDouble) - 72.94) / 90.02).to(torch::kFloat).expand({500, 256});
  const int threads = at::get_num_threads();
  for (const int count : {1, 2, 5}) {
    at::set_num_threads(count);
    EXPECT_TRUE(at::equal(preprocessing.apply(bytes), expected)) << count;
    EXPECT_TRUE(at::equal(preprocessing.apply(bytes.to(torch::kFloat)), expected)) << count;
    EXPECT_TRUE(at::equal(preprocessing.apply(bytes.to(torch::kDouble)), expected)) << count;
  }
  at::set_num_threads(threads);
}

TEST(Preprocessing, RefusesOtherWidths) {
  const Preprocessing preprocessing{.features = 784};
  expect_data_error([&] { preprocessing.apply(torch::zeros({2, 3})); }, {"3 features", "784"});
}

}  // namespace
}  // namespace perennial::continual
