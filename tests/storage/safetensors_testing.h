// SPDX-License-Identifier: Apache-2.0
// Helpers of the safetensors tests: raw files, headers as text, a file with something of
// everything.
#pragma once

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "perennial/storage/safetensors.h"
#include "storage/store_testing.h"

namespace perennial::storage::testing {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class SafetensorsTest : public ::testing::Test {
 protected:
  fs::path path() const { return folder.path() / "t.safetensors"; }

  // A file as raw as can be: this length, this header, so many bytes of data.
  void write_raw(std::uint64_t length, std::string_view header, std::size_t data_bytes) const {
    std::ofstream file(path(), std::ios::binary);
    for (int i = 0; i < 8; ++i) file.put(static_cast<char>(length >> (8 * i)));
    file << header << std::string(data_bytes, '\1');
  }
  Status open_status() const {
    const auto reader = SafetensorsReader::open(path());
    return reader.ok() ? Status() : reader.status();
  }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()));
  }

  TempFolder folder;
};

// One entry of a header, and a whole one.
inline std::string tensor(const std::string& name, const std::string& shape,
                          const std::string& offsets, const std::string& dtype = "F32") {
  std::ostringstream text;
  text << '"' << name << R"(":{"dtype":")" << dtype << R"(","shape":[)" << shape
       << R"(],"data_offsets":[)" << offsets << "]}";
  return text.str();
}

inline std::string object(const std::string& inner) { return "{" + inner + "}"; }

// Tensors of several types, and their bytes.
inline const std::vector<TensorSpec>& specs() {
  static const std::vector<TensorSpec> specs = {
      {"experts.u", TensorType::f32, {3, 2, 5}}, {"scalar", TensorType::f64, {}},
      {"none", TensorType::i64, {0, 7}},         {"sch\xc3\xb6n \"\\\n", TensorType::u8, {5}},
      {"half", TensorType::bf16, {2}},           {"n", TensorType::i64, {1}}};
  return specs;
}

inline Bytes all_bytes() { return bytes_of(1, 120 + 8 + 0 + 5 + 4 + 8); }

inline void write_all(const fs::path& path, std::size_t step) {
  auto writer = SafetensorsWriter::create(path, specs(), {{"k", "v \xe2\x82\xac\n\""}, {"", ""}});
  ASSERT_TRUE(writer.ok()) << writer.status().to_string();
  const Bytes bytes = all_bytes();
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    ASSERT_TRUE(writer.value()
                    ->append(std::span(bytes).subspan(at, std::min(step, bytes.size() - at)))
                    .ok());
    EXPECT_FALSE(fs::exists(path));
  }
  ASSERT_TRUE(writer.value()->finish().ok());
  EXPECT_EQ(writer.value()->finish().code(), StatusCode::invalid_argument);
  EXPECT_EQ(writer.value()->append({}).code(), StatusCode::invalid_argument);
}

}  // namespace perennial::storage::testing
