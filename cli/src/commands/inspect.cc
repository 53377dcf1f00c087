// SPDX-License-Identifier: Apache-2.0
// perennial inspect: what a store holds.
#include <cstdint>
#include <map>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "commands/commands.h"
#include "flags.h"
#include "learnt_pool.h"
#include "output.h"
#include "perennial/core/error.h"
#include "perennial/storage/reshard.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

constexpr std::size_t kDenseShown = 20;

// What a store holds that is not a whole run: one that a library made, or a part of one.
void inspect_plain(const storage::PageReader& store, const std::string& folder,
                   const storage::CommitInfo& head, std::uint64_t store_bytes,
                   const Output& output) {
  const std::vector<storage::CommitInfo> commits = store.log();
  const auto part = store.read_dense(storage::kPartEntry);
  std::ostream& out = output.text();
  out << "store         " << folder << ", " << format_bytes(store_bytes) << ", commit "
      << head.commit << ", state digest " << head.state_digest.hex() << "\nrun           ";
  if (part.ok()) {
    std::istringstream text(std::string(reinterpret_cast<const char*>(part->data()), part->size()));
    std::uint64_t index = 0, count = 0;
    text >> index >> count;
    out << "part " << index + 1 << " of " << count
        << " of a store; bring the parts together with: perennial reshard\n";
  } else {
    out << "none; a program of its own wrote this store\n";
  }
  std::size_t snapshots = 0;
  for (const storage::CommitInfo& info : commits) snapshots += info.snapshot.empty() ? 0 : 1;
  out << "history       " << format_number_of(commits.size(), "commit") << ", "
      << format_number_of(snapshots, "snapshot") << '\n';

  struct Kind {
    std::uint64_t pages = 0, experts = 0, bytes = 0;
  };
  std::map<std::pair<std::uint32_t, storage::PageKind>, Kind> kinds;
  for (const storage::PageId& id : store.pages()) {
    const storage::PageShape shape = value_or_throw(store.page_shape(id));
    Kind& kind = kinds[{id.pool, id.kind}];
    ++kind.pages;
    kind.experts += shape.experts;
    kind.bytes += shape.payload_bytes();
  }
  Table pages({{"pool"}, {"pages of", Align::left}, {"pages"}, {"expert slots"}, {"size"}});
  boost::json::array pools;
  for (const auto& [key, kind] : kinds) {
    const char* name = key.second == storage::PageKind::weights ? "weights" : "optimizer state";
    pages.add_row(
        {std::to_string(key.first), name, format_count(static_cast<std::int64_t>(kind.pages)),
         format_count(static_cast<std::int64_t>(kind.experts)), format_bytes(kind.bytes)});
    pools.push_back({{"pool", key.first},
                     {"kind", name},
                     {"pages", kind.pages},
                     {"experts", kind.experts},
                     {"bytes", kind.bytes}});
  }
  if (kinds.empty()) {
    out << "pages         none\n";
  } else {
    out << '\n';
    pages.print(out);
  }

  Table dense({{"dense entry", Align::left}, {"size"}});
  boost::json::array entries;
  const std::vector<std::string> names = store.dense_names();
  for (const std::string& name : names) {
    const std::uint64_t size = value_or_throw(store.dense_size(name));
    if (entries.size() < kDenseShown) dense.add_row({one_line(name, 80), format_bytes(size)});
    entries.push_back({{"name", name}, {"bytes", size}});
  }
  if (!names.empty()) {
    out << '\n';
    dense.print(out);
  }
  if (names.size() > kDenseShown) {
    out << "and " << names.size() - kDenseShown << " more, listed with --json\n";
  }
  output.finish({{"head", commit_json(head)},
                 {"store_bytes", store_bytes},
                 {"part", part.ok()},
                 {"commits", commits.size()},
                 {"snapshots", snapshots},
                 {"pools", std::move(pools)},
                 {"dense", std::move(entries)}});
}

// What the last run's pager did, by its newest commit.
void inspect_pager(const boost::json::object& pager, const Output& output) {
  if (pager.empty()) return;
  // A counter that an older version did not have is 0.
  const auto count = [&](const char* name) {
    return pager.contains(name) ? pager.at(name).to_number<std::int64_t>() : std::int64_t{0};
  };
  const auto bytes = [&](const char* name) {
    return format_bytes(static_cast<std::uint64_t>(count(name)));
  };
  output.text() << "pager         " << format_count(count("hits")) << " hits, "
                << format_count(count("misses")) << " misses ("
                << format_count(count("initialised")) << " from a recipe, "
                << format_count(count("read")) << " read: " << bytes("read_bytes") << ", "
                << format_count(count("unspilled")) << " from the spill file), "
                << format_count(count("prefetch_hits"))
                << " prefetched in time\n              waited "
                << format_duration(1e-3 * pager.at("wait_ms").to_number<double>()) << "; at most "
                << bytes("peak_bytes") << " in memory, " << bytes("spill_peak_bytes")
                << " spilled (the last run, at its newest commit)\n";
}

