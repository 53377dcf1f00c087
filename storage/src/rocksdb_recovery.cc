// SPDX-License-Identifier: Apache-2.0
// Inspection of a store: CURRENT, manifest, missing files, files that nothing lists.
#include "rocksdb_recovery.h"

#include <rocksdb/sst_file_reader.h>

#include <algorithm>
#include <fstream>
#include <regex>
#include <set>
#include <system_error>
#include <vector>

#include "env_files.h"
#include "keys.h"
#include "record.h"
#include "rocksdb_support.h"
#include "table_tail.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

// What a table file holds.
struct TableFile {
  std::string first_key;
  std::string last_key;
  std::uint64_t first_commit = 0;
  std::uint64_t last_commit = 0;
  // Keys of one commit, the record's the last.
  bool one_commit = false;
  Status record;  // of one commit: whether its record is intact
};

Status check_record(std::span<const std::byte> value, std::uint64_t commit) {
  return decode_record(value, commit).status();
}

enum class Checks { ends, every_block };

Result<TableFile> read_table_file(const fs::path& path, const rocksdb::Options& options,
                                  Checks checks) {
  if (Status status = check_table_tail(path); !status.ok()) return status;
  rocksdb::SstFileReader reader(options);
  if (auto status = reader.Open(path.string()); !status.ok()) {
    return from_rocksdb(status, path.string());
  }
  if (checks == Checks::every_block) {
    if (auto status = reader.VerifyChecksum(); !status.ok()) {
      return from_rocksdb(status, path.string());
    }
  }
  const std::unique_ptr<rocksdb::Iterator> keys(reader.NewIterator(rocksdb::ReadOptions()));
  TableFile file;
  keys->SeekToFirst();
  if (keys->Valid()) file.first_key = keys->key().ToString();
  keys->SeekToLast();
  if (keys->Valid()) file.last_key = keys->key().ToString();
  if (auto status = keys->status(); !status.ok()) return from_rocksdb(status, path.string());
  const auto first = commit_of_key(file.first_key);
  const auto last = commit_of_key(file.last_key);
  if (!first || !last) {
    return error(StatusCode::corruption, path.string(), ": not a file of commits");
  }
  file.first_commit = *first;
  file.last_commit = *last;
  if (first == last && file.last_key == record_key(*last)) {
    const rocksdb::Slice value = keys->value();
    const Status status = check_record(std::as_bytes(std::span(value.data(), value.size())), *last);
    if (!status.ok()) file.record = error(status.code(), path.string(), ": ", status.message());
    file.one_commit = true;
  }
  return file;
}

// The table files in db/ that the manifest does not list, ascending by name.
std::vector<fs::path> unlisted_files(const StoreFolder& folder, const CommitFiles& files) {
  std::set<fs::path> listed;
  for (const CommitFile& file : files) listed.insert(file.path.filename());
  std::vector<fs::path> unlisted;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder.db(), code)) {
    if (entry.path().extension() == ".sst" && !listed.contains(entry.path().filename())) {
      unlisted.push_back(entry.path());
    }
  }
  std::ranges::sort(unlisted);
  return unlisted;
}

// After some failed ingests RocksDB deletes a file that its manifest lists. The staged twin takes
// its place if commit, size and key range are what the manifest expects. Any other missing file is
// damage: also after the manifest lost the edit of a rewrite, whose old files are gone and whose
// new one it does not list.
Status replace_missing(const StoreFolder& folder, const rocksdb::Options& options,
                       const fs::path& manifest, const CommitFiles& files) {
  std::vector<CommitFile> missing;
  std::error_code code;
  for (const CommitFile& file : files) {
    if (!fs::exists(file.path, code)) missing.push_back(file);
  }
  if (missing.empty()) return {};
  std::string text = text_of(manifest.string(), ": lists ", missing.front().path.string());
  if (missing.size() > 1) text += text_of(" and ", missing.size() - 1, " more");
  text += missing.size() > 1 ? ", which are missing" : ", which is missing";
  if (const auto unlisted = unlisted_files(folder, files); !unlisted.empty()) {
    text += text_of("; it does not list ", unlisted.front().string());
    if (unlisted.size() > 1) text += text_of(" and ", unlisted.size() - 1, " more");
    text += unlisted.size() > 1 ? ", which are there" : ", which is there";
  }
  const Status gone(StatusCode::corruption, text);
  const std::vector<std::uint64_t> staged = staged_commits(folder);
  if (missing.size() != 1 || staged.empty()) return gone;
  const CommitFile& target = missing.front();
  const fs::path source = folder.staged(staged.back());
  const Result<TableFile> table = read_table_file(source, options, Checks::every_block);
  const bool fits = table.ok() && table->one_commit && table->record.ok() &&
                    table->last_commit == staged.back() && table->first_key == target.first_key &&
                    table->last_key == target.last_key &&
                    fs::file_size(source, code) == target.size;
  if (!fits) return gone;
  Status status = link_file(*options.env, source, target.path);
  if (status.ok()) status = sync_folder(*options.env, folder.db());
  if (!status.ok()) return error(status.code(), gone.message(), "; ", status.message());
  return {};
}

