// SPDX-License-Identifier: Apache-2.0
// Data sets by their files: CIFAR, NPY, tables, a test part for what has none; and what is refused.
#include <ATen/ops/equal.h>

#include <algorithm>
#include <map>

#include "continual/data/data_files.h"
#include "perennial/continual/stream.h"

namespace perennial::continual {
namespace {

std::string cifar_record(int label, int fill, bool coarse = false) {
  std::string record = coarse ? std::string(1, '\x07') : std::string();
  record += static_cast<char>(label);
  for (int plane = 0; plane < 3; ++plane)
    record += std::string(1024, static_cast<char>(fill + plane));
  return record;
}

void write_cifar10(const TempFolder& folder, const std::string& name) {
  for (int i = 1; i <= 5; ++i) {
    folder.write(name + "/data_batch_" + std::to_string(i) + ".bin",
                 cifar_record(i, 10 * i) + cifar_record(9 - i, 10 * i + 5));
  }
  folder.write(name + "/test_batch.bin", cifar_record(3, 100));
}

std::string header(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
}

template <class T>
std::string npy(const std::string& descr, const std::string& shape, const std::vector<T>& values) {
  return npy_bytes(header(descr, shape), raw_bytes(values));
}

TrainTest load(const std::filesystem::path& place, const TableOptions& options = {},
               const std::vector<std::string>& known = {}) {
  return load_dataset(place.string(), options, 1, known);
}

TEST(Cifar, ReadsBothBinaryVersions) {
  const TempFolder folder;
  write_cifar10(folder, "ten");
  const TrainTest ten = load(folder.path() / "ten");
  EXPECT_EQ(ten.name, "ten");
  EXPECT_EQ(ten.train.size(), 10);
  EXPECT_EQ(ten.test.size(), 1);
  EXPECT_EQ(ten.train.features(), 3072);
  EXPECT_EQ(ten.train.image_rows, 32);
  EXPECT_EQ(ten.train.image_channels, 3);
  EXPECT_EQ(ten.train.classes(), 10);
  EXPECT_EQ(ten.train.y[1].item<int>(), 8);
  EXPECT_EQ(ten.train.x[1][0].item<int>(), 15);
  EXPECT_EQ(ten.train.x[1][3071].item<int>(), 17);

  folder.write("ten/batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
  EXPECT_EQ(load(folder.path() / "ten").train.label_names[9], "j");
  folder.write("ten/batches.meta.txt", "a\nb\n");
  expect_data_error([&] { load(folder.path() / "ten"); }, {"batches.meta.txt", "2 names", "10"});

  folder.write("hundred/train.bin", cifar_record(99, 1, true) + cifar_record(0, 2, true));
  folder.write("hundred/test.bin.gz", gzip(cifar_record(42, 3, true)));
  const TrainTest hundred = load(folder.path() / "hundred");
  EXPECT_EQ(hundred.train.classes(), 100);
  EXPECT_EQ(hundred.train.y[0].item<int>(), 99);
  EXPECT_EQ(hundred.test.y[0].item<int>(), 42);
  EXPECT_EQ(hundred.test.x[0][1024].item<int>(), 4);
  // What a stream does with it.
  const Stream stream({.stream = StreamKind::rotated,
                       .dataset = (folder.path() / "hundred").string(),
                       .experiences = 2});
  EXPECT_EQ(stream.image_channels(), 3);
}

TEST(Cifar, RefusesWhatIsNoCifar) {
  const TempFolder folder;
  const auto refused = [&](const std::vector<std::string>& parts) {
    expect_data_error([&] { load(folder.path() / "d"); }, parts);
  };
  write_cifar10(folder, "d");
  folder.write("d/data_batch_4.bin", cifar_record(1, 1) + "x");
  refused({"data_batch_4.bin", "3073", "3074"});
  folder.write("d/data_batch_4.bin", "");
  refused({"data_batch_4.bin", "0 bytes"});
  folder.write("d/data_batch_4.bin", cifar_record(1, 1) + cifar_record(10, 1));
  refused({"data_batch_4.bin", "record 1", "byte 3073", "label 10", "10 classes"});
  std::filesystem::remove(folder.path() / "d/data_batch_4.bin");
  refused({"data_batch_4.bin is not there"});
}

TEST(NpyDataset, ReadsPartsAndSplitsWhatHasNone) {
  const TempFolder folder;
  folder.write("d/x_train.npy", npy<float>("<f4", "(3, 2)", {1, 2, 3, 4, 5, 6}));
  folder.write("d/y_train.npy", npy<std::int64_t>("<i8", "(3,)", {0, 2, 1}));
  folder.write("d/x_test.npy", npy<float>("<f4", "(1, 2)", {7, 8}));
  folder.write("d/y_test.npy", npy<std::uint8_t>("|u1", "(1, 1)", {2}));
  const TrainTest data = load(folder.path() / "d");
  EXPECT_EQ(data.train.label_names, (std::vector<std::string>{"0", "1", "2"}));
  EXPECT_EQ(data.train.y[1].item<int>(), 2);
  EXPECT_EQ(data.test.x[0][1].item<float>(), 8);
  EXPECT_TRUE(data.notes.empty());

  folder.write("one/x.npy", npy_bytes(header("|u1", "(6, 2, 3)"), std::string(36, 'x')));
  folder.write("one/y.npy", npy<std::int16_t>("<i2", "(6,)", {0, 0, 0, 1, 1, 1}));
  const TrainTest one = load(folder.path() / "one");
  EXPECT_EQ(one.train.size(), 4);
  EXPECT_EQ(one.test.size(), 2);
  EXPECT_EQ(one.test.y.sum().item<int>(), 1);
  EXPECT_EQ(one.train.image_rows, 2);
  EXPECT_EQ(one.train.image_cols, 3);
  ASSERT_EQ(one.notes.size(), 1U);
  EXPECT_NE(one.notes[0].find("2 of 6"), std::string::npos) << one.notes[0];
}

TEST(NpyDataset, RefusesLabelsThatAreNone) {
  const TempFolder folder;
  folder.write("d/x.npy", npy<float>("<f4", "(2, 1)", {1, 2}));
  const auto refused = [&](const std::string& labels, const std::vector<std::string>& parts) {
    folder.write("d/y.npy", labels);
    expect_data_error([&] { load(folder.path() / "d"); }, parts);
  };
  refused(npy<float>("<f4", "(2,)", {1, 2}), {"y.npy", "<f4", "integers"});
  refused(npy<std::int32_t>("<i4", "(2,)", {1, -2}), {"row 1", "-2"});
  refused(npy<std::int64_t>("<i8", "(2,)", {std::int64_t{1} << 40, 0}), {"row 0", "1099511627776"});
  refused(npy<std::int32_t>("<i4", "(3,)", {1, 2, 0}), {"3 labels", "2 examples", "x.npy"});
  refused(npy<std::int32_t>("<i4", "(1, 2)", {1, 0}), {"1 x 2", "one dimension"});
  refused(npy<std::int32_t>("<i4", "(9,)", {1, 0}), {"promises", "9"});
  refused(npy<std::int32_t>("<i4", "(1,)", {1, 0}), {"more"});
  std::filesystem::remove(folder.path() / "d/y.npy");
  expect_data_error([&] { load(folder.path() / "d"); }, {"y.npy is not there"});
}

TEST(LoadDataset, SaysWhatItLookedFor) {
  const TempFolder folder;
  folder.write("d/readme.txt", "nothing");
  expect_data_error([&] { load(folder.path() / "d"); },
                    {"train-images-idx3-ubyte", "data_batch_1.bin", "x_train.npy", "train.csv"});
  expect_data_error([] { load_dataset("no-such-thing"); }, {"no-such-thing", "PERENNIAL_DATA"});
  write_idx_dataset(folder, "mnist", 12, 6, 3);
  const ScopedEnvironment data("PERENNIAL_DATA", folder.path().c_str());
  EXPECT_EQ(load_dataset("mnist").train.size(), 12);
}

TEST(LoadDataset, RefusesOptionsThatWouldDoNothing) {
  const TempFolder folder;
  write_idx_dataset(folder, "d", 12, 6, 3);
  for (const TableOptions& options :
       {TableOptions{.label_column = "x"}, TableOptions{.header = HeaderChoice::no},
        TableOptions{.bad_rows = BadRows::skip}, TableOptions{.test_share = 0.5},
        TableOptions{.missing_values = MissingValues::mean}}) {
    EXPECT_THROW(load(folder.path() / "d", options), InvalidOptions);
  }
}

const std::string kPets =
    "weight,legs,kind,tail\n4.5,4,cat,1\n0.1,2,bird,1\n5.5,4,cat,1\n0.2,2,bird,1\n3,4,cat,0\n"
    "0.3,2,bird,1\n";

TEST(Table, ReadsTextLabelsByNameOrNumberOrTheLastColumn) {
  const TempFolder folder;
  const auto file = folder.write("pets.csv", kPets);
  for (const std::string column : {"kind", "3"}) {
    const TrainTest pets = load(file, {.label_column = column});
    EXPECT_EQ(pets.name, "pets.csv");
    EXPECT_TRUE(pets.train.table);
    EXPECT_EQ(pets.train.label_names, (std::vector<std::string>{"bird", "cat"}));
    EXPECT_EQ(pets.train.columns, (std::vector<std::string>{"weight", "legs", "tail"}));
    EXPECT_EQ(pets.train.size(), 4);  // of three a class one is kept for testing
    EXPECT_EQ(pets.test.size(), 2);
    for (std::int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(pets.train.x[i][1].item<int>(), pets.train.y[i].item<int>() == 1 ? 4 : 2);
    }
  }
  // Without a name: the column called label, else the last one.
  EXPECT_EQ(load(folder.write("a.csv", "label,x\nb,1\nb,2\na,3\na,4\n")).train.columns,
            (std::vector<std::string>{"x"}));
  const TrainTest last = load(folder.write("b.csv", "1,2,yes\n3,4,no\n5,6,yes\n7,8,no\n"));
  EXPECT_TRUE(last.train.columns.empty());
  EXPECT_EQ(last.train.label_names, (std::vector<std::string>{"no", "yes"}));
  expect_data_error([&] { load(file, {.label_column = "colour"}); }, {"line 1", "'colour'", "4"});
  expect_data_error([&] { load(file, {.label_column = "5"}); }, {"'5'"});
  // Labels that are numbers sort as such.
  const TrainTest numbers = load(folder.write("n.csv", "1,10\n1,9\n1,10\n2,9\n"));
  EXPECT_EQ(numbers.train.label_names, (std::vector<std::string>{"9", "10"}));
}

TEST(Table, HeaderIsDetectedOrSaid) {
  const TempFolder folder;
  const auto years = folder.write("y.csv", "2019,2020,kind\n1,2,a\n3,4,a\n5,6,b\n7,8,b\n");
  expect_data_error([&] { load(years, {.label_column = "kind"}); },
                    {"line 1", "'kind'", "have no names"});
  EXPECT_EQ(load(years, {.header = HeaderChoice::yes}).train.columns,
            (std::vector<std::string>{"2019", "2020"}));
  expect_data_error(
      [&] { load(folder.write("h.csv", "a,b\n1,x\n"), {.header = HeaderChoice::no}); },
      {"line 1, column 1", "'a'"});
  expect_data_error([&] { load(folder.write("t.csv", "a,a,label\n1,1,x\n")); }, {"twice"});
}

TEST(Table, QuotesFollowRfc4180) {
  const TempFolder folder;
  const TrainTest data = load(
      folder.write("q.csv", "x,label\n1,\"a, \"\"b\"\"\"\n2,\"a, \"\"b\"\"\"\r\n\"3\", c \n4,c\n"));
  EXPECT_EQ(data.train.label_names, (std::vector<std::string>{"a, \"b\"", "c"}));
  expect_data_error([&] { load(folder.write("o.csv", "x,label\n1,\"a\n2,b\n")); },
                    {"o.csv", "line 2", "does not end"});
  expect_data_error([&] { load(folder.write("p.csv", "x,label\n1,\"a\"b\n")); },
                    {"line 2", "separator (',') was expected", "'a'"});
}

TEST(Table, BadRowsAreRefusedOrSkippedCountedAndNamed) {
  const TempFolder folder;
  const auto file = folder.write(
      "bad.csv", "age,label\n1,a\n2,a\n,a\n4,b\nold,b\n6\n7,\n8,b\nNA,b\n10,b\n11,x,y\n");
  expect_data_error([&] { load(file); }, {"bad.csv", "line 4, column 1 ('age')", "''", "no value"});
  const TrainTest skipped = load(file, {.bad_rows = BadRows::skip});
  EXPECT_EQ(skipped.train.size() + skipped.test.size(), 5);
  ASSERT_FALSE(skipped.notes.empty());
  for (const std::string part :
       {"6 of 11 rows skipped", "line 4, column 1", "line 6, column 1 ('age'): 'old'",
        "line 7 has 1 cells, line 1 has 2", "line 8, column 2 ('label'): no label", "line 10",
        "and 1 more"}) {
    EXPECT_NE(skipped.notes[0].find(part), std::string::npos) << skipped.notes[0] << "\n" << part;
  }
  expect_data_error(
      [&] { load(folder.write("all.csv", "x,label\na,b\nc,d\n"), {.bad_rows = BadRows::skip}); },
      {"2 of 2 rows skipped", "none is left"});
  expect_data_error([&] { load(folder.write("e.csv", "x,label\n")); }, {"no rows"});
}

TEST(Table, MissingFeaturesMayBeTheirColumnsMean) {
  const TempFolder folder;
  const auto file =
      folder.write("m.csv", "x,y,label\n1,10,a\n3,,a\n?,20,a\n5,30,b\nnull,40,b\n7,NaN,b\n");
  TableOptions options{.missing_values = MissingValues::mean, .test_share = 0.001};
  const TrainTest data = load(file, options);
  StreamOptions stream_options{.stream = StreamKind::single, .table = options};
  TrainTest whole{data.train, data.train, "m"};
  whole.train.x = whole.test.x =
      torch::tensor(std::vector<float>{1, 10, 3, NAN, NAN, 20, 5, 30}).view({4, 2});
  whole.train.y = whole.test.y = torch::tensor(std::vector<std::int64_t>{0, 0, 1, 1});
  const Stream stream(stream_options, whole);
  // Each column by its own mean and deviation, and what is missing is at the mean.
  EXPECT_EQ(stream.preprocessing().means, (std::vector<double>{3, 20}));
  EXPECT_DOUBLE_EQ(stream.preprocessing().deviations[1], std::sqrt(200.0 / 3));
  const torch::Tensor x = stream.test_batch(0, 0, 4).x;
  EXPECT_EQ(x[1][1].item<float>(), 0);
  EXPECT_EQ(x[2][0].item<float>(), 0);
  EXPECT_EQ(x[1][0].item<float>(), 0);
  EXPECT_FLOAT_EQ(x[3][1].item<float>(), float(10 / std::sqrt(200.0 / 3)));
  EXPECT_TRUE(at::equal(x, stream.preprocessing().apply(whole.train.x)));
}

TEST(Table, TestPartHasTheTrainingPartsColumnsAndLabels) {
  const TempFolder folder;
  folder.write("d/train.csv", "a,b,label\n1,2,x\n3,4,y\n");
  folder.write("d/test.csv", "label,b,extra,a\ny,20,0,10\n");
  TrainTest data = load(folder.path() / "d");
  EXPECT_EQ(data.test.x[0][0].item<int>(), 10);
  EXPECT_EQ(data.test.x[0][1].item<int>(), 20);
  EXPECT_EQ(data.test.y[0].item<int>(), 1);
  folder.write("d/test.csv", "label,b,a\nz,20,10\n");
  expect_data_error([&] { load(folder.path() / "d"); }, {"test.csv", "line 2", "'z'", "training"});
  folder.write("d/test.csv", "label,a\ny,10\n");
  expect_data_error([&] { load(folder.path() / "d"); }, {"test.csv", "line 1", "'b'"});
}

TEST(Jsonl, ReadsFieldsAndArraysInAnyOrder) {
  const TempFolder folder;
  const TrainTest data = load(folder.write("r.jsonl",
                                           "{\"x\": [1, 2.5], \"age\": 3, \"label\": \"a\"}\n\n"
                                           "{\"label\": \"b\", \"age\": 30, \"x\": [10, 25]}\n"
                                           "{\"x\": [1, 2], \"age\": 3, \"label\": \"a\"}\n"
                                           "{\"x\": [1, 2], \"age\": 3, \"label\": \"b\"}\n"));
  EXPECT_EQ(data.train.columns, (std::vector<std::string>{"x[0]", "x[1]", "age"}));
  EXPECT_EQ(data.train.label_names, (std::vector<std::string>{"a", "b"}));
  const torch::Tensor large =
      read_rows(folder.write("l.jsonl", "{\"x\": [1700000000123, 1e308]}\n"));
  EXPECT_EQ(large[0][0].item<double>(), 1700000000123.0);
  EXPECT_EQ(large[0][1].item<double>(), 1e308);
  const auto refused = [&](const std::string& line, const std::vector<std::string>& parts) {
    const auto file = folder.write("bad", "{\"x\": 1, \"label\": \"a\"}\n" + line + "\n");
    expect_data_error([&] { load(file); }, parts);
    expect_data_error([&] { load(file); }, {"bad: line 2"});
  };
  refused("{\"x\": 1", {"not JSON"});
  refused("[1, 2]", {"object was expected"});
  refused("{\"x\": null, \"label\": \"a\"}", {"column 1 ('x')", "no value"});
  refused("{\"label\": \"a\"}", {"('x')", "no value"});
  refused("{\"x\": 1}", {"no label"});
  refused("{\"x\": \"1\", \"label\": \"a\"}", {"'1' is not a number"});
  refused("{\"x\": 1, \"y\": 2, \"label\": \"a\"}", {"'y'", "line 1 does not have"});
  expect_data_error([&] { load(folder.write("c.jsonl", "{\"x\": 1}\n")); },
                    {"'label'", "label_column"});
}

TEST(ReadRows, TakesFeaturesByNameAndRefusesBadRows) {
  const TempFolder folder;
  const auto file = folder.write("p.csv", "kind,legs,weight,tail\ncat,4,3.5,1\n,2,0.5,0\n");
  const torch::Tensor rows = read_rows(file, {"weight", "legs"});
  EXPECT_TRUE(at::equal(rows, torch::tensor(std::vector<double>{3.5, 4, 0.5, 2}).view({2, 2})));
  expect_data_error([&] { read_rows(file, {"weight", "wings"}); }, {"p.csv", "'wings'"});
  const auto gap = folder.write("g.csv", "weight\n1\nNA\n");
  expect_data_error([&] { read_rows(gap, {"weight"}, {.bad_rows = BadRows::skip}); }, {"line 3"});
  const torch::Tensor allowed = read_rows(gap, {"weight"}, {.missing_values = MissingValues::mean});
  EXPECT_TRUE(std::isnan(allowed[1][0].item<float>()));
}

TEST(TestSplit, IsStratifiedAndAFunctionOfItsSeed) {
  const TempFolder folder;
  std::string text = "x,label\n";
  for (int i = 0; i < 100; ++i) text += std::to_string(i) + (i % 10 == 0 ? ",rare\n" : ",often\n");
  text += "100,once\n";
  const std::string file = folder.write("s.csv", text).string();
  const TrainTest a = load_dataset(file, {.test_share = 0.3}, 1);
  EXPECT_EQ(a.test.size(), 27 + 3);
  EXPECT_EQ(a.test.y.eq(2).sum().item<int>(), 3);  // often, once, rare
  EXPECT_EQ(a.train.y.eq(1).sum().item<int>(), 1);
  std::vector<float> all;
  for (const Dataset* part : {&a.train, &a.test}) {
    for (std::int64_t i = 0; i < part->size(); ++i) all.push_back(part->x[i][0].item<float>());
  }
  std::sort(all.begin(), all.end());
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], float(i));
  EXPECT_TRUE(at::equal(load_dataset(file, {.test_share = 0.3}, 1).test.x, a.test.x));
  EXPECT_FALSE(at::equal(load_dataset(file, {.test_share = 0.3}, 2).test.x, a.test.x));
}

TEST(LearntBefore, KeepsPreprocessingAndLabelNumbersAndAppendsANewClass) {
  const TempFolder folder;
  const auto first = folder.write("a.csv", "x,z,label\n1,5,m\n2,6,k\n3,7,m\n4,8,k\n");
  const auto later = folder.write("b.csv", "x,z,label\n10,5,a\n20,6,k\n30,7,a\n40,8,k\n");
  const StreamOptions options{.stream = StreamKind::single};
  const Stream old(options, load(first));
  const LearntBefore before{old.label_names(), old.preprocessing()};
  EXPECT_EQ(before.label_names, (std::vector<std::string>{"k", "m"}));
  const Stream next(options, load(later, {}, before.label_names), before);
  EXPECT_EQ(next.label_names(), (std::vector<std::string>{"k", "m", "a"}));
  EXPECT_EQ(next.preprocessing().means, old.preprocessing().means);
  EXPECT_TRUE(next.test_batch(0, 0, 2).y.ne(1).all().item<bool>());
  // Without the store's labels, or with other columns, it cannot go on.
  expect_data_error([&] { Stream(options, load(later), before); }, {"labels", "before"});
  const auto other = folder.write("c.csv", "z,x,label\n10,5,m\n20,6,k\n30,7,m\n40,8,k\n");
  expect_data_error([&] { Stream(options, load(other, {}, before.label_names), before); },
                    {"feature 1", "'z'", "'x'"});
}

}  // namespace
}  // namespace perennial::continual