int run_inspect(const std::vector<std::string>& args) {
  std::string folder, snapshot;
  CommonOptions common;
  Flags flags("inspect", kInspectCommand.summary.data(),
              "perennial inspect --store perennial-demo");
  flags.require("store", folder, "DIR", "the store's folder; it may be in use")
      .add_text("at", snapshot, "NAME|N", "the state to look at; the newest without it");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto store = open_view(folder, snapshot);
  const storage::CommitInfo head = value_or_throw(store->head());
  const std::uint64_t store_bytes = value_or_throw(store->size_bytes());
  const Output output(common.json, common.quiet);
  if (!store->dense_size("run").ok() || store->dense_size(storage::kPartEntry).ok()) {
    inspect_plain(*store, folder, head, store_bytes, output);
    return kExitOk;
  }
  const continual::LearntModel learnt = continual::load_learnt(*store, 0);
  std::ostream& out = output.text();
  boost::json::object json{{"head", commit_json(head)},
                           {"store_bytes", store_bytes},
                           {"finished", learnt.finished},
                           {"config", learnt.config.to_json()},
                           {"dense_parameters", learnt.model->dense_parameters()}};

  const bool classes = learnt.task->kind() == continual::TaskKind::classification;
  const auto outputs = static_cast<std::uint64_t>(learnt.task->outputs());
  const std::string answers =
      classes ? std::to_string(outputs) + " classes" : format_number_of(outputs, "target");
  out << "store         " << folder << ", " << format_bytes(store_bytes) << ", commit "
      << head.commit << ", state digest " << head.state_digest.hex() << "\nrun           "
      << learnt.config.train.strategy.text() << " on " << enum_name(learnt.config.stream.stream)
      << ' ' << learnt.config.stream.dataset << (learnt.finished ? ", finished" : ", not finished")
      << "\nmodel         " << enum_name(learnt.config.model.model) << ", "
      << format_count(learnt.model->dense_parameters()) << " dense parameters, "
      << learnt.preprocessing.features << " inputs, " << answers << '\n';
  if (PeerImpl* peer = learnt.model->only_layer()) {
    Pool& pool = peer->pool();
    const PeerOptions& options = peer->options();
    const auto page_bytes = static_cast<std::uint64_t>(pool.options().tile()) *
                            static_cast<std::uint64_t>(pool.options().layout().record_bytes());
    const bool intact = peer->frozen_intact();
    out << "pool          " << format_count(static_cast<std::int64_t>(pool.experts()))
        << " experts " << options.d_in << " -> " << options.d_out
        << (options.expert_width > 1 ? " of " + std::to_string(options.expert_width) + " neurons"
                                     : std::string())
        << ", " << enum_name(options.dtype) << " weights, " << enum_name(options.routing)
        << " routing, H " << options.heads << ", K " << options.top_k << ", d_key " << options.d_key
        << "\npages         " << format_count(static_cast<std::int64_t>(pool.pages()))
        << " of weights, " << pool.options().tile() << " experts and " << format_bytes(page_bytes)
        << " each; " << format_count(static_cast<std::int64_t>(head.pages_listed))
        << " in the store, those of optimizer state among them\nfrozen shards "
        << (intact ? "match their digests" : "DO NOT MATCH THEIR DIGESTS: run perennial verify")
        << '\n';
    inspect_pager(learnt.pager, output);
    out << '\n';
    Table table({{"generation"},
                 {"rows"},
                 {"columns"},
                 {"experts"},
                 {"state", Align::left},
                 {"shard digest", Align::left}});
    boost::json::array generations;
    for (const Generation& g : pool.generations()) {
      table.add_row({std::to_string(g.index),
                     std::to_string(g.first_row) + "-" + std::to_string(g.first_row + g.rows - 1),
                     std::to_string(g.cols),
                     g.state == GenerationState::unlearned
                         ? "-"
                         : format_count(std::int64_t{g.rows} * g.cols),
                     std::string(enum_name(g.state)),
                     g.state == GenerationState::frozen ? g.digest.hex() : "-"});
      generations.push_back(generation_json(g));
    }
    table.print(out);
    json["experts"] = pool.experts();
    json["pages"] = pool.pages();
    json["page_bytes"] = page_bytes;
    json["frozen_intact"] = intact;
    json["generations"] = std::move(generations);
    json["pager"] = learnt.pager;
    output.finish(json);
    return intact ? kExitOk : kExitData;
  }
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kInspectCommand{"inspect", CommandGroup::pool,
                              "what a store holds: run, model, generations, digests", run_inspect};

}  // namespace perennial::cli
