// SPDX-License-Identifier: Apache-2.0
// Spill files: slots, reuse, checks, and that nothing stays behind.
#include "perennial/storage/spill_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

class SpillFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto result = SpillFile::create(folder.path());
    ASSERT_TRUE(result.ok()) << result.status().to_string();
    file = std::move(*result);
  }
  // The spill file's bytes, through the only name it has: this process's descriptor.
  std::filesystem::path descriptor() const {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code ignored;
      const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
      if (target.starts_with(folder.path().string() + "/")) return entry.path();
    }
    return {};
  }

  TempFolder folder;
  std::unique_ptr<SpillFile> file;
};

TEST_F(SpillFileTest, ReadsBackSlotsOfAnySize) {
  std::vector<std::pair<SpillFile::Slot, Bytes>> written;
  for (const std::size_t size : {1u, 64u, 1000u, 65'536u, 1u << 20}) {
    Bytes bytes = bytes_of(size, size);
    const auto slot = file->write(bytes);
    ASSERT_TRUE(slot.ok());
    written.emplace_back(*slot, std::move(bytes));
  }
  for (const auto& [slot, bytes] : written) {
    Bytes found(bytes.size());
    ASSERT_TRUE(file->read(slot, found).ok());
    EXPECT_EQ(found, bytes);
  }
}

TEST_F(SpillFileTest, HasNoName) {
  ASSERT_TRUE(file->write(bytes_of(1, 100)).ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST_F(SpillFileTest, ReusesFreedSlotsOfEqualSize) {
  const auto a = file->write(bytes_of(1, 4096));
  const auto b = file->write(bytes_of(2, 4096));
  file->free(*a);
  const Bytes third = bytes_of(3, 4096);
  const auto c = file->write(third);
  EXPECT_EQ(file->bytes(), 8192u);
  EXPECT_EQ(file->bytes_spilled(), 3u * 4096);
  Bytes found(4096);
  ASSERT_TRUE(file->read(*c, found).ok());
  EXPECT_EQ(found, third);
  ASSERT_TRUE(file->read(*b, found).ok());
  EXPECT_EQ(found, bytes_of(2, 4096));
  ASSERT_TRUE(file->write(bytes_of(4, 100)).ok());
  EXPECT_EQ(file->bytes(), 8292u);
}

TEST_F(SpillFileTest, RefusesFreedUnknownAndMissizedSlots) {
  const auto slot = file->write(bytes_of(1, 100));
  Bytes found(100);
  Bytes wrong(99);
  EXPECT_EQ(file->read(*slot, wrong).code(), StatusCode::invalid_argument);
  EXPECT_EQ(file->read(*slot + 1, found).code(), StatusCode::invalid_argument);
  file->free(*slot);
  file->free(*slot);  // twice is once
  EXPECT_EQ(file->read(*slot, found).code(), StatusCode::invalid_argument);
  const auto one = file->write(bytes_of(2, 100));
  const auto two = file->write(bytes_of(3, 100));
  EXPECT_NE(*one, *two);
}

TEST_F(SpillFileTest, FindsFlippedAndMissingBytes) {
  const auto first = file->write(bytes_of(1, 1000));
  const auto second = file->write(bytes_of(2, 1000));
  const std::filesystem::path path = descriptor();
  ASSERT_FALSE(path.empty());
  const int fd = ::open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  const char flipped = static_cast<char>(std::to_integer<int>(bytes_of(1, 1000)[500]) ^ 1);
  ASSERT_EQ(::pwrite(fd, &flipped, 1, 500), 1);
  Bytes found(1000);
  const Status status = file->read(*first, found);
  EXPECT_EQ(status.code(), StatusCode::corruption);
  EXPECT_THAT(status.message(), ::testing::HasSubstr("slot 0"));
  EXPECT_TRUE(file->read(*second, found).ok());
  ASSERT_EQ(::ftruncate(fd, 1500), 0);
  EXPECT_EQ(file->read(*second, found).code(), StatusCode::corruption);
  ::close(fd);
}

TEST_F(SpillFileTest, AFailedWriteLeavesTheFileAsItWas) {
  const Bytes kept = bytes_of(1, 1000);
  const auto slot = file->write(kept);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1500, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const auto failed = file->write(bytes_of(2, 1000));
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(file->bytes(), 1000u);
  EXPECT_EQ(std::filesystem::file_size(descriptor()), 1000u);
  Bytes found(1000);
  ASSERT_TRUE(file->read(*slot, found).ok());
  EXPECT_EQ(found, kept);
  ASSERT_TRUE(file->write(bytes_of(3, 1000)).ok());
}

TEST(SpillFile, NeedsAFolder) {
  EXPECT_EQ(SpillFile::create("/nonexistent/folder").status().code(), StatusCode::io_error);
}

}  // namespace
}  // namespace perennial::storage::testing
