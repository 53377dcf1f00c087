// SPDX-License-Identifier: Apache-2.0
// A view: links to the table files of one manifest, opened read-only.
#include "rocksdb_view.h"

#include <rocksdb/db.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <thread>
#include <utility>

#include "commit_files.h"
#include "env_files.h"
#include "held_files.h"
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

// How a view keeps the files it reads.
class Keeper {
 public:
  virtual ~Keeper() = default;
  // Takes the manifest as it is at this moment as the one that CURRENT names.
  virtual rocksdb::Status take_manifest(const fs::path& manifest, const std::string& content) = 0;
  virtual rocksdb::Status take_table(const fs::path& table) = 0;
  virtual void forget() = 0;
  // Where RocksDB finds what was taken.
  virtual const fs::path& folder() const = 0;
  virtual rocksdb::Env* env() const = 0;
  virtual fs::path scratch_folder() const = 0;
  virtual void pin(std::uint64_t commit) = 0;
};

// Links in a folder of views/.
class LinkKeeper final : public Keeper {
 public:
  LinkKeeper(std::unique_ptr<rocksdb::Env> env, std::unique_ptr<ViewFolder> view)
      : env_(std::move(env)), view_(std::move(view)) {}
  rocksdb::Status take_manifest(const fs::path& manifest, const std::string& content) override {
    const std::string name = manifest.filename().string();
    const auto write = [&](const std::string& text, const char* file) {
      return rocksdb::WriteStringToFile(env_.get(), text, (folder() / file).string());
    };
    const rocksdb::Status status = write(content, name.c_str());
    return status.ok() ? write(name + "\n", "CURRENT") : status;
  }
  rocksdb::Status take_table(const fs::path& table) override {
    return env_->LinkFile(table.string(), (folder() / table.filename()).string());
  }
  void forget() override { view_->clear(); }
  const fs::path& folder() const override { return view_->path(); }
  rocksdb::Env* env() const override { return env_.get(); }
  fs::path scratch_folder() const override { return view_->path(); }
  void pin(std::uint64_t commit) override { view_->pin(commit); }

 private:
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<ViewFolder> view_;
};

// Open files of db/. Whoever writes does not see such a view.
class OpenKeeper final : public Keeper {
 public:
  OpenKeeper(rocksdb::Env& env, const fs::path& db)
      : db_(db),
        files_(std::make_shared<HeldFiles>(env.GetFileSystem(), db)),
        env_(rocksdb::NewCompositeEnv(files_)) {}
  rocksdb::Status take_manifest(const fs::path& manifest, const std::string& content) override {
    const std::string name = manifest.filename().string();
    files_->hold(name, content);
    files_->hold("CURRENT", name + "\n");
    return rocksdb::Status::OK();
  }
  rocksdb::Status take_table(const fs::path& table) override {
    return files_->hold(table.filename().string());
  }
  void forget() override { files_->forget(); }
  const fs::path& folder() const override { return db_; }
  rocksdb::Env* env() const override { return env_.get(); }
  fs::path scratch_folder() const override {
    std::error_code ignored;
    return fs::temp_directory_path(ignored);
  }
  void pin(std::uint64_t) override {}

 private:
  fs::path db_;
  std::shared_ptr<HeldFiles> files_;
  std::unique_ptr<rocksdb::Env> env_;
};

class ViewBackend final : public Backend {
 public:
  ViewBackend(StoreFolder folder, std::unique_ptr<Keeper> keeper, CommitFiles files,
              std::unique_ptr<rocksdb::DB> db, bool direct)
      : folder_(std::move(folder)),
        keeper_(std::move(keeper)),
        files_(std::move(files)),
        db_(std::move(db)),
        tables_(keeper_->env()->GetFileSystem(), direct) {}

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
  void pin(std::uint64_t commit) override { keeper_->pin(commit); }
  void verify_files(std::vector<Damage>& damage,
                    const std::function<bool(std::uint64_t)>& tick) const override {
    verify_commit_files(files_, links(), *keeper_->env()->GetFileSystem(), nullptr, damage, tick);
  }
  std::string location() const override { return folder_.root.string(); }
  fs::path scratch_folder() const override { return keeper_->scratch_folder(); }
  Result<std::uint64_t> size_bytes() const override {
    std::uint64_t bytes = 0;
    for (const CommitFile& file : files_) bytes += file.size;
    return bytes;
  }

 private:
  const fs::path& links() const { return keeper_->folder(); }

