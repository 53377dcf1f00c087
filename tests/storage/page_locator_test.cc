// SPDX-License-Identifier: Apache-2.0
// The locator finds what RocksDB wrote, and finds nothing where it cannot be sure.
#include "page_locator.h"

#include <rocksdb/options.h>
#include <rocksdb/sst_file_writer.h>

#include <fstream>

#include "keys.h"
#include "rocksdb_support.h"
#include "store_testing.h"
#include "table_tail.h"

namespace perennial::storage::testing {
namespace {

using Values = std::map<std::string, Bytes>;

class PageLocatorTest : public ::testing::Test {
 protected:
  std::filesystem::path path() const { return folder.path() / "1.sst"; }

  void write(const Values& values) {
    const rocksdb::Options options = make_rocksdb_options(rocksdb::Env::Default());
    rocksdb::SstFileWriter writer(rocksdb::EnvOptions(options), options);
    ASSERT_TRUE(writer.Open(path().string()).ok());
    for (const auto& [key, value] : values) {
      const rocksdb::Slice slice(reinterpret_cast<const char*>(value.data()), value.size());
      ASSERT_TRUE(writer.Put(key, slice).ok());
    }
    ASSERT_TRUE(writer.Finish().ok());
  }
  Bytes bytes_at(std::uint64_t offset, std::size_t size) const {
    std::ifstream file(path(), std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    Bytes bytes(size);
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
    return bytes;
  }
  void flip(std::uint64_t offset) {
    std::fstream file(path(), std::ios::binary | std::ios::in | std::ios::out);
    const Bytes old = bytes_at(offset, 1);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(static_cast<char>(std::to_integer<unsigned char>(old[0]) ^ 1u));
  }
  // The value of a key as one read gives it; nullopt where the locator or the check says no.
  std::optional<Bytes> read(const PageLocator& locator, const std::string& key,
                            std::size_t size) const {
    const auto at = locator.find(key, size);
    if (!at) return std::nullopt;
    const Bytes block = bytes_at(at->offset, at->bytes());
    const auto all = std::span(block);
    if (!is_value_of(key, *at, all.first(at->head), all.last(LocatedValue::kTail))) {
      return std::nullopt;
    }
    return Bytes(block.begin() + at->head, block.begin() + at->head + at->value);
  }

  TempFolder folder;
};

Values some_values() {
  Values values;
  values[chunk_key(1, digest_of(bytes_of(1, 1)))] = bytes_of(1, 262144);
  values[chunk_key(1, digest_of(bytes_of(2, 1)))] = bytes_of(2, 5000);
  std::uint64_t seed = 3;
  for (const std::uint32_t row : {0u, 1u, 7u, 255u, 256u, 70000u}) {
    for (const std::uint32_t tile : {0u, 1u, 2u, 900u}) {
      const std::size_t size = 64 + (tile == 2 ? 16384 : tile == 900 ? 262144 : 65536);
      values[page_key(1, weights(row, tile))] = bytes_of(seed++, size);
    }
  }
  values[record_key(1)] = bytes_of(seed, 9000);
  return values;
}

TEST_F(PageLocatorTest, FindsEveryValueThatFillsABlock) {
  const Values values = some_values();
  write(values);
  const auto locator = PageLocator::read(path());
  ASSERT_TRUE(locator.ok()) << locator.status().to_string();
  for (const auto& [key, value] : values) {
    EXPECT_EQ(read(*locator, key, value.size()), value) << key.size();
    EXPECT_EQ(read(*locator, key, value.size() + 1), std::nullopt);
    EXPECT_EQ(read(*locator, key, value.size() - 1), std::nullopt);
  }
}

TEST_F(PageLocatorTest, FindsNothingForKeysThatAreNotThere) {
  write(some_values());
  const auto locator = PageLocator::read(path());
  ASSERT_TRUE(locator.ok());
  for (const std::string& key :
       {page_key(1, weights(0, 3)), page_key(1, weights(2, 0)), page_key(2, weights(0, 0)),
        page_key(0, weights(0, 0)), page_key(1, weights(70000, 901))}) {
    EXPECT_EQ(read(*locator, key, 65600), std::nullopt);
  }
}

TEST_F(PageLocatorTest, LeavesValuesThatShareABlockToRocksdb) {
  Values values;
  for (std::uint32_t tile = 0; tile < 200; ++tile) {
    values[page_key(1, weights(0, tile))] = bytes_of(tile, 80);
  }
  write(values);
  const auto locator = PageLocator::read(path());
  ASSERT_TRUE(locator.ok());
  for (const auto& [key, value] : values) EXPECT_EQ(read(*locator, key, 80), std::nullopt);
}

TEST_F(PageLocatorTest, AFlippedByteAroundAValueIsSeen) {
  const std::string key = page_key(1, weights(1, 1));
  const Values values = some_values();
  write(values);
  const auto locator = PageLocator::read(path());
  ASSERT_TRUE(locator.ok());
  const LocatedValue at = *locator->find(key, 65600);
  constexpr std::uint64_t kChecksum = 4;  // not looked at: the page has digests of its own
  for (std::uint64_t i = 0; i < at.bytes() - kChecksum; ++i) {
    if (i == at.head) i += at.value;
    flip(at.offset + i);
    EXPECT_EQ(read(*locator, key, 65600), std::nullopt) << i;
    flip(at.offset + i);
  }
  EXPECT_EQ(read(*locator, key, 65600), values.at(key));
}

TEST_F(PageLocatorTest, AFlippedByteOfTheIndexIsCorruption) {
  write(some_values());
  const auto index = read_table_index(path());
  ASSERT_TRUE(index.ok());
  const auto size = std::filesystem::file_size(path());
  const Bytes file = bytes_at(0, size);
  const auto found = std::search(file.begin(), file.end(), std::as_bytes(std::span(*index)).begin(),
                                 std::as_bytes(std::span(*index)).end());
  ASSERT_NE(found, file.end());
  const auto start = static_cast<std::uint64_t>(found - file.begin());
  for (std::uint64_t i = 0; i < index->size() + 5; i += 3) {
    flip(start + i);
    EXPECT_EQ(PageLocator::read(path()).status().code(), StatusCode::corruption) << i;
    flip(start + i);
  }
  std::filesystem::resize_file(path(), size / 2);
  EXPECT_EQ(PageLocator::read(path()).status().code(), StatusCode::corruption);
}

}  // namespace
}  // namespace perennial::storage::testing
