// SPDX-License-Identifier: Apache-2.0
// NPY files: types and shapes that are read, and hostile headers that are refused.
#include <ATen/ops/equal.h>

#include <limits>

#include "continual/data/data_files.h"
#include "perennial/continual/dataset.h"

namespace perennial::continual {
namespace {

std::string npy_header(const std::string& descr, const std::string& shape,
                       const std::string& order = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape +
         ", }   \n";
}

const std::vector<float> kValues = {1.5F, -2, 3, 0, 5, 6};

TEST(Npy, ReadsEachTypeIntoRows) {
  const TempFolder folder;
  const torch::Tensor expected = torch::tensor(kValues).view({2, 3});
  const torch::Tensor floats =
      read_rows(folder.write("f4.npy", npy_bytes(npy_header("<f4", "(2, 3)"), raw_bytes(kValues))));
  EXPECT_EQ(floats.scalar_type(), torch::kFloat);
  EXPECT_TRUE(at::equal(floats, expected));

  const std::vector<double> doubles(kValues.begin(), kValues.end());
  EXPECT_TRUE(at::equal(
      read_rows(folder.write("f8", npy_bytes(npy_header("<f8", "(2, 3)"), raw_bytes(doubles)))),
      expected.to(torch::kDouble)));

  const torch::Tensor bytes =
      read_rows(folder.write("u1", npy_bytes(npy_header("|u1", "(1,2,3,)"), "abcdef")));
  EXPECT_EQ(bytes.scalar_type(), torch::kByte);
  EXPECT_EQ(bytes.sizes(), (std::vector<std::int64_t>{1, 6}));
  EXPECT_EQ(bytes[0][5].item<int>(), 'f');
}

TEST(Npy, ReadsManyDoublesAndGzipAndVersionTwo) {
  const TempFolder folder;
  std::vector<double> doubles(9001);
  for (std::size_t i = 0; i < doubles.size(); ++i) doubles[i] = 1.7e12 + static_cast<double>(i);
  const std::string text = npy_header("<f8", "(9001, 1)");
  const torch::Tensor rows =
      read_rows(folder.write("packed", gzip(npy_bytes(text, raw_bytes(doubles)))));
  ASSERT_EQ(rows.size(0), 9001);
  for (std::int64_t i = 0; i < 9001; ++i) {
    ASSERT_EQ(rows[i][0].item<double>(), 1.7e12 + static_cast<double>(i));
  }
  std::string second = std::string("\x93NUMPY") + '\x02' + '\0';
  const std::string dictionary = npy_header("|u1", "(1, 2)");
  second += static_cast<char>(dictionary.size()) + std::string(3, '\0') + dictionary + "xy";
  EXPECT_EQ(read_rows(folder.write("v2", second))[0][1].item<int>(), 'y');
}

TEST(Npy, RefusesHostileFiles) {
  const TempFolder folder;
  const auto refused = [&](const std::string& bytes, const std::vector<std::string>& parts) {
    const auto file = folder.write("bad.npy", bytes);
    expect_data_error([&] { read_rows(file); }, parts);
    expect_data_error([&] { read_rows(file); }, {"bad.npy"});
  };
  const std::string six = raw_bytes(kValues);
  refused("", {"empty"});
  refused("1,2,3\n", {"truncated"});
  refused("1,2,3,4,5,6\n", {"not an NPY file"});
  refused("\x93NUMPY", {"truncated"});
  refused(std::string("\x93NUMPY\x09\0\x10\0", 10), {"version 9"});
  refused(std::string("\x93NUMPY\x02\0\xFF\xFF\xFF\x7F{", 13), {"header of 2147483647 bytes"});
  refused(npy_bytes(npy_header("<f4", "(2, 3)"), six).substr(0, 40), {"truncated", "header"});
  refused(npy_bytes(npy_header("<f4", "(2, 3)"), six.substr(1)), {"2 x 3", "23"});
  refused(npy_bytes(npy_header("<f4", "(2, 3)"), six + "x"), {"more"});
  refused(npy_bytes(npy_header("<f4", "(4611686018427387904, 4)"), six), {"promises"});
  refused(npy_bytes(npy_header("<f4", "(9223372036854775807, 3)"), six), {"promises"});
  refused(npy_bytes(npy_header("<f4", "(99999999999999999999, 3)"), six), {"shape"});
  refused(npy_bytes(npy_header("<f4", "(-2, 3)"), six), {"shape"});
  refused(npy_bytes(npy_header("<f4", "(0, 3)"), ""), {"no values"});
  refused(npy_bytes(npy_header("<f4", "(6,)"), six), {"1 dimensions"});
  refused(npy_bytes(npy_header("<f4", "(1, 1, 2, 3)"), six), {"4 dimensions"});
  refused(npy_bytes(npy_header("<f4", "(2, 3)", "True"), six), {"Fortran"});
  refused(npy_bytes(npy_header("<f4", "(2, 3)", "Maybe"), six), {"fortran_order"});
  refused(npy_bytes(npy_header("<i8", "(1, 3)"), six), {"<i8", "|u1, <f4 or <f8"});
  refused(npy_bytes("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3)}", six),
          {"structured"});
  refused(npy_bytes("{'descr': '<f4', 'shape': (2, 3)}", six), {"lacks"});
  refused(npy_bytes("{'descr': '<f4', 'colour': 'red'}", six), {"colour"});
  refused(npy_bytes("{'descr': '<f4", six), {"damaged"});
  refused(npy_bytes("(2, 3)", six), {"damaged"});
}

TEST(Npy, RefusesValuesThatAreNotFinite) {
  const TempFolder folder;
  std::vector<float> values = kValues;
  values[4] = std::numeric_limits<float>::quiet_NaN();
  expect_data_error(
      [&] {
        read_rows(
            folder.write("nan.npy", npy_bytes(npy_header("<f4", "(2, 3)"), raw_bytes(values))));
      },
      {"nan.npy", "row 1, column 1"});
  const std::vector<double> huge = {1, std::numeric_limits<double>::infinity()};
  expect_data_error(
      [&] {
        read_rows(folder.write("inf.npy", npy_bytes(npy_header("<f8", "(2, 1)"), raw_bytes(huge))));
      },
      {"row 1, column 0"});
}

}  // namespace
}  // namespace perennial::continual
