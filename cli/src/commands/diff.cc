// SPDX-License-Identifier: Apache-2.0
// perennial diff: what changed between two states.
#include "perennial/storage/diff.h"

#include <boost/json/array.hpp>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

constexpr std::size_t kColumns = 96;

boost::json::array names_json(const std::vector<std::string>& names) {
  return boost::json::array(names.begin(), names.end());
}

std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void print_dense(std::ostream& out, const std::string& what,
                 const std::vector<std::string>& names) {
  if (names.empty()) return;
  out << "dense state " << what << ":\n";
  for (const std::string& line : wrap(list(names), kColumns)) out << "  " << line << '\n';
}

int run_diff(const std::vector<std::string>& args) {
  std::string folder, from, to;
  bool pages = false;
  CommonOptions common;
  Flags flags("diff", kDiffCommand.summary,
              "perennial diff --store runs/first --from experience-1 --to experience-2");
  flags.require("store", folder, "DIR", "the store's folder")
      .require("from", from, "NAME|N", "the earlier state: a snapshot, or the number of a commit")
      .add_text("to", to, "NAME|N", "the later state; the newest without it")
      .add_switch("pages", pages, "list every page that differs");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto before = open_view(folder, from);
  const auto after = open_view(folder, to);
  const storage::CommitInfo old_head = value_or_throw(before->head());
  const storage::CommitInfo new_head = value_or_throw(after->head());
  const storage::StateDiff diff = value_or_throw(storage::diff_states(*before, *after));

  const Output output(common.json, common.quiet);
  std::ostream& out = output.text();
  out << "from commit " << old_head.commit << " to commit " << new_head.commit << ": ";
  if (diff.empty()) {
    out << "the states are equal\n";
  } else {
    out << format_count(std::ssize(diff.added)) << " pages added, "
        << format_count(std::ssize(diff.removed)) << " removed, "
        << format_count(std::ssize(diff.changed)) << " changed; "
        << format_count(static_cast<std::int64_t>(diff.experts)) << " experts and "
        << format_bytes(diff.bytes) << " differ\n";
  }
  print_dense(out, "added", diff.dense_added);
  print_dense(out, "removed", diff.dense_removed);
  print_dense(out, "changed", diff.dense_changed);
  boost::json::array listed;
  const auto list_pages = [&](const char* sign, const std::vector<storage::PageId>& ids) {
    for (const storage::PageId& id : ids) {
      if (!pages) return;
      out << sign << ' ' << to_string(id) << '\n';
      listed.push_back({{"change", sign}, {"page", to_string(id)}});
    }
  };
  list_pages("+", diff.added);
  list_pages("-", diff.removed);
  list_pages("~", diff.changed);
  boost::json::object json{{"from", old_head.commit},
                           {"to", new_head.commit},
                           {"equal", diff.empty()},
                           {"pages_added", diff.added.size()},
                           {"pages_removed", diff.removed.size()},
                           {"pages_changed", diff.changed.size()},
                           {"experts", diff.experts},
                           {"bytes", diff.bytes},
                           {"dense_added", names_json(diff.dense_added)},
                           {"dense_removed", names_json(diff.dense_removed)},
                           {"dense_changed", names_json(diff.dense_changed)}};
  if (pages) json["pages"] = std::move(listed);
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kDiffCommand{"diff", CommandGroup::history,
                           "what changed from one state of a store to another", run_diff};

}  // namespace perennial::cli
