// SPDX-License-Identifier: Apache-2.0
// Ours beside figures that benchmarks/peers/peers.py took of Python packages just before.
#include <ATen/ops/ones_like.h>

#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>
#include <fstream>
#include <iterator>

#include "bench_peer.h"
#include "peer_sides.h"

namespace perennial::bench {
namespace json = boost::json;
namespace {

// Least ratio; only that to peer-pytorch's best is judged.
std::optional<double> target_of(const std::string& package, const std::string& what,
                                std::int64_t tokens) {
  if (!package.starts_with("peer-pytorch") || what != "forward + backward + fused Adam") return {};
  return tokens == 1024 ? std::optional(9.0) : tokens == 128 ? std::optional(50.0) : std::nullopt;
}

std::vector<double> time_ours(PeerRun& run, const std::string& what, std::int64_t tokens,
                              std::size_t repetitions) {
  OurSide& ours = run.ours();
  const Batches batches(run, ours.sizes(), tokens);
  const at::Tensor dy = at::ones_like(batches.all().front());
  const auto x = batches.turn();
  const auto call = [&] {
    if (what == "forward") {
      (void)ours.forward(x());
    } else if (what == "forward + backward") {
      ours.backward(x(), dy);
    } else {
      ours.step(x(), dy);
    }
  };
  return time_sides(run, repetitions, {call}).front();
}

}  // namespace

void bench_packages(PeerRun& run) {
  if (run.peers.empty()) {
    run.notes.emplace_back(
        "the Python packages are left out: benchmarks/peers/run puts them beside ours");
    return;
  }
  std::ifstream file(run.peers);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const json::object figures = json::parse(text).as_object();
  if (json::value_to<int>(figures.at("threads")) != run.threads ||
      (figures.at("clock") == "cpu") != run.cpu_clock) {
    fail(run.peers + " was taken with another number of threads or by another clock");
  }
  if (!run.ours().trains()) run.ours().attach_optimizer();
  for (const json::value& row : figures.at("rows").as_array()) {
    const auto package = json::value_to<std::string>(row.at("package"));
    const auto what = json::value_to<std::string>(row.at("what"));
    const auto tokens = json::value_to<std::int64_t>(row.at("tokens"));
    const auto theirs = json::value_to<std::vector<double>>(row.at("seconds"));
    const std::vector<double> ours = time_ours(run, what, tokens, theirs.size());
    run.rows.push_back(rate_row(what + ", " + count_of(tokens, "token") + "; beside " + package,
                                "tokens/s", static_cast<double>(tokens), ours, theirs,
                                target_of(package, what, tokens)));
  }
  run.ours().clear_gradients();
}

}  // namespace perennial::bench
