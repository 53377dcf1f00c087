// SPDX-License-Identifier: Apache-2.0
// The page of made-up runs: what is on it, that text from outside stays text, how runs are grouped,
// and that headless Chromium, where there is one, shows it without an error and fits it on a phone.
#include "perennial/continual/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <cstdlib>
#include <limits>
#include <set>

#include "continual/run/run_testing.h"
#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class ReportTest : public FolderTest {
 protected:
  RunFolder made(const MadeUpRun& run) {
    const std::filesystem::path folder = folder_ / ("run" + std::to_string(runs_++));
    run.write(folder);
    return read_run_folder(folder);
  }
  // naive and replay with three seeds each, and a joint run.
  std::vector<RunFolder> comparison() {
    std::vector<RunFolder> runs;
    for (int seed = 1; seed <= 3; ++seed) {
      runs.push_back(made({.strategy = "naive", .seed = seed, .forgets = 0.15}));
      runs.push_back(made({.strategy = "replay", .seed = seed, .forgets = 0.03}));
    }
    runs.push_back(made({.strategy = "joint", .seed = 1, .forgets = 0, .routing = false}));
    return runs;
  }

 private:
  int runs_ = 0;
};

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// Every element that is opened is closed, in order; attributes are quoted. Enough of a parser for
// what the report writes.
std::string unclosed(const std::string& html) {
  std::vector<std::string> open;
  for (std::size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at)) {
    const std::size_t end = html.find('>', at);
    if (end == std::string::npos) return "a tag without end";
    const std::string tag = html.substr(at + 1, end - at - 1);
    at = end;
    if (tag.starts_with("!")) continue;
    const std::string name = tag.substr(0, tag.find_first_of(" />", tag.starts_with("/") ? 1 : 0));
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return "quotes of " + tag;
    if (tag.starts_with("/")) {
      if (open.empty() || "/" + open.back() != name) return "unexpected <" + tag + ">";
      open.pop_back();
    } else if (!tag.ends_with("/") && name != "meta" && name != "link") {
      open.push_back(name);
    }
  }
  return open.empty() ? "" : "unclosed <" + open.back() + ">";
}

TEST_F(ReportTest, OfOneRunHasItsFigures) {
  const std::string html = report_html({made({.strategy = "replay"})});
  EXPECT_EQ(unclosed(html), "");
  for (const char* figure :
       {"matrix", "forgetting", "seen", "anytime", "anytime-each", "drift", "leak", "parameters",
        "replay-bytes", "store-bytes", "seconds", "speed"}) {
    EXPECT_EQ(count(html, "data-figure=\"" + std::string(figure) + "\""), 1U) << figure;
  }
  EXPECT_EQ(count(html, "data-figure=\"bars-acc\""), 0U);
  EXPECT_THAT(html, HasSubstr("perennial train --store DIR --threads 2 --stream permuted "
                              "--strategy replay --anytime-every 10"));
  EXPECT_THAT(html, HasSubstr("wc_acc"));
  EXPECT_THAT(html, HasSubstr("commit_every"));
  // Self-contained: nothing is fetched and nothing runs.
  EXPECT_THAT(
      html, AllOf(Not(HasSubstr("<script")), Not(HasSubstr("http://")), Not(HasSubstr("https://")),
                  Not(HasSubstr("url(")), Not(HasSubstr("src="))));
}

TEST_F(ReportTest, ComparesStrategiesOverSeeds) {
  const std::vector<RunFolder> runs = comparison();
  const std::string html = report_html(runs);
  EXPECT_EQ(unclosed(html), "");
  EXPECT_EQ(count(html, "data-figure=\"bars-acc\""), 1U);
  EXPECT_EQ(count(html, "data-figure=\"matrix\""), 3U);
  EXPECT_EQ(count(html, "class=\"error\""), 3 * (2U + 2 + 2));  // three bars each, joint has no sd
  EXPECT_THAT(html, HasSubstr("intransigence"));

  const std::vector<ResultRow> rows = result_rows(runs);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].strategy, "naive");
  ASSERT_EQ(rows[0].find("acc")->size(), 3U);
  EXPECT_EQ(rows[0].find("acc")->at(1), acc(runs[2].matrix));
  EXPECT_EQ(rows[2].find("acc")->size(), 1U);
  EXPECT_NEAR(rows[0].find("seconds")->at(0), 5 * 2.6 + 0.05 * 15, 1e-9);
}

TEST_F(ReportTest, TellsSettingsOfOneStrategyApartAndCountsARepeatedRunOnce) {
  std::vector<RunFolder> runs = {made({}), made({.seed = 2}), made({}), made({})};
  runs[3].config.at("train").as_object()["lr"] = 0.5;
  const std::vector<ResultRow> rows = result_rows(runs);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].strategy, "naive (lr 0.001)");
  EXPECT_EQ(rows[0].find("acc")->size(), 2U);
  EXPECT_EQ(rows[1].strategy, "naive (lr 0.5)");
  EXPECT_THAT(report_html(runs), HasSubstr("1 more run folders repeat"));
}

