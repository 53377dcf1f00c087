// SPDX-License-Identifier: Apache-2.0
// A view: links to the table files of one manifest, opened read-only.
#include "rocksdb_view.h"

#include <rocksdb/db.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <thread>
#include <utility>

#include "commit_files.h"
#include "env_files.h"
#include "keys.h"
#include "os_error.h"
#include "rocksdb_recovery.h"
#include "rocksdb_support.h"
#include "store_file_system.h"
#include "store_views.h"
#include "table_reads.h"
#include "table_tail.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

// A rewrite in the writer removes files between the reading of the manifest and the linking. That
// takes milliseconds and a rewrite at least as long, so few attempts meet one.
constexpr int kListAttempts = 60;
constexpr std::chrono::milliseconds kLongestPause{20};

// Messages name the file in db/, of which the view's is a link.
Status as_in(const StoreFolder& folder, const fs::path& links, const Status& status) {
  std::string text = status.message();
  const std::string from = links.string();
  const std::string to = folder.db().string();
  if (from != to) {
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
      text.replace(at, from.size(), to);
    }
  }
  return status.ok() ? Status() : Status(status.code(), text);
}

Status read_only_error() { return {StatusCode::invalid_argument, "a view is read-only"}; }

class ViewBackend final : public Backend {
 public:
  ViewBackend(StoreFolder folder, std::unique_ptr<rocksdb::Env> env,
              std::unique_ptr<ViewFolder> view, CommitFiles files, std::unique_ptr<rocksdb::DB> db,
              bool direct)
      : folder_(std::move(folder)),
        env_(std::move(env)),
        view_(std::move(view)),
        files_(std::move(files)),
        db_(std::move(db)),
        tables_(env_->GetFileSystem(), direct) {}

  Status get(const std::string& key, const Visit& visit) const override {
    return as_in(folder_, links(), read_key(*db_, key, visit));
  }
  Status get_known(const std::string& key, std::size_t value_bytes,
                   const Visit& visit) const override {
    const CommitFile* file = find_file(files_, commit_of_key(key).value_or(0));
    if (file != nullptr &&
        tables_.read(0, links() / file->path.filename(), key, value_bytes, visit)) {
      return {};
    }
    return get(key, visit);
  }
  std::uint64_t single_reads() const override { return tables_.answered(); }
  std::uint64_t last_commit() const override { return last_commit_of(files_); }
  std::vector<BackendFile> files() const override { return backend_files(files_); }
  BackendFile file_of(std::uint64_t commit) const override {
    return file_of_commit(files_, commit);
  }
  Status begin(std::uint64_t, std::uint64_t) override { return read_only_error(); }
  Status put(const std::string&, std::span<const std::byte>, std::span<const std::byte>) override {
    return read_only_error();
  }
  Status publish() override { return read_only_error(); }
  void abandon() override {}
  bool closed() const override { return false; }
  Status reopen() override { return {}; }
  std::uint64_t reopens() const override { return 0; }
  Status rewrite(const std::vector<BackendFile>&, const Keep&, std::uint64_t, std::uint64_t,
                 std::uint64_t&) override {
    return read_only_error();
  }
  Status remove(const std::vector<BackendFile>&) override { return read_only_error(); }
  std::vector<Lease> leases() const override { return {}; }
  void pin(std::uint64_t commit) override {
    if (view_ != nullptr) view_->pin(commit);
  }
  void verify_files(std::vector<Damage>& damage,
                    const std::function<bool(std::uint64_t)>& tick) const override {
    verify_commit_files(files_, links(), nullptr, damage, tick);
  }
  std::string location() const override { return folder_.root.string(); }
  fs::path scratch_folder() const override {
    std::error_code ignored;
    return view_ != nullptr ? view_->path() : fs::temp_directory_path(ignored);
  }
  Result<std::uint64_t> size_bytes() const override {
    std::uint64_t bytes = 0;
    for (const CommitFile& file : files_) bytes += file.size;
    return bytes;
  }

 private:
  fs::path links() const { return view_ != nullptr ? view_->path() : folder_.db(); }

  StoreFolder folder_;
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<ViewFolder> view_;  // outlives db_; null: reads db/ itself
  CommitFiles files_;
  std::unique_ptr<rocksdb::DB> db_;
  TableReads tables_;
};

Result<std::unique_ptr<rocksdb::DB>> open_links(const fs::path& links, const ViewOptions& options,
                                                rocksdb::Env* env) {
  rocksdb::Options rocksdb_options = make_rocksdb_options(env);
  rocksdb_options.use_direct_reads = options.direct_reads;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(rocksdb_options, links.string(), &db);
  if (!status.ok()) return from_rocksdb(status, links.string());
  return std::unique_ptr<rocksdb::DB>(db);
}

// The manifest only grows, so whatever of it is there is a state there was; a record that is being
// written counts as its end.
Status copy_manifest(const fs::path& manifest, const fs::path& links) {
  std::ifstream from(manifest, std::ios::binary);
  if (!from) return os_error(manifest, errno);
  std::ofstream to(links / manifest.filename(), std::ios::binary);
  std::vector<char> buffer(std::size_t{1} << 16);
  while (from.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), from.gcount() > 0) {
    to.write(buffer.data(), from.gcount());
  }
  to.close();
  std::ofstream current(links / "CURRENT", std::ios::binary);
  current << manifest.filename().string() << "\n";
  current.close();
  if (from.bad() || !to || !current) return os_error(links, errno != 0 ? errno : EIO);
  return {};
}

