// SPDX-License-Identifier: Apache-2.0
// Failing operations: broken and full disks, short writes and reads, once and for good. What a step
// answers is true, nothing wrong is ever read, and the next step works.
#include "session.h"

namespace perennial::storage::testing {
namespace {

constexpr std::array<Trouble, 6> kTroubles = {Trouble::io_error,    Trouble::no_space,
                                              Trouble::short_write, Trouble::little_space,
                                              Trouble::read_error,  Trouble::short_read};

bool of_reads(Trouble trouble) {
  return trouble == Trouble::read_error || trouble == Trouble::short_read;
}

struct Answers {
  bool unknown = false;               // the store could not find out what happened
  std::unique_ptr<Step> in_question;  // ... to this step
};

// Steps and reads while the fault is armed. What is acknowledged goes into the oracle.
Answers run_into_fault(TortureStore& store, const Session& session, Random& random, Trouble trouble,
                       bool for_good) {
  Answers answers;
  for (int steps = 0; steps < 4; ++steps) {
    std::unique_ptr<Step> step = store.draw();
    const Status status = step->run(*store.store);
    if (status.ok()) {
      step->apply(store.expected);
    } else {
      session.count("steps failed", 1);
      require(store.disk.hit(), step->describe() + " without a fault: " + status.to_string());
      const bool full = trouble != Trouble::io_error && !of_reads(trouble);
      const bool right = of_reads(trouble) ? status.code() == StatusCode::io_error ||
                                                 status.code() == StatusCode::corruption
                         : full ? status.code() == StatusCode::no_space
                                : status.code() == StatusCode::io_error;
      // Behind hidden errors any reason may come; then only what is lost counts.
      require(right || session.mutant == Mutant::hide_write_errors,
              step->describe() + " gave another reason: " + status.to_string());
      // Either way the store is closed; after a rewrite that failed nothing is in question.
      answers.unknown = status.message().find("may or may not") != std::string::npos ||
                        status.message().find("could not be opened again") != std::string::npos;
      if (answers.unknown) {
        session.count("answers 'may or may not'", 1);
        require(for_good, "a single fault left the store closed: " + status.to_string());
        answers.in_question = std::move(step);
        return answers;
      }
      // What failed is not there.
      if (!of_reads(trouble)) store.require_expected("after a step that failed");
    }
    if (of_reads(trouble)) {
      const Comparison found = compare(*store.store, store.expected);
      require(found.match != Match::different, "reading from a failing disk: " + found.why);
    }
    if (one_in(random, 4) && store.disk.hit()) break;
  }
  return answers;
}

void open_with_fault(TortureStore& store, const Session& session) {
  store.close();
  const Status status = store.open();
  if (status.ok()) {
    require(compare(*store.store, store.expected).match != Match::different,
            "opened from a failing disk: another state");
  } else {
    session.count("openings failed", 1);
    require(store.disk.hit(), "opening without a fault: " + status.to_string());
  }
}

}  // namespace

void run_fault_session(const Session& session) {
  Random random(session.seed);
  TortureStore store(session);
  const Status created = store.open();
  require(created.ok(), "creating: " + created.to_string());
  for (std::uint64_t cycle = 0; cycle < session.cycles; ++cycle) {
    const Trouble trouble = kTroubles[below(random, kTroubles.size())];
    const bool for_good = one_in(random, 2);
    store.disk.arm(trouble, 1 + below(random, of_reads(trouble) ? 25 : 70), for_good, random());
    Answers answers;
    const bool opening = one_in(random, 5);
    if (opening) {
      open_with_fault(store, session);
    } else {
      answers = run_into_fault(store, session, random, trouble, for_good);
    }
    if (store.disk.hit()) session.count("faults met", 1);
    store.disk.disarm();

    if (store.store == nullptr) {
      const Status status = store.open(OpenMode::existing);
      require(status.ok(), "opening after a fault: " + status.to_string());
    }
    if (answers.unknown) {
      store.require_sound("after 'may or may not'");  // opens the store again
      store.settle(answers.in_question.get(), "after 'may or may not'");
    } else {
      store.require_expected("after a fault");
    }
    store.take_step();
    store.require_expected("after the next step");
    if (one_in(random, 4)) store.require_sound("after a fault");
    if (one_in(random, 3)) {
      store.disk.cut(random());
      store.close();
      store.disk.power_on();
      session.count("cut after a fault", 1);
      const Status status = store.open(OpenMode::existing);
      require(status.ok(), "opening after fault and power cut: " + status.to_string());
      store.require_expected("after fault and power cut");
      store.require_sound("after fault and power cut");
    }
    session.cycle_done();
  }
}

}  // namespace perennial::storage::testing
