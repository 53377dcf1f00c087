// SPDX-License-Identifier: Apache-2.0
// Names, FORMAT and creation of a store folder.
#include "store_folder.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <set>
#include <system_error>

#include "env_files.h"
#include "os_error.h"
#include "perennial/storage/digest.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kFormatWord = "perennial-store ";
constexpr std::string_view kDigestWord = "xxh3-128 ";

std::string format_text(std::uint32_t version) {
  const std::string line = text_of(kFormatWord, version, "\n");
  return text_of(line, kDigestWord, digest_of(std::as_bytes(std::span(line))).hex(), "\n");
}

bool holds_commit_files(const fs::path& db) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(db, ignored)) {
    if (entry.path().extension() == ".sst") return true;
  }
  return false;
}

}  // namespace

fs::path StoreFolder::building(std::uint64_t commit) const {
  return stage() / (std::to_string(commit) + ".building");
}
fs::path StoreFolder::staged(std::uint64_t commit) const {
  return stage() / (std::to_string(commit) + ".sst");
}
fs::path StoreFolder::ingesting(std::uint64_t commit) const {
  return stage() / (std::to_string(commit) + ".ingest");
}

std::vector<std::uint64_t> staged_commits(const StoreFolder& folder) {
  std::vector<std::uint64_t> commits;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder.stage(), ignored)) {
    if (entry.path().extension() != ".sst") continue;
    const std::string stem = entry.path().stem().string();
    std::uint64_t commit = 0;
    const auto parsed = std::from_chars(stem.data(), stem.data() + stem.size(), commit);
    if (parsed.ec == std::errc() && parsed.ptr == stem.data() + stem.size()) {
      commits.push_back(commit);
    }
  }
  std::ranges::sort(commits);
  return commits;
}

Result<FolderState> look_at_folder(const StoreFolder& folder) {
  std::error_code code;
  const fs::file_status status = fs::status(folder.root, code);
  if (status.type() == fs::file_type::not_found) return FolderState::absent;
  if (status.type() == fs::file_type::none) return os_error(folder.root, code.value());
  if (status.type() != fs::file_type::directory) {
    return error(StatusCode::invalid_argument, folder.root.string(), " is no folder");
  }
  fs::directory_iterator entries(folder.root, code);
  if (code) return os_error(folder.root, code.value());
  std::set<std::string> names;
  for (const auto& entry : entries) names.insert(entry.path().filename().string());
  if (names.empty()) return FolderState::empty;
  if (names.contains("FORMAT")) return FolderState::store;
  for (const std::string& name : names) {
    if (name != "LOCK" && name != "db" && name != "stage" && name != "runs" && name != "views" &&
        name != "FORMAT.new") {
      return error(StatusCode::invalid_argument, folder.root.string(),
                   " is no store: it has no FORMAT file and holds '", name, "'");
    }
  }
  if (holds_commit_files(folder.db())) {
    return error(StatusCode::corruption, folder.format().string(),
                 " is missing, yet db/ holds commits");
  }
  return FolderState::unfinished;
}

Status check_mode(const StoreFolder& folder, FolderState state, OpenMode mode) {
  if (state == FolderState::store) {
    if (mode != OpenMode::create) return {};
    return error(StatusCode::invalid_argument, folder.root.string(), " holds a store already");
  }
  if (mode != OpenMode::existing) return {};
  if (state == FolderState::unfinished) {
    return error(StatusCode::not_found, "no store in ", folder.root.string(),
                 " (its creation was interrupted)");
  }
  return error(StatusCode::not_found, "no store in ", folder.root.string(),
               state == FolderState::absent ? " (no such folder)" : " (the folder is empty)");
}

Status check_format(const StoreFolder& folder) {
  const std::string path = folder.format().string();
  std::ifstream file(path, std::ios::binary);
  if (!file) return os_error(folder.format(), errno);
  std::array<char, 256> buffer{};
  file.read(buffer.data(), buffer.size());
  const std::string text(buffer.data(), static_cast<std::size_t>(file.gcount()));
  if (text == format_text(kStoreFormatVersion)) return {};

  // The first two lines are the same in every version, so that another one is told from damage.
  std::uint32_t version = 0;
  const std::size_t end = text.find('\n');
  if (text.starts_with(kFormatWord) && end != std::string::npos) {
    std::from_chars(text.data() + kFormatWord.size(), text.data() + end, version);
  }
  if (version != 0 && text.starts_with(format_text(version))) {
    return error(StatusCode::version_mismatch, path, ": the store has format ", version,
                 ", this program reads format ", kStoreFormatVersion);
  }
  return error(StatusCode::corruption, path, ": not a store's FORMAT file, or damaged");
}

Status write_format(const StoreFolder& folder, rocksdb::Env& env) {
  const fs::path draft = folder.format_draft();
  Status status = write_file(env, draft, format_text(kStoreFormatVersion));
  if (status.ok()) status = rename_file(env, draft, folder.format());
  return status.ok() ? sync_folder(env, folder.root) : status;
}

Status make_folders(const fs::path& path, std::vector<fs::path>& made, rocksdb::Env& env) {
  std::error_code code;
  if (fs::is_directory(path, code)) return {};
  const fs::path parent = path.parent_path();
  if (!parent.empty() && parent != path) {
    if (Status status = make_folders(parent, made, env); !status.ok()) return status;
  }
  if (Status status = make_private_folder(env, path); !status.ok()) return status;
  made.push_back(path);
  return sync_folder(env, parent.empty() ? fs::path(".") : parent);
}

void remove_unfinished(const StoreFolder& folder, rocksdb::Env& env) {
  for (const fs::path& path : {folder.db(), folder.stage(), folder.views()}) remove_all(env, path);
  remove_one(env, folder.runs());  // only if empty: nothing of a user is ever deleted
  remove_one(env, folder.format_draft());
}

}  // namespace perennial::storage
