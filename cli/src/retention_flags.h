// SPDX-License-Identifier: Apache-2.0
// The flags of a retention rule.
#pragma once

#include <optional>

#include "flags.h"
#include "perennial/storage/page_reader.h"

namespace perennial::cli {

class RetentionFlags {
 public:
  void add_to(Flags& flags) {
    flags.add("keep_last", rule_.keep_last, "commits to keep, the newest first; 0 = all",
              Range{0, 4294967295.});
    flags.add("hourly", rule_.hourly, "beside them the newest of each of the last N hours",
              Range{0, 4294967295.});
    flags.add("daily", rule_.daily, "beside them the newest of each of the last N days",
              Range{0, 4294967295.});
  }
  // The rule, if one of its flags was given; those not given keep what `before` says.
  std::optional<storage::Retention> given(const Flags& flags,
                                          const storage::Retention& before) const {
    storage::Retention rule = before;
    if (flags.given("keep_last")) rule.keep_last = rule_.keep_last;
    if (flags.given("hourly")) rule.hourly = rule_.hourly;
    if (flags.given("daily")) rule.daily = rule_.daily;
    const bool any = flags.given("keep_last") || flags.given("hourly") || flags.given("daily");
    return any ? std::optional(rule) : std::nullopt;
  }

 private:
  storage::Retention rule_;
};

}  // namespace perennial::cli
