// SPDX-License-Identifier: Apache-2.0
// Runs sessions of the torture harness in processes of their own and adds up what they report.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "session.h"

namespace perennial::storage::testing {

// A session that reported a loss, crashed or hung.
struct Failure {
  std::uint64_t seed = 0;
  std::uint64_t cycle = 0;
  std::string what;
};

struct KindReport {
  std::string kind;
  std::uint64_t cycles = 0;
  std::vector<Failure> failures;
  std::map<std::string, std::uint64_t> counts;
  std::vector<std::string> mutants;
  std::vector<std::string> mutants_caught;
  std::map<std::string, std::uint64_t> cycles_until_caught;
};

class Runner {
 public:
  // `jobs` sessions at once, in folders inside `folder`.
  Runner(std::filesystem::path folder, unsigned jobs) : folder_(std::move(folder)), jobs_(jobs) {}

  // Sessions of `kind` until `cycles` cycles are done. Stops after kMostFailures failures, or after
  // the first if a promise is broken on purpose.
  void run(const KindOfTorture& kind, std::uint64_t cycles, std::uint64_t seed, Mutant mutant,
           KindReport& report);
  // The one session of `seed`.
  void run_one(const KindOfTorture& kind, std::uint64_t cycles, std::uint64_t seed, Mutant mutant,
               KindReport& report);

 private:
  struct Child;
  static constexpr std::size_t kMostFailures = 10;

  void start(const KindOfTorture& kind, std::uint64_t cycles, std::uint64_t seed, Mutant mutant,
             std::vector<Child>& children);
  void collect(std::vector<Child>& children, KindReport& report);

  std::filesystem::path folder_;
  unsigned jobs_;
  std::uint64_t sessions_ = 0;
};

}  // namespace perennial::storage::testing
