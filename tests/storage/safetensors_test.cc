// SPDX-License-Identifier: Apache-2.0
// Safetensors files: round trips, writers that fail, and the Python package.
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdlib>

#include "storage/safetensors_testing.h"

namespace perennial::storage::testing {
namespace {

TEST_F(SafetensorsTest, WhatIsNoFileIsRefused) {
  EXPECT_EQ(open_status().code(), StatusCode::not_found);
  ASSERT_EQ(::mkfifo(path().c_str(), 0600), 0);
  EXPECT_EQ(open_status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(SafetensorsReader::open(folder.path()).status().code(), StatusCode::invalid_argument);
}

TEST_F(SafetensorsTest, ComesBackAsWritten) {
  for (const std::size_t step : {std::size_t{1}, std::size_t{7}, all_bytes().size()}) {
    fs::remove(path());
    write_all(path(), step);
    EXPECT_EQ(files(), 1u);
    const auto opened = SafetensorsReader::open(path());
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    const SafetensorsReader& reader = **opened;
    EXPECT_EQ(reader.metadata(), (SafetensorsMetadata{{"k", "v \xe2\x82\xac\n\""}, {"", ""}}));
    ASSERT_EQ(reader.tensors().size(), specs().size());
    const Bytes expected = all_bytes();
    std::uint64_t at = 0;
    for (const TensorSpec& spec : specs()) {
      const TensorInfo* info = reader.find(spec.name);
      ASSERT_NE(info, nullptr);
      EXPECT_EQ(info->type, spec.type);
      EXPECT_EQ(info->shape, spec.shape);
      EXPECT_EQ(info->offset, at);
      Bytes found(info->bytes);
      ASSERT_TRUE(reader.read(spec.name, 0, found).ok());
      EXPECT_TRUE(std::equal(found.begin(), found.end(), expected.begin() + info->offset));
      if (info->bytes > 2) {
        ASSERT_TRUE(reader.read(spec.name, 1, std::span(found).first(info->bytes - 2)).ok());
        EXPECT_TRUE(std::equal(found.begin(), found.end() - 2, expected.begin() + at + 1));
      }
      at += info->bytes;
    }
    Bytes two(2);
    EXPECT_EQ(reader.find("m"), nullptr);
    EXPECT_EQ(reader.read("m", 0, two).code(), StatusCode::not_found);
    EXPECT_EQ(reader.read("n", 7, two).code(), StatusCode::invalid_argument);
    EXPECT_EQ(reader.read("n", ~std::uint64_t{0}, two).code(), StatusCode::invalid_argument);
    fs::resize_file(path(), fs::file_size(path()) - 1);
    EXPECT_EQ(reader.read("n", 6, two).code(), StatusCode::corruption);
    EXPECT_EQ(open_status().code(), StatusCode::corruption);
  }
}

TEST_F(SafetensorsTest, TheDataBeginsAtAMultipleOf8) {
  write_all(path(), 1000);
  EXPECT_EQ((fs::file_size(path()) - all_bytes().size()) % 8, 0u);
}

TEST_F(SafetensorsTest, WritersRefuseWhatCannotBeRead) {
  using Specs = std::vector<TensorSpec>;
  const std::uint64_t big = std::uint64_t{1} << 62;
  const auto code = [&](const Specs& tensors, const SafetensorsMetadata& metadata = {}) {
    const auto writer = SafetensorsWriter::create(path(), tensors, metadata);
    return writer.ok() ? StatusCode::ok : writer.status().code();
  };
  for (const Specs& tensors :
       {Specs{{"a", TensorType::u8, {1}}, {"a", TensorType::u8, {1}}},
        Specs{{"__metadata__", TensorType::u8, {1}}}, Specs{{"\xff", TensorType::u8, {1}}},
        Specs{{"a", TensorType::u8, std::vector<std::uint64_t>(kMaxSafetensorsDims + 1, 1)}},
        Specs{{"a", TensorType::f32, {big, 4}}}, Specs{{"a", TensorType::u8, {2 * big}}},
        Specs{{"a", TensorType::u8, {big}},
              {"b", TensorType::u8, {big}},
              {"c", TensorType::u8, {2 * big}}}}) {
    EXPECT_EQ(code(tensors), StatusCode::invalid_argument);
  }
  EXPECT_EQ(code({}, {{"k", "\xff"}}), StatusCode::invalid_argument);
  EXPECT_EQ(code({}, {{"k", std::string(kMaxSafetensorsHeader, 'x')}}),
            StatusCode::invalid_argument);
  EXPECT_EQ(files(), 0u);
}

TEST_F(SafetensorsTest, NothingIsLeftOfAWriterThatDoesNotFinish) {
  const std::vector<TensorSpec> one = {{"a", TensorType::u8, {8}}};
  const Bytes bytes(8);
  const auto make = [&] { return std::move(SafetensorsWriter::create(path(), one, {})).value(); };
  EXPECT_EQ(SafetensorsWriter::create(folder.path() / "no" / "t", one, {}).status().code(),
            StatusCode::not_found);
  {
    const auto dropped = make();
    ASSERT_TRUE(dropped->append(bytes).ok());
    EXPECT_EQ(files(), 1u);
  }
  EXPECT_EQ(files(), 0u);
  {
    const auto too_short = make();
    ASSERT_TRUE(too_short->append(std::span(bytes).first(7)).ok());
    EXPECT_EQ(too_short->finish().code(), StatusCode::invalid_argument);
    EXPECT_EQ(files(), 0u);
    EXPECT_EQ(too_short->append(bytes).code(), StatusCode::invalid_argument);
  }
  {
    const auto too_long = make();
    ASSERT_TRUE(too_long->append(bytes).ok());
    EXPECT_EQ(too_long->append(std::span(bytes).first(1)).code(), StatusCode::invalid_argument);
    EXPECT_EQ(files(), 0u);
    EXPECT_EQ(too_long->finish().code(), StatusCode::invalid_argument);
  }
  {
    const auto first = make();
    EXPECT_EQ(SafetensorsWriter::create(path(), one, {}).status().code(),
              StatusCode::invalid_argument)
        << "two writers of one file";
    ASSERT_TRUE(first->append(bytes).ok());
    std::ofstream(path()) << "mine";  // made by somebody else in the meantime
    EXPECT_EQ(first->finish().code(), StatusCode::invalid_argument);
  }
  EXPECT_EQ(files(), 1u);
  EXPECT_EQ(fs::file_size(path()), 4u) << "an existing file was overwritten";
  EXPECT_EQ(SafetensorsWriter::create(path(), one, {}).status().code(),
            StatusCode::invalid_argument);
  EXPECT_EQ(files(), 1u);
}

TEST_F(SafetensorsTest, AWriteThatFailsLeavesNothing) {
  const std::vector<TensorSpec> one = {{"a", TensorType::u8, {1 << 20}}};
  const auto writer = std::move(SafetensorsWriter::create(path(), one, {})).value();
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 65'536, before.rlim_max };
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status status = writer->append(Bytes(1 << 20));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), StatusCode::io_error) << status.to_string();
  EXPECT_EQ(files(), 0u);
  EXPECT_EQ(writer->finish().to_string(), status.to_string());
}

// ---- the Python package -------------------------------------------------------------------------

// Runs a program of Python's; false when it fails. Skips the test where the package is missing.
class SafetensorsPythonTest : public SafetensorsTest {
 protected:
  void SetUp() override {
    if (!fs::exists(PERENNIAL_TEST_PYTHON) || !python("import numpy, safetensors.numpy")) {
      GTEST_SKIP() << "no Python with the package safetensors in .deps; ./scripts/setup fetches it";
    }
  }
  bool python(const std::string& program) const {
    const fs::path script = folder.path() / "program.py";
    std::ofstream(script) << program;
    const std::string log = (folder.path() / "log").string();
    const std::string command = std::string("env -u PYTHONHOME -u PYTHONPATH '") +
                                PERENNIAL_TEST_PYTHON + "' -B '" + script.string() + "' '" +
                                path().string() + "' > '" + log + "' 2>&1";
    const bool ok = std::system(command.c_str()) == 0;
    std::ifstream text(log);
    output = std::string(std::istreambuf_iterator<char>(text), {});
    return ok;
  }
  mutable std::string output;
};

TEST_F(SafetensorsPythonTest, ReadsOurs) {
  write_all(path(), 1000);
  std::string expected;
  for (const std::byte byte : all_bytes()) {
    expected += std::to_string(std::to_integer<int>(byte)) + ",";
  }
  EXPECT_TRUE(python(R"(
import sys, numpy, safetensors
with safetensors.safe_open(sys.argv[1], "numpy") as f:
    assert f.metadata() == {"k": "v \u20ac\n\"", "": ""}, f.metadata()
    shapes = {n: (f.get_slice(n).get_dtype(), f.get_slice(n).get_shape()) for n in f.keys()}
    assert shapes == {"experts.u": ("F32", [3, 2, 5]), "scalar": ("F64", []), "none": ("I64", [0, 7]),
                      "sch\u00f6n \"\\\n": ("U8", [5]), "half": ("BF16", [2]), "n": ("I64", [1])}, shapes
    names = ["experts.u", "scalar", "none", "sch\u00f6n \"\\\n"]
    found = b"".join(f.get_tensor(n).tobytes() for n in names)
expected = bytes([)" +
                     expected + R"(])
assert found == expected[:133]
assert open(sys.argv[1], "rb").read().endswith(expected)
)")) << output;
}

TEST_F(SafetensorsPythonTest, IsReadByUs) {
  ASSERT_TRUE(python(R"(
import sys, numpy, safetensors.numpy
safetensors.numpy.save_file({
    "u": numpy.arange(30, dtype=numpy.float32).reshape(3, 2, 5),
    "empty": numpy.zeros((0, 7), dtype=numpy.int64),
    "scalar": numpy.array(2.5),
    "half": numpy.array([1.5], dtype=numpy.float16),
    "flags": numpy.array([True, False, True]),
    "b": numpy.array([1, 2, 250], dtype=numpy.uint8),
    "\u00e4": numpy.array([-1], dtype=numpy.int16)}, sys.argv[1], {"made by": "numpy \u20ac"})
)")) << output;
  const auto opened = SafetensorsReader::open(path());
  ASSERT_TRUE(opened.ok()) << opened.status().to_string();
  const SafetensorsReader& reader = **opened;
  EXPECT_EQ(reader.metadata(), (SafetensorsMetadata{{"made by", "numpy \xe2\x82\xac"}}));
  EXPECT_EQ(reader.tensors().size(), 7u);
  const auto expect = [&]<class T>(const char* name, TensorType type,
                                   const std::vector<std::uint64_t>& shape,
                                   const std::vector<T>& values) {
    const TensorInfo* info = reader.find(name);
    ASSERT_NE(info, nullptr) << name;
    EXPECT_EQ(info->type, type);
    EXPECT_EQ(info->shape, shape);
    ASSERT_EQ(info->bytes, values.size() * sizeof(T));
    std::vector<T> found(values.size());
    ASSERT_TRUE(reader.read(name, 0, std::as_writable_bytes(std::span(found))).ok());
    EXPECT_EQ(found, values) << name;
  };
  std::vector<float> u(30);
  for (std::size_t i = 0; i < u.size(); ++i) u[i] = static_cast<float>(i);
  expect("u", TensorType::f32, {3, 2, 5}, u);
  expect("empty", TensorType::i64, {0, 7}, std::vector<std::int64_t>{});
  expect("scalar", TensorType::f64, {}, std::vector<double>{2.5});
  expect("half", TensorType::f16, {1}, std::vector<std::uint16_t>{0x3e00});
  expect("flags", TensorType::boolean, {3}, std::vector<std::uint8_t>{1, 0, 1});
  expect("b", TensorType::u8, {3}, std::vector<std::uint8_t>{1, 2, 250});
  expect("\xc3\xa4", TensorType::i16, {1}, std::vector<std::int16_t>{-1});
}

// What the Python package refuses of layouts, we refuse: it is the format's authority.
TEST_F(SafetensorsPythonTest, AgreesOnWrongLayouts) {
  for (const auto& [header, data_bytes] : std::vector<std::pair<std::string, std::size_t>>{
           {object(tensor("a", "2", "0,8")), 9},
           {object(tensor("a", "2", "4,12")), 12},
           {object(tensor("a", "3", "0,8")), 8},
           {object(tensor("a", "2", "0,8") + "," + tensor("b", "2", "4,12")), 12},
           {object(tensor("a", "-2", "0,8")), 8},
           {object(tensor("a", "4294967296,4294967296,0", "0,0")), 0},
           {object(tensor("a", "2.0", "0,8")), 8}}) {
    SCOPED_TRACE(header);
    write_raw(header.size(), header, data_bytes);
    EXPECT_FALSE(open_status().ok());
    EXPECT_FALSE(
        python("import sys, safetensors\n"
               "safetensors.safe_open(sys.argv[1], 'numpy').__enter__()\n"));
    EXPECT_THAT(output, HasSubstr("SafetensorError"));
  }
}

}  // namespace
}  // namespace perennial::storage::testing
