// SPDX-License-Identifier: Apache-2.0
// perennial inspect: what a store holds.
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "learnt_pool.h"
#include "output.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

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
  const continual::LearntModel learnt = continual::load_learnt(*store, 0);
  const Output output(common.json, common.quiet);
  std::ostream& out = output.text();
  boost::json::object json{{"head", commit_json(head)},
                           {"store_bytes", store_bytes},
                           {"finished", learnt.finished},
                           {"config", learnt.config.to_json()},
                           {"dense_parameters", learnt.model->dense_parameters()}};

  out << "store         " << folder << ", " << format_bytes(store_bytes) << ", commit "
      << head.commit << ", state digest " << head.state_digest.hex() << "\nrun           "
      << enum_name(learnt.config.train.strategy) << " on " << enum_name(learnt.config.stream.stream)
      << ' ' << learnt.config.stream.dataset << (learnt.finished ? ", finished" : ", not finished")
      << "\nmodel         " << enum_name(learnt.config.model.model) << ", "
      << format_count(learnt.model->dense_parameters()) << " dense parameters, "
      << learnt.preprocessing.features << " inputs, " << learnt.label_names.size() << " classes\n";
  if (PeerImpl* peer = learnt.model->peer()) {
    Pool& pool = peer->pool();
    const PeerOptions& options = peer->options();
    const auto page_bytes = static_cast<std::uint64_t>(pool.options().tile()) *
                            static_cast<std::uint64_t>(pool.options().layout().stride()) *
                            sizeof(float);
    const bool intact = peer->frozen_intact();
    out << "pool          " << format_count(static_cast<std::int64_t>(pool.experts()))
        << " experts " << options.d_in << " -> " << options.d_out << ", "
        << enum_name(options.routing) << " routing, H " << options.heads << ", K " << options.top_k
        << ", d_key " << options.d_key << "\npages         "
        << format_count(static_cast<std::int64_t>(pool.pages())) << " of weights, "
        << pool.options().tile() << " experts and " << format_bytes(page_bytes) << " each; "
        << format_count(static_cast<std::int64_t>(head.pages_listed))
        << " in the store, those of optimizer state among them\nfrozen shards "
        << (intact ? "match their digests" : "DO NOT MATCH THEIR DIGESTS: run perennial verify")
        << "\n\n";
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
                     std::to_string(g.cols), format_count(std::int64_t{g.rows} * g.cols),
                     g.frozen ? "frozen" : "open", g.frozen ? g.digest.hex() : "-"});
      generations.push_back(generation_json(g));
    }
    table.print(out);
    json["experts"] = pool.experts();
    json["pages"] = pool.pages();
    json["page_bytes"] = page_bytes;
    json["frozen_intact"] = intact;
    json["generations"] = std::move(generations);
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
