// SPDX-License-Identifier: Apache-2.0
// Backend: what VersionedStore needs of a place that keeps commits: ordered keys, added one whole
// commit at a time, in files that can be rewritten with fewer keys.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "perennial/storage/page_store.h"
#include "perennial/storage/status.h"

namespace perennial::storage {

// A file of one commit or of several neighbouring ones; files never overlap.
struct BackendFile {
  std::string path;
  std::uint64_t first_commit = 0;
  std::uint64_t last_commit = 0;
  std::uint64_t bytes = 0;
};

// Thread-safety: get(), files(), file_of(), last_commit(), verify_files(), size_bytes() and
// leases() from any thread at any time; begin() to reopen() from one thread; rewrite() from one
// other. A closed database, and one being reopened, makes the readers wait or fail with the reason.
class Backend {
 public:
  using Visit = std::function<Status(std::span<const std::byte>)>;
  // True for the keys that stay. Called on the thread that rewrites.
  using Keep = std::function<bool(const std::string& key)>;

  virtual ~Backend() = default;

  // Calls `visit` with the value of a key and returns its result; not_found, corruption, io_error.
  virtual Status get(const std::string& key, const Visit& visit) const = 0;
  // The same for a value whose size the caller knows and whose bytes `visit` checks: then nothing
  // else needs to. May call `visit` a second time if it was not satisfied with what it saw.
  virtual Status get_known(const std::string& key, std::size_t /*value_bytes*/,
                           const Visit& visit) const {
    return get(key, visit);
  }
  // Calls of get_known() that were answered by one read of a file.
  virtual std::uint64_t single_reads() const { return 0; }

  // The newest commit there has ever been, 0 if there is none: its file is always there.
  virtual std::uint64_t last_commit() const = 0;
  // All files, ascending by commit.
  virtual std::vector<BackendFile> files() const = 0;
  // The file that holds what is left of a commit; empty path and 0 bytes when there is none.
  virtual BackendFile file_of(std::uint64_t commit) const = 0;

  // Starts commit last + 1. no_space before anything is written if less than `bytes` are free.
  virtual Status begin(std::uint64_t commit, std::uint64_t bytes) = 0;
  // Adds a key, larger than all before, with the value head + body.
  virtual Status put(const std::string& key, std::span<const std::byte> head,
                     std::span<const std::byte> body) = 0;
  // Makes the commit durable. When it fails, the commit is not there, unless closed() says that
  // even looking failed: then it is unknown until reopen().
  virtual Status publish() = 0;
  // Drops what begin() started; nothing if there is nothing.
  virtual void abandon() = 0;

  // True after a failure that could not be looked into, and after a failed rewrite. reopen() looks;
  // the state must then be loaded anew.
  virtual bool closed() const = 0;
  virtual Status reopen() = 0;
  virtual std::uint64_t reopens() const = 0;

  // Replaces neighbouring files, given by their exact commit ranges, by one that holds the keys
  // that `keep` keeps, or by none. Never the file of the newest commit (invalid_argument). Keys are
  // unchanged, so that reads go on. Durable when it returns; a failure leaves either state, whole.
  // no_space before anything is written if less than `bytes` are free. `bytes_per_second` 0 =
  // unlimited. Adds the bytes it wrote to `written`.
  virtual Status rewrite(const std::vector<BackendFile>& files, const Keep& keep,
                         std::uint64_t bytes, std::uint64_t bytes_per_second,
                         std::uint64_t& written) = 0;
  // The same for files of which no key stays; reads none of them.
  virtual Status remove(const std::vector<BackendFile>& files) = 0;

  // Other processes that read a view of this store.
  struct Lease {
    std::string reader;  // as messages name it: view, pid, command
    std::uint64_t commit = 0;
  };
  virtual std::vector<Lease> leases() const = 0;
  // Of a view: tells the writer which commit is read.
  virtual void pin(std::uint64_t /*commit*/) {}

  // Reads every byte of every file and adds what is broken. `tick(bytes)` is called as bytes are
  // read and may sleep; false ends.
  virtual void verify_files(std::vector<Damage>& damage,
                            const std::function<bool(std::uint64_t)>& tick) const = 0;

  virtual std::string location() const = 0;
  virtual std::filesystem::path scratch_folder() const = 0;
  virtual Result<std::uint64_t> size_bytes() const = 0;
};

}  // namespace perennial::storage