TEST_F(ReportTest, RunsOfOtherDataAreNoSeedsOfOneRow) {
  const auto over = [&](const std::vector<std::string>& datasets, int seed) {
    RunFolder run = made({.seed = seed});
    run.datasets = datasets;
    return run;
  };
  const std::vector<RunFolder> runs = {over({"/data/monday.csv"}, 1), over({"/data/monday.csv"}, 2),
                                       over({"/data/digits"}, 1), over({"/data/digits"}, 2)};
  const std::vector<ResultRow> rows = result_rows(runs);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].strategy, "naive (monday.csv)");
  EXPECT_EQ(rows[0].find("acc")->size(), 2U);
  EXPECT_EQ(rows[1].strategy, "naive (digits)");
  const std::string html = report_html(runs);
  EXPECT_THAT(html, HasSubstr("Stream permuted of 2 data sets, 5 experiences."));
  EXPECT_THAT(html, HasSubstr("stream.dataset"));

  // What came before counts, too, and names that do not tell are given whole.
  const std::vector<ResultRow> further = result_rows(
      {over({"/a/d.csv"}, 1), over({"/b/d.csv"}, 1), over({"/b/d.csv", "/a/d.csv"}, 1)});
  ASSERT_EQ(further.size(), 3U);
  EXPECT_EQ(further[0].strategy, "naive (/a/d.csv)");
  EXPECT_EQ(further[2].strategy, "naive (/b/d.csv, then /a/d.csv)");
  EXPECT_THAT(report_html({over({"/data/digits"}, 1), over({"/data/digits"}, 2)}),
              HasSubstr("Stream permuted of /data/digits, 5 experiences."));
}

TEST_F(ReportTest, NoTwoRowsHaveOneName) {
  std::vector<RunFolder> runs;
  for (int i = 0; i < 3; ++i) {
    runs.push_back(made({}));
    auto& train = runs[static_cast<std::size_t>(i)].config.at("train").as_object();
    train["lr"] = i == 0 ? 0.1 : 0.2;
    train["batch"] = i == 0 ? 16 : 32;
    train["epochs"] = i == 0 ? 1 : 2;
    train["commit_every"] = i == 1 ? 7 : 8;  // the fourth setting tells the last two apart
  }
  runs.push_back(made({.experiences = 4}));
  runs[3].config = runs[2].config;
  const std::vector<ResultRow> rows = result_rows(runs);
  ASSERT_EQ(rows.size(), 4U);
  std::set<std::string> names;
  for (const ResultRow& row : rows) names.insert(row.strategy);
  EXPECT_EQ(names.size(), 4U);
  EXPECT_THAT(rows[1].strategy, HasSubstr("commit_every 7"));
}

TEST_F(ReportTest, HasTheErrorsOfTargets) {
  const MadeUpRun naive{.experiences = 2, .targets = {"price", "<rent>"}};
  const RunFolder run = made(naive);
  const std::string html = report_html({run});
  EXPECT_EQ(unclosed(html), "");
  EXPECT_EQ(count(html, "data-figure=\"rmse\""), 2U);
  EXPECT_THAT(html, AllOf(HasSubstr("rmse of price on each test set"),
                          HasSubstr("rmse of &lt;rent&gt; on each test set"),
                          HasSubstr("<th>learnt</th><th>test 1</th><th>test 2</th>")));
  // Beside the matrix, row by row.
  const std::size_t table = html.find("data-figure=\"rmse\"");
  EXPECT_LT(html.find("R squared matrix"), table);
  EXPECT_LT(table, html.find("Forgetting by experience"));
  EXPECT_GT(html.find("<tr><td>0</td><td>8,900</td><td>8,800</td></tr>", table), table);

  // Of several seeds the mean, and each strategy's own.
  RunFolder other = made({.experiences = 2, .seed = 2, .targets = {"price"}});
  other.errors[0].rows.at(0) = {9000, std::numeric_limits<double>::infinity()};
  const std::string both = report_html(
      {run, other, made({.strategy = "replay", .experiences = 2, .targets = {"price"}})});
  EXPECT_EQ(unclosed(both), "");
  EXPECT_EQ(count(both, "data-figure=\"rmse\""), 3U);
  EXPECT_THAT(both, AllOf(HasSubstr("naive: rmse of price on each test set"),
                          HasSubstr("replay: rmse of price on each test set"),
                          HasSubstr("mean of 2 runs"), HasSubstr("0.842 ± 0.003"),
                          HasSubstr("<tr><td>0</td><td>8,950</td><td>∞</td></tr>")));
  EXPECT_EQ(count(report_html({made({})}), "data-figure=\"rmse\""), 0U);
}

