// SPDX-License-Identifier: Apache-2.0
// Inspection of a store: CURRENT, manifest, missing files, files that nothing lists.
#include "rocksdb_recovery.h"

#include <rocksdb/sst_file_reader.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <regex>
#include <set>
#include <system_error>
#include <vector>

#include "keys.h"
#include "record.h"
#include "rocksdb_support.h"
#include "table_tail.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

// The file name in CURRENT. A flipped digit must not lead to another manifest unseen, so the name
// has to have the one form that RocksDB writes.
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

// First and last key of a table file; the record, checked, where it has one.
struct TableFile {
  std::uint64_t commit = 0;
  std::string first_key;
  std::string last_key;
};

Result<TableFile> read_table_file(const fs::path& path, const rocksdb::Options& options,
                                  bool check_all) {
  if (Status status = check_table_tail(path); !status.ok()) return status;
  rocksdb::SstFileReader reader(options);
  if (auto status = reader.Open(path.string()); !status.ok()) {
    return from_rocksdb(status, path.string());
  }
  if (check_all) {
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
  if (!first || commit_of_key(file.last_key) != first || file.last_key != record_key(*first)) {
    return error(StatusCode::corruption, path.string(), ": not the file of one whole commit");
  }
  file.commit = *first;
  const rocksdb::Slice value = keys->value();
  if (Result<Record> record =
          decode_record(std::as_bytes(std::span(value.data(), value.size())), file.commit);
      !record.ok()) {
    return error(record.status().code(), path.string(), ": ", record.status().message());
  }
  return file;
}

Result<std::unique_ptr<rocksdb::DB>> open_read_only(const StoreFolder& folder,
                                                    const rocksdb::Options& options,
                                                    const fs::path& manifest) {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, folder.db().string(), &db);
  if (!status.ok()) return from_rocksdb(status, manifest.string() + " or a file it lists");
  return std::unique_ptr<rocksdb::DB>(db);
}

Status check_table_tails(const StoreFolder& folder) {
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder.db(), code)) {
    if (entry.path().extension() != ".sst") continue;
    if (Status status = check_table_tail(entry.path()); !status.ok()) return status;
  }
  if (code) return error(StatusCode::io_error, folder.db().string(), ": ", code.message());
  return {};
}

// The table files that an error message names and that are not there.
std::set<fs::path> missing_files(const StoreFolder& folder, const std::string& message) {
  std::set<fs::path> missing;
  if (message.find("No such file") == std::string::npos) return missing;
  static const std::regex kName("([0-9]{6,})\\.(sst|ldb)");
  for (std::sregex_iterator match(message.begin(), message.end(), kName), end; match != end;
       ++match) {
    // RocksDB names the last spelling it tried, which is LevelDB's.
    const fs::path path = folder.db() / (match->str(1) + ".sst");
    std::error_code ignored;
    if (!fs::exists(path, ignored)) missing.insert(path);
  }
  return missing;
}

// After some failed ingests RocksDB deletes a file that its manifest lists. The staged twin takes
// its place if commit, size and key range are what the manifest expects.
Result<std::unique_ptr<rocksdb::DB>> relink_missing(const StoreFolder& folder,
                                                    const rocksdb::Options& options,
                                                    const fs::path& manifest,
                                                    const Status& failure) {
  const std::set<fs::path> missing = missing_files(folder, failure.message());
  if (missing.empty()) return failure;
  const fs::path& target = *missing.begin();
  const Status gone = error(StatusCode::corruption, manifest.string(), ": lists ", target.string(),
                            ", which is missing");
  const std::vector<std::uint64_t> staged = staged_commits(folder);
  if (missing.size() != 1 || staged.empty()) return gone;
  const fs::path source = folder.staged(staged.back());
  const Result<TableFile> table = read_table_file(source, options, true);
  if (!table.ok() || table->commit != staged.back()) return gone;
  if (::link(source.c_str(), target.c_str()) != 0) {
    return error(StatusCode::io_error, gone.message(), "; linking ", source.string(),
                 " in its place: ", std::generic_category().message(errno));
  }
  Result<std::unique_ptr<rocksdb::DB>> db = open_read_only(folder, options, manifest);
  bool fits = db.ok();
  if (fits) {
    std::vector<rocksdb::LiveFileMetaData> files;
    (*db)->GetLiveFilesMetaData(&files);
    const auto file = std::ranges::find(files, target.filename().string(),
                                        &rocksdb::LiveFileMetaData::relative_filename);
    std::error_code code;
    fits = file != files.end() && file->size == fs::file_size(source, code) && !code &&
           file->smallestkey == table->first_key && file->largestkey == table->last_key;
  }
  if (!fits) {
    ::unlink(target.c_str());
    return gone;
  }
  if (Status status = sync_folder(folder.db()); !status.ok()) return status;
  return db;
}