  StoreFolder folder_;
  std::unique_ptr<Keeper> keeper_;  // outlives db_
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

struct Attempt {
  Status status;
  bool vanished = false;  // something was removed meanwhile: worth another attempt
  CommitFiles files;
};

// Takes what the manifest lists at this moment. It only grows, so whatever of it is there is a
// state there was; a record that is being written counts as its end.
Attempt take_files(const StoreFolder& folder, Keeper& keeper) {
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
  std::ifstream file(*manifest, std::ios::binary);
  if (!file) return failed(os_error(*manifest, errno), errno == ENOENT);
  // Through the stream, which turns a failing read into a state; its buffer's iterators throw.
  std::string content;
  std::array<char, 65536> part;
  while (file.read(part.data(), part.size()) || file.gcount() > 0) {
    content.append(part.data(), static_cast<std::size_t>(file.gcount()));
  }
  if (file.bad()) return failed(os_error(*manifest, errno != 0 ? errno : EIO), false);
  if (const auto taken = keeper.take_manifest(*manifest, content); !taken.ok()) {
    return failed(from_rocksdb(taken, keeper.folder().string()), false);
  }
  Result<CommitFiles> files = list_manifest(keeper.folder(), folder.db(), *manifest, keeper.env());
  if (!files.ok()) return failed(as_in(folder, keeper.folder(), files.status()), true);
  attempt.files = std::move(*files);
  const std::uint64_t last = last_commit_of(attempt.files);
  if (!staged.empty() && staged.back() > last + 1) {
    return failed(lost_commits(*manifest, last, folder.staged(staged.back()), staged.back()), true);
  }
  for (const CommitFile& table : attempt.files) {
    const auto taken = keeper.take_table(table.path);
    if (taken.ok()) continue;
    if (!taken.IsPathNotFound()) return failed(from_rocksdb(taken, table.path.string()), false);
    return failed(error(StatusCode::corruption, manifest->string(), ": lists ", table.path.string(),
                        ", which is missing"),
                  true);
  }
  return attempt;
}

Status check_tail(const CommitFile& table, const fs::path& links, const Keeper& keeper) {
  const std::string path = (links / table.path.filename()).string();
  std::unique_ptr<rocksdb::FSRandomAccessFile> file;
  const rocksdb::Status opened = keeper.env()->GetFileSystem()->NewRandomAccessFile(
      path, rocksdb::FileOptions(), &file, nullptr);
  if (!opened.ok()) return from_rocksdb(opened, path);
  TableBytes bytes;
  bytes.name = path;
  bytes.size = table.size;
  bytes.read = [&](std::uint64_t offset, std::span<char> into) {
    return read_exactly(*file, offset, into).ok();
  };
  return check_table_tail(bytes);
}

Result<std::unique_ptr<Backend>> open_with(const StoreFolder& folder, const ViewOptions& options,
                                           std::unique_ptr<Keeper> keeper) {
  const fs::path& links = keeper->folder();
  Attempt attempt;
  for (int i = 0; i < kListAttempts; ++i) {
    if (i > 0) {
      keeper->forget();
      std::this_thread::sleep_for(std::min(std::chrono::milliseconds(i), kLongestPause));
    }
    attempt = take_files(folder, *keeper);
    if (attempt.status.ok() || !attempt.vanished) break;
  }
  if (!attempt.status.ok()) return attempt.status;
  for (const CommitFile& file : attempt.files) {
    if (Status status = check_tail(file, links, *keeper); !status.ok()) {
      return as_in(folder, links, status);
    }
  }
  Result<std::unique_ptr<rocksdb::DB>> db = open_links(links, options, keeper->env());
  if (!db.ok()) return as_in(folder, links, db.status());
  return std::unique_ptr<Backend>(std::make_unique<ViewBackend>(
      folder, std::move(keeper), std::move(attempt.files), std::move(*db), options.direct_reads));
}

}  // namespace

Result<std::unique_ptr<Backend>> open_view(const StoreFolder& folder, const ViewOptions& options,
                                           const StoreSeam& seam) {
  const Result<FolderState> state = look_at_folder(folder);
  if (!state.ok()) return state.status();
  if (Status status = check_mode(folder, *state, OpenMode::existing); !status.ok()) return status;
  if (Status status = check_format(folder); !status.ok()) return status;
  if (options.direct_reads) {
    if (Status status = check_direct_reads(folder.format()); !status.ok()) return status;
  }
  // A view does not look for what a cut manifest lost.
  std::unique_ptr<rocksdb::Env> env = make_store_env(
      seam.env != nullptr ? *seam.env : *rocksdb::Env::Default(), ManifestEnd::as_it_is);
  auto held = std::make_unique<OpenKeeper>(*env, folder.db());
  Result<std::unique_ptr<ViewFolder>> view = ViewFolder::make(folder);
  if (!view.ok()) return view.status();
  if (*view != nullptr) {
    Result<std::unique_ptr<Backend>> linked =
        open_with(folder, options, std::make_unique<LinkKeeper>(std::move(env), std::move(*view)));
    if (linked.status().code() != StatusCode::no_space) return linked;
  }
  return open_with(folder, options, std::move(held));
}

}  // namespace perennial::storage