TEST_F(ReportTest, TextFromOutsideStaysText) {
  RunFolder run = made({});
  const std::string evil = "\"><script>alert('x')</script>&\x01";
  run.folder = evil;
  run.config.at("train").as_object()["strategy"] = evil;
  run.config.at("stream").as_object()["dataset"] = evil;
  run.state_digest = evil;
  for (const auto& runs : {std::vector{run}, std::vector{run, made({.strategy = "replay"})}}) {
    const std::string html = report_html(runs);
    EXPECT_EQ(unclosed(html), "");
    EXPECT_THAT(html, AllOf(Not(HasSubstr("<script")), HasSubstr("&lt;script&gt;alert(&#39;x"),
                            Not(HasSubstr("\x01"))));
  }
}

TEST_F(ReportTest, TablesStandBeforeTheFigures) {
  const std::string html =
      report_html({made({})}, {{"Its <b>own", {"strategy", "lr"}, {{"a<i>", "1"}}, {"a <note>"}}});
  EXPECT_EQ(unclosed(html), "");
  EXPECT_THAT(html, AllOf(HasSubstr("<h2>Its &lt;b&gt;own</h2>"),
                          HasSubstr("<tr><td>a&lt;i&gt;</td><td>1</td></tr>"),
                          HasSubstr("a &lt;note&gt;")));
  EXPECT_LT(html.find("a &lt;note&gt;"), html.find("data-figure"));
}

TEST_F(ReportTest, HasWhatThereIs) {
  EXPECT_THROW(report_html({}), InvalidOptions);
  // One row of one experience, and nothing else.
  write_text(folder_ / "one/events.jsonl",
             "{\"event\":\"evaluate\",\"row\":0,\"steps\":0,\"accuracy\":[0.5]}\n");
  const std::string html = report_html({read_run_folder(folder_ / "one")});
  EXPECT_EQ(unclosed(html), "");
  EXPECT_EQ(count(html, "data-figure"), 1U);
  EXPECT_THAT(html, HasSubstr("not finished"));
  // Many experiences.
  const std::string large = report_html({made({.experiences = 50, .forgets = 0.01})});
  EXPECT_EQ(unclosed(large), "");
  EXPECT_EQ(count(large, "nan"), 0U);
  EXPECT_EQ(count(large, "inf"), 0U);
}

// The output of a command, standard error included.
std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return text;
  char buffer[4096];
  for (std::size_t n; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
    text.append(buffer, n);
  }
  ::pclose(pipe);
  return text;
}

// In a frame as wide as a phone: what a page around the report measures of it.
constexpr const char* kMeasure = R"html(<!DOCTYPE html><meta charset="utf-8">
<iframe id="f" src="report.html" style="width:390px;height:20000px;border:0"></iframe>
<pre id="out">not measured</pre><script>
f.onload=()=>{const d=f.contentDocument,r=d.documentElement;
let small=0;for(const s of d.querySelectorAll('figure .scroll>svg')){const b=s.getBoundingClientRect();
if(b.width<200||b.height<40)small++;}
out.textContent='measured figures='+d.querySelectorAll('figure[data-figure]').length+
' shapes='+d.querySelectorAll('figure svg rect,figure svg polyline').length+
' small='+small+' overflow='+(r.scrollWidth-390);
console.log('measuring done');}
</script>)html";

TEST_F(ReportTest, ChromiumShowsItWithoutErrorAndItFitsAPhone) {
  const std::string browser = output_of("command -v chromium || command -v chromium-browser");
  if (browser.empty()) GTEST_SKIP() << "there is no chromium on this machine";
  write_text(folder_ / "report.html", report_html(comparison()));
  write_text(folder_ / "measure.html", kMeasure);
  const std::string program = browser.substr(0, browser.find('\n')) +
                              " --headless --no-sandbox --disable-gpu --disable-dev-shm-usage"
                              " --allow-file-access-from-files --enable-logging=stderr"
                              " --user-data-dir='" +
                              (folder_ / "profile").string() + "' --virtual-time-budget=5000";
  const std::string dom =
      output_of(program + " --dump-dom 'file://" + (folder_ / "measure.html").string() + "'");
  // The log has the page's own line, so errors of the page would be there, too.
  ASSERT_THAT(dom, HasSubstr("measuring done"));
  EXPECT_EQ(count(dom, ":CONSOLE"), 1U) << dom;
  // 3 bars, 3 matrices, forgetting, seen, anytime, 2 x (drift, leak), 5 costs
  EXPECT_THAT(dom, HasSubstr("measured figures=18 "));
  EXPECT_THAT(dom, HasSubstr(" small=0 overflow=0<"));

  const std::string picture = (folder_ / "page.png").string();
  output_of(program + " --window-size=1200,3000 --screenshot='" + picture + "' 'file://" +
            (folder_ / "report.html").string() + "'");
  EXPECT_EQ(read_text(picture).substr(1, 3), "PNG");
  EXPECT_GT(std::filesystem::file_size(picture), 50'000U);  // an empty page has some 10 KB
}

}  // namespace
}  // namespace perennial::continual
