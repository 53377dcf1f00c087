// SPDX-License-Identifier: Apache-2.0
// perennial copy: back a store up, in full or on top of an earlier copy.
#include "perennial/storage/copy.h"

#include <filesystem>
#include <ostream>
#include <system_error>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "perennial/storage/reshard.h"
#include "progress.h"
#include "retention_flags.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

// A part of a store holds all of its dense state but not all of its pages: on top of a copy of the
// whole, or of another part, it would take the place of what the copy is kept for.
void refuse_mixed_parts(const storage::PageReader& source, const storage::PageReader& copy) {
  if (!copy.head().ok()) return;
  const auto part = [](const storage::PageReader& store) {
    const auto entry = store.read_dense(storage::kPartEntry);
    return entry.ok() ? *entry : storage::Bytes();
  };
  if (part(source) == part(copy)) return;
  throw InvalidOptions(copy.location() +
                       " is no copy of this part or whole; give each part a copy of its own");
}

int run_copy(const std::vector<std::string>& args) {
  std::string folder, into, snapshot, name;
  RetentionFlags retention;
  CommonOptions common;
  Flags flags("copy", kCopyCommand.summary,
              "perennial copy --store runs/first --into /backup/first");
  flags.require("store", folder, "DIR", "the store to copy from; it may be in use")
      .require("into", into, "DIR", "the copy: a new folder, or an earlier copy of the same store")
      .add_text("at", snapshot, "NAME|N", "the state to copy; the newest without it")
      .add_text("name", name, "NAME",
                "the snapshot's name in the copy; as in the store without it");
  retention.add_to(flags);
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto source = open_view(folder, snapshot);
  throw_if_failed(source->head().status());  // before a folder is made for nothing
  std::error_code none;
  if (std::filesystem::equivalent(folder, into, none)) {
    throw InvalidOptions("--into is the store itself: " + into);
  }
  const auto copy = open_store(into, storage::OpenMode::either);
  refuse_mixed_parts(*source, *copy);
  ProgressDisplay display(common.quiet);
  storage::CopyOptions options;
  if (flags.given("name")) options.snapshot = name;
  options.retention = retention.given(flags, copy->retention());
  options.on_progress = [&](std::uint64_t done, std::uint64_t total) {
    display.update({"copying", static_cast<std::int64_t>(done), static_cast<std::int64_t>(total),
                    "pages", ""});
    return true;
  };
  const storage::CopyReport report = value_or_throw(storage::copy_state(*source, *copy, options));
  display.clear();

  const Output output(common.json, common.quiet);
  if (report.up_to_date) {
    output.text() << into << " is up to date: state digest " << report.commit.state_digest.hex()
                  << '\n';
  } else {
    output.text() << "copied " << format_count(static_cast<std::int64_t>(report.pages_copied))
                  << " pages and " << report.dense_copied << " dense entries, "
                  << format_bytes(report.bytes_copied) << "; "
                  << format_count(static_cast<std::int64_t>(report.pages_kept))
                  << " pages were there already\n"
                  << into << " has state digest " << report.commit.state_digest.hex()
                  << ", as commit " << report.commit.commit << '\n';
  }
  boost::json::object json = commit_json(report.commit);
  json["up_to_date"] = report.up_to_date;
  json["pages_copied"] = report.pages_copied;
  json["pages_kept"] = report.pages_kept;
  json["dense_copied"] = report.dense_copied;
  json["bytes_copied"] = report.bytes_copied;
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kCopyCommand{"copy", CommandGroup::history,
                           "copy a state into a store of its own; again: only what changed since",
                           run_copy};

}  // namespace perennial::cli