// Files in db/ that the manifest does not list, with the commit each one holds.
Result<std::multimap<std::uint64_t, fs::path>> unlisted_files(const StoreFolder& folder,
                                                              const rocksdb::Options& options,
                                                              const CommitFiles& files) {
  std::set<fs::path> listed;
  for (const auto& [commit, file] : files) listed.insert(file.path.filename());
  std::multimap<std::uint64_t, fs::path> unlisted;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder.db(), code)) {
    if (entry.path().extension() != ".sst" || listed.contains(entry.path().filename())) continue;
    const Result<TableFile> table = read_table_file(entry.path(), options, false);
    if (!table.ok()) {
      return error(StatusCode::corruption,
                   "not listed by the manifest, and unreadable: ", table.status().message());
    }
    unlisted.emplace(table->commit, entry.path());
  }
  return unlisted;
}

Status lost_commits(const fs::path& manifest, std::uint64_t last, const fs::path& witness,
                    std::uint64_t commit) {
  return error(StatusCode::corruption, manifest.string(), ": lists commits up to ", last, ", yet ",
               witness.string(), " holds commit ", commit);
}

// Commit last + 1, if a whole file of it is there. See docs/storage_format.md, "Opening".
Status find_next(const StoreFolder& folder, const rocksdb::Options& options,
                 const fs::path& manifest, Inspection& inspection) {
  const std::uint64_t last = inspection.last;
  const auto unlisted = unlisted_files(folder, options, inspection.files);
  if (!unlisted.ok()) return unlisted.status();
  if (!unlisted->empty() && unlisted->rbegin()->first > last + 1) {
    return lost_commits(manifest, last, unlisted->rbegin()->second, unlisted->rbegin()->first);
  }
  const std::vector<std::uint64_t> staged = staged_commits(folder);
  if (!staged.empty() && staged.back() > last + 1) {
    return lost_commits(manifest, last, folder.staged(staged.back()), staged.back());
  }
  std::vector<fs::path> candidates;
  if (!staged.empty() && staged.back() == last + 1) candidates.push_back(folder.staged(last + 1));
  const auto [begin, end] = unlisted->equal_range(last + 1);
  for (auto it = begin; it != end; ++it) candidates.push_back(it->second);
  for (const fs::path& path : candidates) {
    const Result<TableFile> table = read_table_file(path, options, true);
    if (table.ok() && table->commit == last + 1) {
      inspection.next = path;
      return {};
    }
    // In db/ it may have been acknowledged and then lost by the manifest. In stage/ alone it was
    // not: an acknowledged commit's file is in db/ too.
    if (path.parent_path() == folder.db()) {
      return table.ok() ? lost_commits(manifest, last, path, table->commit) : table.status();
    }
  }
  return {};
}

}  // namespace

Result<CommitFiles> list_commit_files(rocksdb::DB& db, const StoreFolder& folder) {
  std::vector<rocksdb::LiveFileMetaData> live;
  db.GetLiveFilesMetaData(&live);
  CommitFiles files;
  for (const rocksdb::LiveFileMetaData& file : live) {
    const fs::path path = folder.db() / file.relative_filename;
    const auto commit = commit_of_key(file.smallestkey);
    if (!commit || *commit == 0 || file.largestkey != record_key(*commit) ||
        !files
             .emplace(*commit,
                      CommitFile{path, file.size, file.file_checksum_func_name, file.file_checksum})
             .second) {
      return error(StatusCode::corruption, path.string(), ": not the one file of a commit");
    }
  }
  if (!files.empty() && files.rbegin()->first != files.size()) {
    return error(StatusCode::corruption, folder.db().string(), ": the manifest lists ",
                 files.size(), " commits, the last one is ", files.rbegin()->first);
  }
  return files;
}

Result<Inspection> inspect_store(const StoreFolder& folder, rocksdb::Env* env) {
  const Result<fs::path> manifest = current_manifest(folder);
  if (!manifest.ok()) return manifest.status();
  if (Status status = check_table_tails(folder); !status.ok()) return status;
  const rocksdb::Options options = make_inspection_options(env);
  Result<std::unique_ptr<rocksdb::DB>> db = open_read_only(folder, options, *manifest);
  if (!db.ok()) db = relink_missing(folder, options, *manifest, db.status());
  if (!db.ok()) return db.status();
  Inspection inspection;
  inspection.db = std::move(*db);
  Result<CommitFiles> files = list_commit_files(*inspection.db, folder);
  if (!files.ok()) return files.status();
  inspection.files = std::move(*files);
  inspection.last = inspection.files.size();
  if (Status status = find_next(folder, options, *manifest, inspection); !status.ok()) {
    return status;
  }
  return inspection;
}

}  // namespace perennial::storage