Status check_tails(const CommitFiles& files) {
  for (const CommitFile& file : files) {
    if (Status status = check_table_tail(file.path); !status.ok()) return status;
  }
  return {};
}

bool same_size(const fs::path& a, const fs::path& b) {
  std::error_code code;
  const auto size_a = fs::file_size(a, code);
  if (code) return false;
  const auto size_b = fs::file_size(b, code);
  return !code && size_a == size_b;
}

// The unlisted files in db/ that hold commit last + 1. The others must be leftovers of an
// unfinished rewrite: files that hold nothing after the last commit, or are torn.
Result<std::vector<fs::path>> unlisted_next(const StoreFolder& folder,
                                            const rocksdb::Options& options,
                                            const fs::path& manifest, const CommitFiles& files,
                                            bool staged_next) {
  const std::uint64_t last = last_commit_of(files);
  std::vector<fs::path> next;
  for (const fs::path& path : unlisted_files(folder, files)) {
    const Result<TableFile> table = read_table_file(path, options, Checks::ends);
    // Torn by a crash, unless it is what the staged commit became: that one is never torn.
    const bool torn = !table.ok() && !(staged_next && same_size(path, folder.staged(last + 1)));
    if (torn || (table.ok() && table->last_commit <= last)) continue;
    if (table.ok() && (table->last_commit > last + 1 || !table->one_commit)) {
      return lost_commits(manifest, last, path, table->last_commit);
    }
    if (const Status& status = table.ok() ? table->record : table.status(); !status.ok()) {
      return error(StatusCode::corruption,
                   "not listed by the manifest, and unreadable: ", status.message());
    }
    next.push_back(path);
  }
  return next;
}

// Commit last + 1, if a whole file of it is there. See docs/storage_format.md, "Opening".
Status find_next(const StoreFolder& folder, const rocksdb::Options& options,
                 const fs::path& manifest, Inspection& inspection) {
  const std::uint64_t last = last_commit_of(inspection.files);
  const std::vector<std::uint64_t> staged = staged_commits(folder);
  if (!staged.empty() && staged.back() > last + 1) {
    return lost_commits(manifest, last, folder.staged(staged.back()), staged.back());
  }
  const bool staged_next = !staged.empty() && staged.back() == last + 1;
  Result<std::vector<fs::path>> candidates =
      unlisted_next(folder, options, manifest, inspection.files, staged_next);
  if (!candidates.ok()) return candidates.status();
  if (staged_next) candidates->insert(candidates->begin(), folder.staged(last + 1));
  for (const fs::path& path : *candidates) {
    const Result<TableFile> table = read_table_file(path, options, Checks::every_block);
    if (table.ok() && table->one_commit && table->record.ok() && table->last_commit == last + 1) {
      inspection.next = path;
      return {};
    }
    // In db/ it may have been acknowledged and then lost by the manifest. In stage/ alone it was
    // not: an acknowledged commit's file is in db/ too.
    if (path.parent_path() == folder.db()) {
      return table.ok() ? lost_commits(manifest, last, path, table->last_commit) : table.status();
    }
  }
  return {};
}

}  // namespace

Status lost_commits(const fs::path& manifest, std::uint64_t last, const fs::path& witness,
                    std::uint64_t commit) {
  return error(StatusCode::corruption, manifest.string(), ": lists commits up to ", last, ", yet ",
               witness.string(), " holds commit ", commit);
}

Result<fs::path> current_manifest(const StoreFolder& folder) {
  const fs::path path = folder.db() / "CURRENT";
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  static const std::regex kForm("MANIFEST-[0-9]{6,}\n");
  if (!std::regex_match(text, kForm)) {
    return error(StatusCode::corruption, path.string(), ": missing or damaged");
  }
  text.pop_back();
  std::error_code ignored;
  if (!fs::exists(folder.db() / text, ignored)) {
    return error(StatusCode::corruption, path.string(), ": names ", text, ", which is not there");
  }
  return folder.db() / text;
}

Result<Inspection> inspect_store(const StoreFolder& folder, rocksdb::Env* env) {
  const Result<fs::path> manifest = current_manifest(folder);
  if (!manifest.ok()) return manifest.status();
  const rocksdb::Options options = make_rocksdb_options(env);
  const Result<CommitFiles> listed = list_manifest(folder.db(), folder.db(), *manifest, env);
  if (!listed.ok()) return listed.status();
  if (Status status = replace_missing(folder, options, *manifest, *listed); !status.ok()) {
    return status;
  }
  if (Status status = check_tails(*listed); !status.ok()) return status;

  Inspection inspection;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status opened = rocksdb::DB::OpenForReadOnly(options, folder.db().string(), &db);
  inspection.db.reset(db);
  if (!opened.ok()) return from_rocksdb(opened, manifest->string() + " or a file it lists");
  Result<CommitFiles> files = list_commit_files(*inspection.db, folder.db());
  if (!files.ok()) return files.status();
  inspection.files = std::move(*files);
  if (Status status = find_next(folder, options, *manifest, inspection); !status.ok()) {
    return status;
  }
  return inspection;
}

}  // namespace perennial::storage
