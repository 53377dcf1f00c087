// SPDX-License-Identifier: Apache-2.0
// The records of a table: separators, quotes that span lines, and text that is not UTF-8.
#include "data/table.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/encoding.h"
#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

// What a parser makes of a text: a line a record, "1 2 'label'", a bad one's problem, or "-".
std::vector<std::string> parsed(std::string_view text, const TableOptions& options = {}) {
  TableParser parser(TableFormat::csv, options, true);
  std::vector<std::string> outcomes;
  while (!text.empty()) {
    const std::string_view record = *parser.next(text, true);
    text.remove_prefix(std::min(record.size() + 1, text.size()));
    std::string said = "-";
    switch (parser.take(record)) {
      case TableParser::Outcome::row:
        said.clear();
        for (const auto number : parser.features()) {
          said += std::to_string(static_cast<int>(number)) + ' ';
        }
        said += "'" + parser.label() + "'";
        break;
      case TableParser::Outcome::bad:
        said = parser.problem();
        break;
      case TableParser::Outcome::nothing:
        break;
    }
    outcomes.push_back(said);
  }
  return outcomes;
}

using Outcomes = std::vector<std::string>;

template <class Call>
std::string data_error(Call call) {
  try {
    call();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no DataError";
}

TEST(TableParser, FindsTheSeparatorInTheFirstRecord) {
  const Outcomes expected = {"-", "1 2 'x, y'", "3 4 'z'"};
  for (const std::string separator : {",", ";", "\t", "|"}) {
    const auto joined = [&](const Outcomes& cells) {
      std::string line;
      for (const std::string& cell : cells) line += (line.empty() ? "" : separator) + cell;
      return line + "\n";
    };
    EXPECT_EQ(parsed(joined({"\"length, width; in cm\"", "height", "label"}) +
                     joined({"1", " 2 ", "\"x, y\""}) + joined({"3", "\"4\"", "z"})),
              expected)
        << separator;
  }
  // Without names, and with the label in front.
  EXPECT_EQ(parsed("1;2;a\n"), (Outcomes{"1 2 'a'"}));
  // An empty cell between tabs is one; a tab beside a comma is a blank.
  EXPECT_EQ(parsed("a\tb\tlabel\n1\t\tx\n"),
            (Outcomes{"-", "line 2, column 2 ('b'): '' is no value"}));
  EXPECT_EQ(parsed("1,\t2,\tx\n"), (Outcomes{"1 2 'x'"}));
  EXPECT_EQ(
      parsed("a,b;c,d\n1,2;x,y\n", {.separator = Separator::semicolon, .bad_rows = BadRows::skip}),
      (Outcomes{"-", "line 2, column 1 ('a,b'): '1,2' is not a number"}));
}

TEST(TableParser, SaysWhatMayStandBetweenCellsWhereAllIsOneColumn) {
  const std::string alone = data_error([] { parsed("a:b:label\n1:2:x\n"); });
  EXPECT_NE(alone.find("line 1 has no column beside the label"), std::string::npos) << alone;
  EXPECT_NE(alone.find("separator"), std::string::npos) << alone;
  const std::string missing =
      data_error([] { parsed("a:b:label\n1:2:x\n", {.label_column = "state"}); });
  EXPECT_NE(missing.find("no column 'state' among 1"), std::string::npos) << missing;
  EXPECT_NE(missing.find("separator"), std::string::npos) << missing;
}

TEST(TableParser, ReadsNewlinesInQuotes) {
  EXPECT_EQ(parsed("a,\"the\nlabel\"\r\n1,\"two\n\n\"\"lines\"\"\"\r\n2,plain\nx,bad\n"),
            (Outcomes{"-", "1 'two\n\n\"lines\"'", "2 'plain'",
                      "line 7, column 1 ('a'): 'x' is not a number"}));
  EXPECT_EQ(parsed("a,label\n\"1\n\",x\n2,\"y\nz\""), (Outcomes{"-", "1 'x'", "2 'y\nz'"}));
}

TEST(TableParser, AStrayQuoteTakesNoOtherRowsWithIt) {
  EXPECT_EQ(parsed("a,label\n1,\"x\n2,y\n3,z\n"),
            (Outcomes{"-", "line 2: a quoted cell does not end", "2 'y'", "3 'z'"}));
  // Its quote would end at the next row's, and there a separator is missing.
  EXPECT_EQ(parsed("a,label\n1,\"x\n2,\"y\"\n3,z\n"),
            (Outcomes{"-", "line 2: a quoted cell does not end", "2 'y'", "3 'z'"}));
  const std::string filler(std::size_t{70} << 10, '7');
  EXPECT_EQ(parsed("a,label\n1,\"x\n" + filler + ",w\n3,\"z\"\n").back(), "3 'z'");
}

// However a table is cut into reads, its records are the same.
TEST(TableParser, ARecordThatIsNotWholeIsWaitedFor) {
  const std::string text = "a,label\n1,\"x\ny\"\"\"  \n2,z\n";
  TableParser parser(TableFormat::csv, {}, true);
  ASSERT_EQ(*parser.next(text, false), "a,label");
  parser.take("a,label");
  const std::string rest = text.substr(8);
  const std::string record = "1,\"x\ny\"\"\"  ";
  for (std::size_t length = 0; length <= record.size(); ++length) {
    EXPECT_FALSE(parser.next(rest.substr(0, length), false)) << length;
  }
  EXPECT_EQ(*parser.next(rest, false), record);
}

TEST(TableParser, RefusesTextThatIsNotUtf8NamingLineAndColumn) {
  EXPECT_EQ(parsed("a,label\n1,gr\xC3\xBCn\n2,gr\xFCn\n3,\"x\",\xFC\n"),
            (Outcomes{"-", "1 'gr\xC3\xBCn'",
                      "line 3, column 2: byte 0xFC is no UTF-8; say which encoding the file has "
                      "(encoding, as latin1)",
                      "line 4, column 3: byte 0xFC is no UTF-8; say which encoding the file has "
                      "(encoding, as latin1)"}));
  EXPECT_NE(
      data_error([] { parsed("a,\"L\xE4nge\",label\n1,2,x\n"); }).find("line 1, column 2: byte"),
      std::string::npos);
}

TEST(Decoder, MakesUtf8OfOtherEncodings) {
  EXPECT_EQ(Decoder("latin1").decode("gr\xFCn\n", 1), "gr\xC3\xBCn\n");
  EXPECT_EQ(Decoder("windows-1252").decode("\x80", 1), "\xE2\x82\xAC");
  EXPECT_EQ(Decoder("utf-16").decode(std::string("\xFF\xFE"
                                                 "a\0\xFC\0",
                                                 6),
                                     1),
            "a\xC3\xBC");
  EXPECT_EQ(Decoder("UTF-8").decode("\xFC", 1), "\xFC");
  const std::string large(100000, '\xE4');
  EXPECT_EQ(Decoder("latin1").decode(large, 1).size(), 2 * large.size());
  EXPECT_NE(data_error([] { Decoder("shift_jis").decode("a\nb\x85\n", 5); }).find("line 6: "),
            std::string::npos);
  EXPECT_TRUE(Decoder("latin1").by_line());
  EXPECT_FALSE(Decoder("utf-16").by_line());
  EXPECT_THROW(Decoder("latin-one"), InvalidOptions);
}

}  // namespace
}  // namespace perennial::continual
