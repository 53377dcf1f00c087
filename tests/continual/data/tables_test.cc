// SPDX-License-Identifier: Apache-2.0
// Tables of results, to the character, with names that want to be markup.
#include "perennial/continual/tables.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <sstream>

#include "perennial/continual/statistics.h"

namespace perennial::continual {
namespace {

std::vector<ResultRow> rows() {
  ResultRow naive{"naive", {}};
  naive.add_run(boost::json::parse(R"({"acc":0.5,"bwt.gem":-0.25,"name":"x"})").as_object());
  naive.add_run(boost::json::parse(R"({"acc":0.75,"bwt.gem":-0.75,"n":null})").as_object());
  ResultRow joint{"joint", {}};
  joint.add_run(boost::json::parse(R"({"acc":1})").as_object());
  return {naive, joint};
}

TEST(Tables, MarkdownHasALineAStrategy) {
  EXPECT_EQ(markdown_table(rows(), {"acc", "bwt.gem"}),
            "| strategy | acc | bwt.gem | seeds |\n"
            "|---|---:|---:|---:|\n"
            "| naive | 0.6250 ± 0.1768 | -0.5000 ± 0.3536 | 2 |\n"
            "| joint | 1.0000 | - | 1 |\n");
  EXPECT_EQ(markdown_table({}, {"acc"}), "| strategy | acc | seeds |\n|---|---:|---:|\n");
}

TEST(Tables, MarkdownNamesAreNoMarkup) {
  EXPECT_NE(markdown_table({{"grow_freeze", {}}}, {}).find("| grow_freeze |"), std::string::npos);
  ResultRow row{"a|b\n<script>`*_[x]\\&", {}};
  const std::string text = markdown_table({row}, {});
  EXPECT_NE(text.find("| a\\|b &lt;script&gt;\\`\\*\\_\\[x\\]\\\\&amp; | 0 |\n"), std::string::npos)
      << text;
}

TEST(Tables, MarkdownOfTexts) {
  EXPECT_EQ(markdown_table({"title", {"strategy", "lr"}, {{"a|b", "1"}, {"c", "-"}}, {"a note"}}),
            "| strategy | lr |\n|---|---:|\n| a\\|b | 1 |\n| c | - |\n");
  EXPECT_EQ(markdown_table({"", {"strategy"}, {}}), "| strategy |\n|---|\n");
}

TEST(Tables, CsvHasALineAMetric) {
  // t(0.975) with one degree of freedom is tan(0.475 pi), 12.7062047...; its last digits are
  // Boost's.
  std::ostringstream acc, transfer;
  acc.precision(17);
  transfer.precision(17);
  acc << *statistics_of(*rows()[0].find("acc")).t95;
  transfer << *statistics_of(*rows()[0].find("bwt.gem")).t95;
  EXPECT_EQ(acc.str().substr(0, 10), "1.58827559");
  EXPECT_EQ(csv_table(rows()),
            "strategy,metric,mean,sd,sem,t95,seeds\n"
            "naive,acc,0.625,0.17677669529663689,0.125," +
                acc.str() +
                ",2\n"
                "naive,bwt.gem,-0.5,0.35355339059327379,0.25," +
                transfer.str() +
                ",2\n"
                "joint,acc,1,,,,1\n");
}

TEST(Tables, CsvQuotesWhatWouldBreakALine) {
  const ResultRow row{"a,\"b\"\nc", {{"acc", {0.5}}}};
  EXPECT_EQ(csv_table({row}),
            "strategy,metric,mean,sd,sem,t95,seeds\n\"a,\"\"b\"\"\nc\",acc,0.5,,,,1\n");
}

}  // namespace
}  // namespace perennial::continual