struct Attempt {
  Status status;
  bool vanished = false;  // something was removed meanwhile: worth another attempt
  CommitFiles files;
};

// Links what the manifest lists at this moment.
Attempt link_files(const StoreFolder& folder, const fs::path& links, rocksdb::Env* env) {
  Attempt attempt;
  const auto failed = [&](Status status, bool vanished) {
    attempt.status = std::move(status);
    attempt.vanished = vanished;
    return attempt;
  };
  // Read before the manifest: a staged commit means that the one before it was acknowledged.
  const std::vector<std::uint64_t> staged = staged_commits(folder);
  const Result<fs::path> manifest = current_manifest(folder);
  if (!manifest.ok()) return failed(manifest.status(), true);
  if (Status status = copy_manifest(*manifest, links); !status.ok()) {
    std::error_code code;
    const bool vanished = !fs::exists(*manifest, code);
    return failed(std::move(status), vanished);
  }
  Result<CommitFiles> files = list_manifest(links, folder.db(), *manifest, env);
  if (!files.ok()) return failed(as_in(folder, links, files.status()), true);
  attempt.files = std::move(*files);
  const std::uint64_t last = last_commit_of(attempt.files);
  if (!staged.empty() && staged.back() > last + 1) {
    return failed(lost_commits(*manifest, last, folder.staged(staged.back()), staged.back()), true);
  }
  for (const CommitFile& file : attempt.files) {
    const fs::path link = links / file.path.filename();
    if (::link(file.path.c_str(), link.c_str()) == 0) continue;
    const int number = errno;
    if (number != ENOENT) return failed(os_error(file.path, number), false);
    return failed(error(StatusCode::corruption, manifest->string(), ": lists ", file.path.string(),
                        ", which is missing"),
                  true);
  }
  return attempt;
}

// Reads db/ itself: nothing may be written there, so nothing vanishes.
Result<std::unique_ptr<Backend>> open_in_place(const StoreFolder& folder,
                                               const ViewOptions& options,
                                               std::unique_ptr<rocksdb::Env> env) {
  if (const std::string holder = lock_holder(folder.lock()); !holder.empty()) {
    return error(StatusCode::busy, folder.lock().string(), ": held by ", holder,
                 "; reading beside it needs permission to write to ", folder.views().string());
  }
  Result<Inspection> inspection = inspect_store(folder, env.get());
  if (!inspection.ok()) return inspection.status();
  Result<std::unique_ptr<rocksdb::DB>> db = open_links(folder.db(), options, env.get());
  if (!db.ok()) return db.status();
  return std::unique_ptr<Backend>(
      std::make_unique<ViewBackend>(folder, std::move(env), nullptr, std::move(inspection->files),
                                    std::move(*db), options.direct_reads));
}

}  // namespace

Result<std::unique_ptr<Backend>> open_view(const StoreFolder& folder, const ViewOptions& options,
                                           const StoreSeam& seam) {
  // A view does not look for what a cut manifest lost.
  std::unique_ptr<rocksdb::Env> env = make_store_env(
      seam.env != nullptr ? *seam.env : *rocksdb::Env::Default(), ManifestEnd::as_it_is);
  const Result<FolderState> state = look_at_folder(folder);
  if (!state.ok()) return state.status();
  if (Status status = check_mode(folder, *state, OpenMode::existing); !status.ok()) return status;
  if (Status status = check_format(folder); !status.ok()) return status;
  if (options.direct_reads) {
    if (Status status = check_direct_reads(folder.format()); !status.ok()) return status;
  }
  Result<std::unique_ptr<ViewFolder>> view = ViewFolder::make(folder);
  if (!view.ok()) return view.status();
  if (*view == nullptr) return open_in_place(folder, options, std::move(env));
  const fs::path links = (*view)->path();

  Attempt attempt;
  for (int i = 0; i < kListAttempts; ++i) {
    if (i > 0) {
      (*view)->clear();
      std::this_thread::sleep_for(std::min(std::chrono::milliseconds(i), kLongestPause));
    }
    attempt = link_files(folder, links, env.get());
    if (attempt.status.ok() || !attempt.vanished) break;
  }
  if (!attempt.status.ok()) return attempt.status;
  for (const CommitFile& file : attempt.files) {
    if (Status status = check_table_tail(links / file.path.filename()); !status.ok()) {
      return as_in(folder, links, status);
    }
  }
  Result<std::unique_ptr<rocksdb::DB>> db = open_links(links, options, env.get());
  if (!db.ok()) return as_in(folder, links, db.status());
  return std::unique_ptr<Backend>(std::make_unique<ViewBackend>(
      folder, std::move(env), std::move(*view), std::move(attempt.files), std::move(*db),
      options.direct_reads));
}

}  // namespace perennial::storage
