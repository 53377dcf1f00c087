// SPDX-License-Identifier: Apache-2.0
// Tables that grow while they are read: files, pipes, positions, and what is refused.
#include "perennial/continual/follow.h"

#include <ATen/ops/equal.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cmath>
#include <thread>

#include "continual/data/data_files.h"

namespace perennial::continual {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kNow{0};
constexpr milliseconds kLong{20000};  // longer than any test takes

void append(const std::filesystem::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary | std::ios::app) << text;
}

std::vector<double> numbers(const torch::Tensor& x) {
  const torch::Tensor flat = x.contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

TEST(Follow, ReadsToTheEndAndThenWhatIsAppended) {
  const TempFolder folder;
  const auto file = folder.write("t.csv", "a,b,label\n1,2,x\n3,4,y\n5,");
  RowFollower follower(file, {});
  FollowedRows rows = follower.read(10, kNow);
  EXPECT_EQ(numbers(rows.x), (std::vector<double>{1, 2, 3, 4}));
  EXPECT_EQ(rows.y[1].item<int>(), 1);
  EXPECT_EQ(follower.position().rows, 2U);
  EXPECT_EQ(follower.position().bytes, 22U);  // not the line that has no end yet
  EXPECT_EQ(follower.read(10, kNow).x.numel(), 0);
  append(file, "6,z\n7,8,x");
  rows = follower.read(10, kNow);
  EXPECT_EQ(numbers(rows.x), (std::vector<double>{5, 6}));
  append(file, "\n");
  EXPECT_EQ(numbers(follower.read(10, kNow).x), (std::vector<double>{7, 8}));
  EXPECT_EQ(follower.label_names(), (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_FALSE(follower.ended());
}

TEST(Follow, WaitsForRowsButNotLongerThanItsPatienceOrItsStop) {
  const TempFolder folder;
  const auto file = folder.write("t.csv", "1,x\n");
  RowFollower follower(file, {});
  std::thread writer([&] {
    std::this_thread::sleep_for(milliseconds(30));
    append(file, "2,x\n3,");
    std::this_thread::sleep_for(milliseconds(30));
    append(file, "y\n4,x\n");
  });
  const FollowedRows rows = follower.read(3, kLong);
  writer.join();
  EXPECT_EQ(numbers(rows.x), (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(follower.read(2, milliseconds(20)).x.size(0), 1);
  int asked = 0;
  EXPECT_EQ(follower.read(1, kLong, [&] { return ++asked == 3; }).x.numel(), 0);
  EXPECT_EQ(asked, 3);
}

// However it is cut and wherever it stops, the rows are the same.
TEST(Follow, GoesOnFromAPositionWithEqualRows) {
  const TempFolder folder;
  std::string text = "\na,label,b\n";
  for (int i = 0; i < 40; ++i) {
    text += std::to_string(i) + ",c" + std::to_string(i * 7 % 5) + "," + std::to_string(i * i) +
            "\n" + (i % 6 == 0 ? "\n" : "") + (i % 9 == 4 ? "bad,row\n" : "");
  }
  const auto file = folder.write("t.csv", text);
  const TableOptions options{.bad_rows = BadRows::skip};
  RowFollower whole(file, options);
  const FollowedRows expected = whole.read(1000, kNow);
  ASSERT_EQ(expected.x.size(0), 40);
  EXPECT_EQ(whole.position().skipped, 4U);
  EXPECT_NE(whole.bad_rows().find("4 of 44"), std::string::npos) << whole.bad_rows();
  for (const std::int64_t count : {1, 3, 7, 39}) {
    FollowPosition position;
    std::vector<std::string> labels;
    std::vector<torch::Tensor> x, y;
    while (position.rows < 40) {
      RowFollower part(file, options, position, labels);
      FollowedRows rows = part.read(count, kNow);
      x.push_back(rows.x);
      y.push_back(rows.y);
      position = FollowPosition::from_json(part.position().to_json());
      labels = part.label_names();
      ASSERT_LE(x.size(), 41U);
    }
    EXPECT_TRUE(at::equal(torch::cat(x), expected.x)) << count;
    EXPECT_TRUE(at::equal(torch::cat(y), expected.y)) << count;
    EXPECT_EQ(labels, whole.label_names());
    EXPECT_EQ(position.lines + 0U, whole.position().lines - (position.bytes < text.size() ? 1 : 0));
  }
}

// Separator, encoding and lines within quotes are a position's, too.
TEST(Follow, GoesOnWithinATableOfOtherSeparatorsAndEncodings) {
  const TempFolder folder;
  std::string text = "a;label\r\n";
  for (int i = 0; i < 20; ++i) {
    text += std::to_string(i) + (i % 3 == 0 ? ";\"gr\xFCn,\n2\"\r\n" : ";rot|1\r\n");
  }
  const auto file = folder.write("t.csv", text);
  const TableOptions options{.encoding = "latin1"};
  FollowPosition position;
  std::vector<std::string> labels;
  std::vector<double> x;
  while (position.rows < 20) {
    RowFollower part(file, options, position, labels);
    const FollowedRows rows = part.read(3, kNow);
    const std::vector<double> some = numbers(rows.x);
    x.insert(x.end(), some.begin(), some.end());
    position = FollowPosition::from_json(part.position().to_json());
    labels = part.label_names();
    ASSERT_EQ(some.size(), std::min<std::size_t>(3, 20 - (position.rows - some.size())));
  }
  for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(x[i], static_cast<double>(i));
  EXPECT_EQ(labels, (std::vector<std::string>{"gr\xC3\xBCn,\n2", "rot|1"}));
  EXPECT_EQ(position.lines, 28U);
  EXPECT_EQ(position.bytes, text.size());

  // The rest of a quoted cell is waited for.
  const auto growing = folder.write("g.csv", "1,\"x\n");
  RowFollower follower(growing, {});
  EXPECT_EQ(follower.read(5, kNow).x.numel(), 0);
  append(growing, "y\"\n2,z\n");
  EXPECT_EQ(numbers(follower.read(5, kNow).x), (std::vector<double>{1, 2}));
  EXPECT_EQ(follower.label_names(), (std::vector<std::string>{"x\ny", "z"}));
  // One line of another encoding stops before it, as a bad row does.
  append(growing, "3,\xFC\n");
  const FollowPosition before = follower.position();
  expect_data_error([&] { follower.read(1, kNow); }, {"g.csv", "line 4, column 2", "byte 0xFC"});
  EXPECT_EQ(follower.position().bytes, before.bytes);
  expect_data_error([&] { RowFollower(file, {.encoding = "utf-16"}); }, {"t.csv", "utf-16"});
}

TEST(Follow, KnownLabelsAndFeaturesOfAModelDecideNumbersAndOrder) {
  const TempFolder folder;
  const auto file = folder.write("t.csv", "z,label,a,more\n1,new,2,9\n3,k,4,9\n");
  RowFollower follower(file, {}, {}, {"k", "m"}, {"a", "z"});
  const FollowedRows rows = follower.read(2, kNow);
  EXPECT_EQ(numbers(rows.x), (std::vector<double>{2, 1, 4, 3}));
  EXPECT_EQ(rows.y[0].item<int>(), 2);
  EXPECT_EQ(rows.y[1].item<int>(), 0);
  expect_data_error(
      [&] {
        RowFollower other(file, {}, {}, {}, {"a", "q"});
        other.read(1, kNow);
      },
      {"t.csv", "line 1", "'q'"});
}

TEST(Follow, ARegressionsRowsHaveTargets) {
  const TempFolder folder;
  const auto file = folder.write("t.csv", "rent,size,price\n1,2,3\n4,5,x\n6,,7\n");
  TableOptions options;
  options.task = TaskKind::regression;
  options.target_column = "price,rent";
  options.bad_rows = BadRows::skip;
  options.missing_values = MissingValues::mean;
  RowFollower follower(file, options);
  FollowedRows rows = follower.read(10, kNow);
  EXPECT_EQ(rows.x.sizes(), (at::IntArrayRef{2, 1}));
  EXPECT_EQ(rows.y.sizes(), (at::IntArrayRef{2, 2}));
  EXPECT_EQ(numbers(rows.y), (std::vector<double>{3, 1, 7, 6}));
  EXPECT_TRUE(std::isnan(rows.x[1].item<double>()));
  EXPECT_EQ(follower.target_names(), (std::vector<std::string>{"price", "rent"}));
  EXPECT_TRUE(follower.label_names().empty());
  EXPECT_EQ(follower.position().skipped, 1U);
  EXPECT_EQ(follower.read(10, kNow).y.size(0), 0);
  // Of a later position, and of a table that has no target.
  append(file, "8,9,10\n");
  EXPECT_EQ(numbers(RowFollower(file, options, follower.position()).read(1, kNow).y),
            (std::vector<double>{10, 8}));
  options.target_column = "cost";
  expect_data_error([&] { RowFollower(file, options).read(1, kNow); }, {"t.csv", "cost"});
}

TEST(Follow, JsonlToo) {
  const TempFolder folder;
  const auto file = folder.write("t.jsonl", "{\"v\": 1, \"label\": 7}\n");
  RowFollower follower(file, {});
  EXPECT_EQ(numbers(follower.read(5, kNow).x), (std::vector<double>{1}));
  append(file, "{\"label\": 8, \"v\": 2}\n{\"v\": ");
  EXPECT_EQ(numbers(follower.read(5, kNow).x), (std::vector<double>{2}));
  EXPECT_EQ(follower.label_names(), (std::vector<std::string>{"7", "8"}));
}

TEST(Follow, ARefusedRowStopsBeforeItAndCanBePutRight) {
  const TempFolder folder;
  const auto file = folder.write("t.csv", "a,label\n1,x\nbad,x\n3,x\n");
  RowFollower follower(file, {});
  EXPECT_EQ(follower.read(10, kLong).x.size(0), 1);
  const FollowPosition before = follower.position();
  for (int i = 0; i < 2; ++i) {
    expect_data_error([&] { follower.read(10, kNow); },
                      {"t.csv", "line 3, column 1 ('a')", "'bad'"});
  }
  EXPECT_EQ(follower.position().bytes, before.bytes);
  folder.write("t.csv", "a,label\n1,x\n2.5,x\n3,x\n");
  RowFollower again(file, {}, before, {"x"});
  EXPECT_EQ(numbers(again.read(10, kNow).x), (std::vector<double>{2.5, 3}));
}

TEST(Follow, NoticesAFileThatShrankOrWasReplacedOrIsAnother) {
  const TempFolder folder;
  const auto file = folder.write("t.csv", "1,x\n2,x\n");
  RowFollower follower(file, {});
  follower.read(2, kNow);
  const FollowPosition position = follower.position();
  EXPECT_EQ(position.bytes, 8U);
  folder.write("t.csv", "1,x\n");  // in place
  expect_data_error([&] { follower.read(1, kNow); }, {"t.csv", "4 bytes", "8", "shorter"});
  expect_data_error([&] { RowFollower(file, {}, position); }, {"shorter"});
  folder.write("t.csv", "100,x\n200,x\n");
  expect_data_error([&] { RowFollower(file, {}, position); }, {"no line ends at byte 8"});

  const auto log = folder.write("log.csv", "1,x\n");
  RowFollower rotated(log, {});
  rotated.read(1, kNow);
  std::filesystem::rename(log, folder.path() / "log.old");
  folder.write("log.csv", "2,x\n");
  expect_data_error([&] { rotated.read(1, kNow); }, {"log.csv", "replaced", "1 rows"});
}

TEST(Follow, RefusesWhatCannotBeFollowed) {
  const TempFolder folder;
  expect_data_error([&] { RowFollower(folder.path() / "none.csv", {}); }, {"none.csv", "opened"});
  expect_data_error([&] { RowFollower(folder.path(), {}); }, {"neither a file nor a pipe"});
  expect_data_error([&] { RowFollower(folder.write("t.csv.gz", ""), {}); }, {"gzip"});
  const auto binary = folder.write("b.csv", std::string("\0\1\2\n", 4));
  RowFollower follower(binary, {});
  expect_data_error([&] { follower.read(1, kNow); }, {"line 1", "no text"});
  RowFollower endless(folder.write("e.csv", std::string(std::size_t{17} << 20, '1')), {});
  expect_data_error([&] { endless.read(1, kNow); }, {"line 1", "16777216 bytes"});
  expect_data_error([] { FollowPosition::from_json({{"bytes", -1}}); }, {"position"});
  EXPECT_THROW(follower.read(0, kNow), Error);
}

TEST(Follow, APipeEndsWhenItsWriterGoes) {
  const TempFolder folder;
  const auto file = folder.path() / "pipe.csv";
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
  RowFollower follower(file, {});
  EXPECT_EQ(follower.read(1, milliseconds(10)).x.numel(), 0);
  EXPECT_FALSE(follower.ended());  // nobody has opened it yet
  std::thread writer([&] {
    std::ofstream out(file, std::ios::binary);
    out << "a,label\n1,x\n2," << std::flush;
    std::this_thread::sleep_for(milliseconds(30));
    out << "y\n3,x";  // the last line has no end
  });
  FollowedRows rows = follower.read(2, kLong);
  EXPECT_EQ(numbers(rows.x), (std::vector<double>{1, 2}));
  rows = follower.read(5, kLong);
  writer.join();
  EXPECT_EQ(numbers(rows.x), (std::vector<double>{3}));
  EXPECT_TRUE(follower.ended());
  EXPECT_EQ(follower.position().rows, 3U);
}

}  // namespace
}  // namespace perennial::continual
