// SPDX-License-Identifier: Apache-2.0
// Headers of safetensors files: hostile ones are refused with the reason, unusual ones are read.
#include "storage/safetensors_testing.h"

namespace perennial::storage::testing {
namespace {

struct BadHeader {
  std::string header;
  std::size_t data_bytes;
  std::string reason;
};

std::vector<BadHeader> bad_headers() {
  const std::string a = tensor("a", "2", "0,8");
  const std::string huge = "18446744073709551615";
  std::vector<BadHeader> cases = {
      {"", 0, "does not begin with '{'"},
      {" {}", 0, "does not begin with '{'"},
      {"[]", 0, "does not begin with '{'"},
      {"{", 0, "no UTF-8 JSON"},
      {"{} x", 0, "no UTF-8 JSON"},
      {"{}{}", 0, "no UTF-8 JSON"},
      {"{}/* */", 0, "no UTF-8 JSON"},
      {std::string("{}\0", 3), 0, "no UTF-8 JSON"},
      {object(tensor("\xff", "2", "0,8")), 8, "no UTF-8 JSON"},
      {object(tensor("\\ud800", "2", "0,8")), 8, "no UTF-8 JSON"},
      {object(tensor("\xc0\x80", "2", "0,8")), 8, "no UTF-8 JSON"},
      {object(a + ","), 8, "no UTF-8 JSON"},
      {object(a + "," + tensor("a", "2", "8,16")), 16, "'a' twice"},
      {object(a + "," + tensor("\\u0061", "2", "8,16")), 16, "'a' twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "'__metadata__' twice"},
      {R"({"__metadata__":{"k":"1","k":"2"}})", 0, "metadata 'k' twice"},
      {R"({"__metadata__":{"k":1}})", 0, "a number where none may be ('k')"},
      {R"({"__metadata__":{"k":null}})", 0, "null where none may be"},
      {R"({"__metadata__":{"k":{}}})", 0, "an object where none may be"},
      {R"({"__metadata__":{"k":[]}})", 0, "an array where none may be"},
      {R"({"__metadata__":"k"})", 0, "a string where none may be"},
      {R"({"__metadata__":[]})", 0, "an array where none may be"},
      {R"({"a":1})", 0, "a number where none may be"},
      {R"({"a":{}})", 0, "lacks dtype, shape or data_offsets of tensor 'a'"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", 8, "lacks"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8, "lacks"},
      {R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8, "lacks"},
      {R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", 8, "shape of"},
      {R"({"a":{"dtype":"F32","shape":[2],"stride":[1],"data_offsets":[0,8]}})", 8, "'stride'"},
      {R"({"a":{"dtype":["F32"],"shape":[2],"data_offsets":[0,8]}})", 8, "an array where"},
      {R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8, "a number where"},
      {R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8, "an array where"},
      {R"({"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}})", 8, "a string where"},
      {R"({"a":{"dtype":"F32","shape":[true],"data_offsets":[0,8]}})", 8, "a truth value where"},
      {object(tensor("a", "2", "0,8", "F31")), 8, "unknown dtype 'F31'"},
      {object(tensor("a", "2", "0,8", "f32")), 8, "unknown dtype 'f32'"},
      {object(tensor("a", "-2", "0,8")), 8, "a negative number"},
      {object(tensor("a", "-0", "0,0")), 0, "a negative number"},
      {object(tensor("a", "2.0", "0,8")), 8, "no integer"},
      {object(tensor("a", "2e0", "0,8")), 8, "no integer"},
      {object(tensor("a", "18446744073709551616", "0,8")), 8, "no integer"},
      {object(tensor("a", "2", "0,8.0")), 8, "no integer"},
      {object(tensor("a", "2", "-0,8")), 8, "a negative number"},
      {object(tensor("a", huge, "0,8")), 8, "need more than 2^64"},
      {object(tensor("a", "4294967296,4294967296", "0,0", "U8")), 0, "need more than 2^64"},
      {object(tensor("a", huge + "," + huge + ",0", "0,0")), 0, "need more than 2^64"},
      {object(tensor("a", "2", "0")), 8, "1 data_offsets"},
      {object(tensor("a", "2", "")), 8, "0 data_offsets"},
      {object(tensor("a", "2", "0,8,8")), 8, "3 data_offsets"},
      {object(tensor("a", "2", "8,0")), 8, "bytes 8 to 0 of 8"},
      {object(tensor("a", "2", "0,9")), 8, "bytes 0 to 9 of 8"},
      {object(tensor("a", "2", "8,16")), 8, "bytes 8 to 16 of 8"},
      {object(tensor("a", "2", huge + ",7")), 8, "bytes " + huge + " to 7"},
      {object(tensor("a", "3", "0,8")), 8, "8 bytes; its shape and dtype need 12"},
      {object(tensor("a", "2", "0,8", "F64")), 8, "8 bytes; its shape and dtype need 16"},
      {object(tensor("a", "0", "0,8")), 8, "8 bytes; its shape and dtype need 0"},
      {object(tensor("a", "", "0,8")), 8, "8 bytes; its shape and dtype need 4"},
      {object(a + "," + tensor("b", "2", "4,12")), 12, "'b' bytes from 4 where 8 overlap"},
      {object(a + "," + tensor("b", "2", "0,8")), 8, "overlap"},
      {object(a + "," + tensor("b", "2", "9,17")), 17, "'b' bytes from 9 where 8 leave a hole"},
      {object(tensor("a", "2", "4,12")), 12, "'a' bytes from 4 where 0 leave a hole"},
      {object(a + "," + tensor("b", "0", "4,4")), 8, "overlap"},
      {object(a), 9, "describes 8 bytes of tensors, and 9 follow"},
      {"{}", 1, "describes 0 bytes of tensors, and 1 follow"},
      {object(tensor("line\\nbreak\\u001b", "-2", "0,8")), 8, "'line?break?'"},
      {object(tensor(std::string(100, 'n'), "-2", "0,8")), 8, std::string(60, 'n') + "...'"},
  };
  // Depth bombs: stopped by depth, not by the end of the stack.
  cases.push_back({"{\"a\":" + std::string(1'000'000, '['), 0, "an array where none may be"});
  std::string nested = "{\"a\":{\"shape\":";
  for (int i = 0; i < 100'000; ++i) nested += "{\"a\":";
  cases.push_back({nested, 0, "an object where none may be"});
  std::string dims = "1";
  for (std::size_t i = 0; i < kMaxSafetensorsDims; ++i) dims += ",1";
  cases.push_back({object(tensor("a", dims, "0,4")), 4, "too many dimensions"});
  std::string entries = "\"\":\"\"";
  for (std::size_t i = 0; i < kMaxSafetensorsMetadata; ++i) {
    entries.append(",\"").append(std::to_string(i)).append("\":\"\"");
  }
  cases.push_back({"{\"__metadata__\":{" + entries + "}}", 0, "too many entries of metadata"});
  std::string many = tensor("", "0", "0,0");
  for (std::size_t i = 0; i < kMaxSafetensors; ++i) {
    many.append(",").append(tensor(std::to_string(i), "0", "0,0"));
  }
  cases.push_back({object(many), 0, "too many tensors"});
  return cases;
}

TEST_F(SafetensorsTest, HostileHeadersAreCorruptionWithTheReason) {
  for (const BadHeader& bad : bad_headers()) {
    SCOPED_TRACE(bad.header.substr(0, 200));
    write_raw(bad.header.size(), bad.header, bad.data_bytes);
    const Status status = open_status();
    EXPECT_EQ(status.code(), StatusCode::corruption) << status.to_string();
    EXPECT_THAT(status.message(), HasSubstr(bad.reason));
    EXPECT_THAT(status.message(), HasSubstr(path().string()));
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }
}

// The table above refuses for the reasons it names: its neighbours that are right are read.
TEST_F(SafetensorsTest, UnusualHeadersThatAreRightAreRead) {
  const std::string huge = "4294967296,0,4294967295";
  for (const auto& [header, data_bytes] : std::vector<std::pair<std::string, std::size_t>>{
           {"{}", 0},
           {"{}   ", 0},
           {"{ }\n\t\r ", 0},
           {R"({"__metadata__":{}})", 0},
           {object(tensor("", "2", "0,8")), 8},
           {object(tensor("a", "", "0,4")), 4},
           {object(tensor("a", huge, "0,0")), 0},
           {object(tensor("b", "2", "8,16") + "," + tensor("a", "2", "0,8")), 16},
           {object(tensor("b", "2", "0,8") + "," + tensor("a", "0", "0,0")), 8},
           {object(tensor("\\u0000\\ud83d\\ude00", "2", "0,8")), 8},
           {object(tensor("dtype", "3", "0,3", "BOOL")), 3},
           {R"({"a":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}})", 8}}) {
    SCOPED_TRACE(header);
    write_raw(header.size(), header, data_bytes);
    EXPECT_EQ(open_status().to_string(), "ok");
  }
}

TEST_F(SafetensorsTest, HeaderLengthsAreChecked) {
  const std::string header = object(tensor("a", "2", "0,8"));
  for (const std::uint64_t length :
       {std::uint64_t{header.size() + 9}, kMaxSafetensorsHeader + 1, ~std::uint64_t{0}}) {
    write_raw(length, header, 8);
    EXPECT_EQ(open_status().code(), StatusCode::corruption) << length;
  }
  write_raw(header.size(), header, 8);
  EXPECT_TRUE(open_status().ok());
  for (const std::uintmax_t size : {0, 7, 8, 20}) {
    fs::resize_file(path(), size);
    EXPECT_EQ(open_status().code(), StatusCode::corruption) << size;
  }
  // Longer than allowed and really there: nothing of it is read.
  write_raw(kMaxSafetensorsHeader + 1, "{", 0);
  fs::resize_file(path(), kMaxSafetensorsHeader + 100);
  EXPECT_THAT(open_status().message(), HasSubstr("allowed: 100000000"));
}

TEST_F(SafetensorsTest, EveryFlippedBitOfAHeaderIsReadOrRefused) {
  const std::string header = object(R"("__metadata__":{"k":"v"},)" + tensor("ab", "2,3", "0,24") +
                                    "," + tensor("c", "3", "24,27", "U8"));
  for (std::size_t bit = 0; bit < header.size() * 8; ++bit) {
    std::string damaged = header;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    write_raw(damaged.size(), damaged, 27);
    const auto reader = SafetensorsReader::open(path());
    if (!reader.ok()) {
      EXPECT_EQ(reader.status().code(), StatusCode::corruption);
      continue;
    }
    std::uint64_t bytes = 0;
    for (const TensorInfo& info : reader.value()->tensors()) bytes += info.bytes;
    EXPECT_EQ(bytes, 27u) << damaged;
  }
}

}  // namespace
}  // namespace perennial::storage::testing
