// SPDX-License-Identifier: Apache-2.0
// The protocols: every file loads, its rows are valid runs, its published numbers belong to them.
#include "perennial/continual/protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <set>

namespace perennial::continual {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(Protocols, AllLoad) {
  const std::vector<std::string> names = protocol_names();
  EXPECT_THAT(names,
              ::testing::IsSupersetOf({"hsu18", "vdv19", "agem19", "gem17", "der20", "gdumb20",
                                       "xder22", "split-class", "permuted", "rotated"}));
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  for (const std::string& name : names) {
    for (const std::string& scenario : protocol_scenarios(name)) {
      SCOPED_TRACE(name + " " + scenario);
      const Protocol protocol = load_protocol(name, scenario, "somewhere/mnist");
      EXPECT_FALSE(protocol.title.empty());
      EXPECT_FALSE(protocol.source.empty());
      std::set<std::string> rows;
      for (const ProtocolRow& row : protocol.rows) {
        SCOPED_TRACE(row.name);
        EXPECT_NO_THROW(row.config.validate());
        EXPECT_EQ(row.config.stream.dataset, "somewhere/mnist");
        EXPECT_EQ(row.config.stream.experiences, protocol.rows.front().config.stream.experiences);
        EXPECT_TRUE(rows.insert(row.name).second);
        // The name says which strategy it is, but for a head that is shown without its pool.
        if (row.name != "head-without-pool") {
          EXPECT_TRUE(row.name.starts_with(row.config.train.strategy.text()));
        }
      }
      for (const char* bound : {"joint", "naive"}) EXPECT_TRUE(rows.contains(bound)) << bound;
      for (const PublishedResult& result : protocol.published) {
        SCOPED_TRACE(result.row);
        EXPECT_TRUE(rows.contains(result.row)) << "published, but not run";
        EXPECT_GT(result.acc, 0);
        EXPECT_LT(result.acc, 1);
        EXPECT_FALSE(result.dataset.empty());
        EXPECT_FALSE(result.source.empty());
      }
    }
  }
}

// What --tune may choose from is valid, in order, and has the row's own value among it.
TEST(Protocols, TuningAxesAreValidSettings) {
  std::int64_t axes = 0;
  for (const std::string& name : protocol_names()) {
    for (const std::string& scenario : protocol_scenarios(name)) {
      for (const ProtocolRow& row : load_protocol(name, scenario, "mnist").rows) {
        for (const TuningAxis& axis : row.axes) {
          SCOPED_TRACE(name + ' ' + row.name + ' ' + axis.field);
          ++axes;
          bool own = false;
          double last = -1;
          for (const boost::json::value& value : axis.values) {
            const RunConfig config =
                with_settings(row.config, {{axis.section, {{axis.field, value}}}}, name);
            EXPECT_NO_THROW(config.validate());
            own = own || differences(config, row.config).empty();
            if (!value.is_number()) continue;
            EXPECT_GT(value.to_number<double>(), last);
            last = value.to_number<double>();
          }
          EXPECT_TRUE(own);
        }
      }
    }
  }
  EXPECT_GT(axes, 5);
}

TEST(Protocols, ScenariosDiffer) {
  EXPECT_EQ(protocol_scenarios("hsu18"), (std::vector<std::string>{"class", "domain", "task"}));
  const Protocol by_class = load_protocol("hsu18", "", "mnist");
  const Protocol domain = load_protocol("hsu18", "domain", "mnist");
  EXPECT_EQ(by_class.rows[0].config.stream.scenario, Scenario::class_incremental);
  EXPECT_EQ(domain.rows[0].config.stream.scenario, Scenario::domain_incremental);
  ASSERT_NE(by_class.find("gem", "mnist"), nullptr);
  EXPECT_DOUBLE_EQ(by_class.find("gem", "mnist")->acc, 0.9220);
  EXPECT_EQ(by_class.find("gem", "mnist")->seeds, 10);
  EXPECT_DOUBLE_EQ(domain.find("gem", "mnist")->acc, 0.9616);
  EXPECT_EQ(by_class.find("gem", "fashion-mnist"), nullptr) << "measured on other data";
  EXPECT_EQ(by_class.find("gone", "mnist"), nullptr);
}

struct Strength {
  const char *protocol, *scenario, *row, *option;
  double value;
};

// What the sources state, where they do; EWC's twice, for the 1/2 that their formulas do not have.
TEST(Protocols, StrengthsAreThePublishedOnes) {
  for (const Strength& s : std::initializer_list<Strength>{
           {"hsu18", "task", "ewc", "ewc_strength", 2 * 100},
           {"hsu18", "domain", "ewc", "ewc_strength", 2 * 100},
           {"hsu18", "class", "ewc", "ewc_strength", 2 * 600},
           {"hsu18", "task", "online_ewc", "online_ewc_strength", 2 * 400},
           {"hsu18", "domain", "online_ewc", "online_ewc_strength", 2 * 700},
           {"hsu18", "class", "online_ewc", "online_ewc_strength", 2 * 100},
           {"hsu18", "task", "si", "si_strength", 300},
           {"hsu18", "domain", "si", "si_strength", 3000},
           {"hsu18", "class", "si", "si_strength", 600},
           {"hsu18", "task", "l2", "l2_strength", 0.01},
           {"hsu18", "domain", "l2", "l2_strength", 0.5},
           {"hsu18", "class", "l2", "l2_strength", 100},
           {"hsu18", "domain", "mas", "mas_strength", 10000},
           {"hsu18", "class", "mas", "mas_strength", 1},
           {"agem19", "domain", "ewc", "ewc_strength", 2 * 10},
           {"agem19", "domain", "ewc", "lr", 0.03},
           {"agem19", "domain", "naive", "lr", 0.03},
           {"agem19", "domain", "mas", "mas_strength", 0.1},
           {"agem19", "domain", "mas", "lr", 0.1},
           {"agem19", "domain", "gem", "task_memory", 250},
           {"agem19", "domain", "agem", "task_memory", 250},
           {"gdumb20", "class", "gdumb-500", "memory", 500},
           {"gdumb20", "class", "gdumb-4400", "memory", 4400},
           {"vdv19", "class", "icarl-2000", "memory", 2000},
       }) {
    SCOPED_TRACE(std::string(s.protocol) + ' ' + s.scenario + ' ' + s.row + ' ' + s.option);
    const Protocol protocol = load_protocol(s.protocol, s.scenario, "mnist");
    const auto row = std::find_if(protocol.rows.begin(), protocol.rows.end(),
                                  [&](const ProtocolRow& r) { return r.name == s.row; });
    ASSERT_NE(row, protocol.rows.end());
    const boost::json::object train = row->config.to_json().at("train").as_object();
    EXPECT_EQ(train.at(s.option).to_number<double>(), s.value);
  }
}

TEST(Protocols, ScenarioTaskHasThePenaltiesThatWerePublished) {
  for (const char* name : {"hsu18", "vdv19"}) {
    const Protocol protocol = load_protocol(name, "task", "mnist");
    for (const char* row : {"ewc", "online_ewc", "si", "lwf"}) {
      ASSERT_NE(protocol.find(row, "mnist"), nullptr) << name << ' ' << row;
      EXPECT_GT(protocol.find(row, "mnist")->acc, 0.97);
    }
  }
  EXPECT_DOUBLE_EQ(load_protocol("hsu18", "task", "mnist").find("mas", "mnist")->acc, 0.9922);
}

TEST(Protocols, UnknownNamesAreRefused) {
  EXPECT_THAT([] { load_protocol("hsu19", "", "x"); },
              ThrowsMessage<InvalidOptions>(HasSubstr("hsu18")));
  EXPECT_THAT([] { load_protocol("hsu18", "tasks", "x"); },
              ThrowsMessage<InvalidOptions>(HasSubstr("class, domain, task")));
}

TEST(Protocols, ASeedDrawsEverything) {
  const RunConfig config = load_protocol("permuted", "", "x").rows[0].config;
  const RunConfig one = with_seed(config, 1), two = with_seed(config, 2);
  EXPECT_NE(one.stream.stream_seed, two.stream.stream_seed);
  EXPECT_NE(one.model.seed, two.model.seed);
  EXPECT_NE(one.train.train_seed, two.train.train_seed);
  EXPECT_NE(one.train.strategy_options.get("strategy_seed"),
            two.train.strategy_options.get("strategy_seed"));
  EXPECT_NE(one.train.gate_options.gate_seed, two.train.gate_options.gate_seed);
  EXPECT_TRUE(differences(with_seed(two, 1), one).empty());
}

TEST(Protocols, AValidationShareIsStoredOnlyWhereThereIsOne) {
  const RunConfig config = load_protocol("permuted", "", "x").rows[0].config;
  EXPECT_FALSE(config.to_json().at("stream").as_object().contains("validation_share"));
  RunConfig held = config;
  held.stream.validation_share = 0.25;
  EXPECT_EQ(RunConfig::from_json(held.to_json()).stream.validation_share, 0.25);
  EXPECT_EQ(differences(config, held),
            (std::vector<std::string>{"stream.validation_share: 0E0 stored, 2.5E-1 asked for"}));
}

TEST(Protocols, LimitsOnlyShorten) {
  const RunConfig config = load_protocol("permuted", "", "x").rows[0].config;
  ASSERT_EQ(config.stream.limit, 20000);
  EXPECT_EQ(with_limits(config, 300, 50).stream.limit, 300);
  EXPECT_EQ(with_limits(config, 300, 50).stream.test_limit, 50);
  EXPECT_EQ(with_limits(config, 30000, 0).stream.limit, 20000);
  EXPECT_EQ(with_limits(config, 0, 0).stream.limit, 20000);
}

}  // namespace
}  // namespace perennial::continual
