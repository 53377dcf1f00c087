// SPDX-License-Identifier: Apache-2.0
// A writing process killed at random instants, and two writers at once: the store opens at the last
// acknowledged step, or at the one in flight, whole.
#include <thread>

#include "session.h"
#include "writer.h"

namespace perennial::storage::testing {
namespace {

// The steps that a store went through, with the state they led to.
struct History {
  std::vector<std::uint64_t> seeds;
  Expected expected;

  void add(std::uint64_t seed) {
    draw_step(seed, expected)->apply(expected);
    seeds.push_back(seed);
  }
};

// The store must hold what the writer of `seed` acknowledged, or one step more, which is then
// added.
void check_after_kill(const Session& session, History& history, std::uint64_t seed,
                      std::uint64_t acknowledged, bool verify) {
  for (std::uint64_t i = 1; i <= acknowledged; ++i) history.add(derive(seed, i));
  auto store =
      open_rocksdb_store(session.store(), {.mode = OpenMode::either, .full_table_every = 5});
  require(store.ok(), "opening after a kill: " + store.status().to_string());
  const Comparison before = compare(**store, history.expected);
  if (before.match != Match::same) {
    history.add(derive(seed, acknowledged + 1));
    const Comparison after = compare(**store, history.expected);
    require(after.match == Match::same, "after a kill: neither before (" + before.why +
                                            ") nor after (" + after.why + ") the step in flight");
    session.count("in flight and kept", 1);
  }
  if (verify) {
    const std::string failure = verify_failure(**store);
    require(failure.empty(), "after a kill: verify: " + failure);
  }
}

}  // namespace

void run_kill_session(const Session& session) {
  // Mostly inside a commit; now and then while opening or between commits.
  static constexpr std::array<Phase, 12> kAims = {
      Phase::build,  Phase::build,  Phase::sync,    Phase::sync,  Phase::ingest,  Phase::ingest,
      Phase::ingest, Phase::ingest, Phase::rewrite, Phase::purge, Phase::recover, Phase::idle};
  static constexpr std::array<std::string_view, kPhases> kDiedIn = {
      "killed between steps",       "killed while building", "killed while syncing",
      "killed while ingesting",     "killed while opening",  "killed while rewriting",
      "killed while removing files"};
  Random random(session.seed);
  History history;
  const std::filesystem::path past = session.folder / "past";
  for (std::uint64_t cycle = 0; cycle < session.cycles; ++cycle) {
    const std::uint64_t seed = derive(session.seed, 1'000'000 + cycle);
    const Phase aim = kAims[below(random, kAims.size())];
    const std::uint64_t times =
        aim == Phase::recover || aim == Phase::rewrite || aim == Phase::purge
            ? 1
            : 1 + below(random, 4);
    const std::uint64_t longest = aim == Phase::build ? 300 : 4000;  // building takes about that
    const std::chrono::microseconds delay(one_in(random, 3) ? 0 : below(random, longest));
    write_seeds(past, history.seeds);
    Writer writer(session.store(), past, seed, session.mutant == Mutant::acknowledge_early);
    require(writer.wait_for(static_cast<int>(aim), times), "the writer hangs");
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    const int died_in = writer.kill();
    require(died_in >= 0, "the writer failed by itself");
    session.count(kDiedIn[static_cast<std::size_t>(died_in)], 1);
    check_after_kill(session, history, seed, writer.acknowledged(), one_in(random, 4));
    session.cycle_done();
  }
}

void run_writers_session(const Session& session) {
  Random random(session.seed);
  History history;
  const std::filesystem::path past = session.folder / "past";
  for (std::uint64_t cycle = 0; cycle < session.cycles; ++cycle) {
    write_seeds(past, history.seeds);
    const std::array<std::uint64_t, 2> seeds = {derive(session.seed, 1'000'000 + 2 * cycle),
                                                derive(session.seed, 1'000'001 + 2 * cycle)};
    Writer first(session.store(), past, seeds[0], false);
    if (one_in(random, 2)) {
      std::this_thread::sleep_for(std::chrono::microseconds(below(random, 20'000)));
    }
    Writer second(session.store(), past, seeds[1], false);
    // One of them gets the store, whichever; the other is told that it is busy, and ends.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (first.running() && second.running() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    const bool first_won = first.running();
    require(first_won != second.running(), "both writers run, or none does");
    Writer& winner = first_won ? first : second;
    Writer& loser = first_won ? second : first;
    require(loser.exit_code() == kWriterFoundBusy, "the second writer was not told 'busy'");
    require(loser.acknowledged() == 0, "the second writer made a step");
    require(winner.wait_for_steps(1 + below(random, 4)), "the writer hangs");
    // A third one comes while steps are made.
    const auto third = open_rocksdb_store(session.store(), {.mode = OpenMode::existing});
    require(!third.ok() && third.status().code() == StatusCode::busy,
            "a third writer was not told 'busy': " +
                (third.ok() ? "it opened the store" : third.status().to_string()));
    require(winner.wait_for_steps(winner.acknowledged() + 1), "the writer hangs");
    require(winner.kill() >= 0, "the writer failed by itself");
    session.count("told 'busy'", 2);
    check_after_kill(session, history, first_won ? seeds[0] : seeds[1], winner.acknowledged(),
                     true);
    session.cycle_done();
  }
}

}  // namespace perennial::storage::testing
