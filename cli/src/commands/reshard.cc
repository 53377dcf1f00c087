// SPDX-License-Identifier: Apache-2.0
// perennial reshard: spread a store over several, or bring parts together.
#include "perennial/storage/reshard.h"

#include <boost/json/array.hpp>
#include <filesystem>
#include <ostream>
#include <system_error>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "progress.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

// Folders of new stores. What failed leaves none of them: a part without its fellows is worth
// nothing, and would be in the way of the next try.
class NewFolders {
 public:
  NewFolders() = default;
  NewFolders(const NewFolders&) = delete;
  NewFolders& operator=(const NewFolders&) = delete;
  ~NewFolders() {
    std::error_code none;
    for (const std::string& folder : folders_) std::filesystem::remove_all(folder, none);
  }
  void about_to_make(const std::string& folder) {
    if (!std::filesystem::exists(folder)) folders_.push_back(folder);
  }
  void keep() { folders_.clear(); }

 private:
  std::vector<std::string> folders_;
};

int run_reshard(const std::vector<std::string>& args) {
  std::string from, into;
  CommonOptions common;
  Flags flags("reshard", kReshardCommand.summary,
              "perennial reshard --from runs/first --into part-1,part-2,part-3");
  flags.require("from", from, "DIR,...", "a whole store, or all parts of one in any order")
      .require("into", into, "DIR,...", "the new stores: one gets the whole, several a part each");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  const std::vector<std::string> sources = split_list("from", from);
  const std::vector<std::string> targets = split_list("into", into);

  std::vector<std::unique_ptr<storage::PageReader>> readers;
  std::vector<const storage::PageReader*> reading;
  for (const std::string& folder : sources) {
    reading.push_back(readers.emplace_back(open_view(folder)).get());
    throw_if_failed(reading.back()->head().status());
  }
  (void)value_or_throw(storage::check_parts(reading));  // before any folder is made
  NewFolders made;
  std::vector<std::unique_ptr<storage::PageStore>> stores;
  std::vector<storage::PageStore*> writing;
  for (const std::string& folder : targets) {
    made.about_to_make(folder);
    writing.push_back(stores.emplace_back(open_store(folder, storage::OpenMode::create)).get());
  }
  ProgressDisplay display(common.quiet);
  const storage::ReshardReport report = value_or_throw(storage::reshard(
      reading, writing, {.on_progress = [&](std::uint64_t done, std::uint64_t total) {
        display.update({"resharding", static_cast<std::int64_t>(done),
                        static_cast<std::int64_t>(total), "pages", ""});
        return true;
      }}));
  made.keep();
  display.clear();

  const Output output(common.json, common.quiet);
  boost::json::array parts;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    output.text() << targets[i] << ": " << format_count(static_cast<std::int64_t>(report.pages[i]))
                  << " pages\n";
    parts.push_back({{"store", targets[i]}, {"pages", report.pages[i]}});
  }
  output.text() << "state digest of the whole: " << report.state_digest << '\n';
  output.finish({{"state_digest", report.state_digest}, {"parts", std::move(parts)}});
  return kExitOk;
}

}  // namespace

const Command kReshardCommand{"reshard", CommandGroup::safety,
                              "spread a state over several stores by rows, or bring parts together",
                              run_reshard};

}  // namespace perennial::cli
