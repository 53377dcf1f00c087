// SPDX-License-Identifier: Apache-2.0
// Power cuts at a random operation of commits, of opening and of creating: when the power is back
// the store holds the last acknowledged state, or the one in flight, whole.
#include "session.h"

namespace perennial::storage::testing {
namespace {

// Opens until no cut comes in between. The disk is on.
void open_after_cut(TortureStore& store, const Session& session, Random& random) {
  for (int attempt = 0;; ++attempt) {
    const bool again = attempt < 3 && one_in(random, 4);
    if (again) {
      store.disk.arm(Trouble::power_cut, 1 + below(random, 30), true, random());
    }
    const Status status = store.open();
    if (again && store.disk.hit()) {
      session.count("cut while opening", 1);
      store.close();
      store.disk.power_on();
      continue;
    }
    require(status.ok(), "opening after a power cut: " + status.to_string());
    store.disk.disarm();
    return;
  }
}

// Steps until the power fails. The step in flight, if there is one.
std::unique_ptr<Step> run_into_cut(TortureStore& store, const Session& session, Random& random) {
  if (one_in(random, 8)) {  // between two steps
    store.disk.cut(random());
    session.count("cut between steps", 1);
    return nullptr;
  }
  store.disk.arm(Trouble::power_cut, 1 + below(random, 120), true, random());
  for (int steps = 0; steps < 200; ++steps) {
    std::unique_ptr<Step> step = store.draw();
    if (session.mutant == Mutant::acknowledge_early) {
      Expected told = store.expected;
      step->apply(told);
      (void)step->run(*store.store);
      store.expected = std::move(told);
      if (store.disk.hit()) return nullptr;
      continue;
    }
    const Status status = step->run(*store.store);
    if (!status.ok()) {
      require(store.disk.hit(), step->describe() + " without a fault: " + status.to_string());
      session.count("cut in a step", 1);
      return step;
    }
    step->apply(store.expected);
    if (store.disk.hit()) {
      session.count("cut after the commit point", 1);
      return nullptr;
    }
  }
  throw Loss("no operation of 200 steps met the disk");
}

}  // namespace

void run_power_session(const Session& session) {
  Random random(session.seed);
  TortureStore store(session);
  if (one_in(random, 2)) {  // the power fails while the store is made
    store.disk.arm(Trouble::power_cut, 1 + below(random, 20), true, random());
    const Status status = store.open();
    require(status.ok() || store.disk.hit(), "creating: " + status.to_string());
    store.close();
    store.disk.power_on();
  }
  open_after_cut(store, session, random);
  for (std::uint64_t cycle = 0; cycle < session.cycles; ++cycle) {
    const std::unique_ptr<Step> in_flight = run_into_cut(store, session, random);
    store.close();
    store.disk.power_on();
    open_after_cut(store, session, random);
    if (store.settle(in_flight.get(), "after a power cut")) session.count("in flight and kept", 1);
    store.require_sound("after a power cut");
    store.take_step();
    store.require_expected("after the next step");
    session.cycle_done();
  }
}

}  // namespace perennial::storage::testing
