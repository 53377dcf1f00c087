// SPDX-License-Identifier: Apache-2.0
// Sizes, durations, tables, and which stream carries what.
#include "output.h"

#include <gtest/gtest.h>

#include <limits>
#include <sstream>

#include "perennial/storage/memory_store.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

TEST(Output, FormatsBytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.0 KiB");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(format_bytes(std::uint64_t{5} << 30), "5.0 GiB");
  EXPECT_EQ(format_bytes(std::numeric_limits<std::uint64_t>::max()), "16.0 EiB");
}

TEST(Output, FormatsDurations) {
  EXPECT_EQ(format_duration(0), "0 ms");
  EXPECT_EQ(format_duration(0.3504), "350 ms");
  EXPECT_EQ(format_duration(0.9996), "1.0 s");
  EXPECT_EQ(format_duration(12.34), "12.3 s");
  EXPECT_EQ(format_duration(59.96), "1 min 00 s");
  EXPECT_EQ(format_duration(245), "4 min 05 s");
  EXPECT_EQ(format_duration(3599.6), "1 h 00 min");
  EXPECT_EQ(format_duration(7380), "2 h 03 min");
  EXPECT_EQ(format_duration(100 * 3600), "4 d 4 h");
  EXPECT_EQ(format_duration(-1), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
}

TEST(Output, FormatsCounts) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(1048576), "1,048,576");
  EXPECT_EQ(format_count(-123456), "-123,456");
}

TEST(Output, CountsThings) {
  EXPECT_EQ(format_number_of(0, "commit"), "0 commits");
  EXPECT_EQ(format_number_of(1, "commit"), "1 commit");
  EXPECT_EQ(format_number_of(1024, "page"), "1,024 pages");
}

TEST(Output, WrapsAndShortens) {
  EXPECT_EQ(wrap("one two three", 7), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(wrap("abcdefgh", 3), (std::vector<std::string>{"abc", "def", "gh"}));
  EXPECT_EQ(wrap("", 3), (std::vector<std::string>{""}));
  EXPECT_EQ(one_line("a\tb\n\x1B[2J", 20), "a b  [2J");
  EXPECT_EQ(one_line("0123456789", 8), "01234...");
}

TEST(Output, AlignsTables) {
  Table table({{"name", Align::left}, {"count"}, {"note", Align::left}});
  table.add_row({"a", "12", "short"});
  table.add_row({"longer", "3", ""});
  std::ostringstream out;
  table.print(out);
  EXPECT_EQ(out.str(),
            "name    count  note\n"
            "a          12  short\n"
            "longer      3\n");
}

TEST(Output, GivesStandardOutputToTheResultAlone) {
  for (const bool json : {false, true}) {
    for (const bool quiet : {false, true}) {
      ::testing::internal::CaptureStdout();
      ::testing::internal::CaptureStderr();
      const Output output(json, quiet);
      output.text() << "words\n";
      output.finish({{"answer", 42}, {"text", "two\nlines"}});
      const std::string out = ::testing::internal::GetCapturedStdout();
      const std::string err = ::testing::internal::GetCapturedStderr();
      EXPECT_EQ(out, json ? "{\"answer\":42,\"text\":\"two\\nlines\"}\n" : "words\n");
      EXPECT_EQ(err, json && !quiet ? "words\n" : "");
    }
  }
}

TEST(Notes, AreShownOnOneLine) {
  EXPECT_EQ(note_text("plain"), "plain");
  EXPECT_EQ(note_text(R"({"action":"freeze","generation":3,"acc":[1,2]})"),
            "action freeze, generation 3");
  const auto store = storage::make_memory_store();
  EXPECT_EQ(note_text(action_note(*store, "restore", 7)), "action restore, from 7");
  EXPECT_EQ(note_text("{broken"), "{broken");
}

TEST(Notes, OfCommitsByHandKeepWhatARunResumesFrom) {
  const auto store = storage::make_memory_store();
  storage::CommitRequest request;
  request.note = R"({"action":"progress","from":3,"events_bytes":17})";
  ASSERT_TRUE(store->commit(request).ok());
  EXPECT_EQ(note_text(action_note(*store, "snapshot")), "action snapshot, events_bytes 17");
}

}  // namespace
}  // namespace perennial::cli
