// SPDX-License-Identifier: Apache-2.0
// RocksDB options, file digests and statuses.
#include "rocksdb_support.h"

#include <fcntl.h>
#include <rocksdb/env.h>
#include <rocksdb/file_checksum.h>
#include <rocksdb/table.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <system_error>

#include "text.h"

namespace perennial::storage {
namespace {

class FileDigest final : public rocksdb::FileChecksumGenerator {
 public:
  void Update(const char* data, std::size_t size) override {
    hasher_.update(std::as_bytes(std::span(data, size)));
  }
  void Finalize() override { value_ = file_digest_value(hasher_.finish()); }
  std::string GetChecksum() const override { return value_; }
  const char* Name() const override { return kFileDigestName; }

 private:
  Hasher hasher_;
  std::string value_;
};

class FileDigestFactory final : public rocksdb::FileChecksumGenFactory {
 public:
  std::unique_ptr<rocksdb::FileChecksumGenerator> CreateFileChecksumGenerator(
      const rocksdb::FileChecksumGenContext& context) override {
    if (!context.requested_checksum_func_name.empty() &&
        context.requested_checksum_func_name != kFileDigestName) {
      return nullptr;
    }
    return std::make_unique<FileDigest>();
  }
  const char* Name() const override { return "perennial.FileDigestFactory"; }
};

// Whatever a message says is in a status as well, and RocksDB 7.8.3's logger stops the process,
// where that was built with assertions, at the first message after one that it could not write.
class SilentLogger final : public rocksdb::Logger {
 public:
  SilentLogger() : Logger(rocksdb::FATAL_LEVEL) {}
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

}  // namespace

std::string file_digest_value(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

rocksdb::Options make_rocksdb_options(rocksdb::Env* env) {
  rocksdb::Options options;
  options.env = env;
  options.create_if_missing = false;
  options.paranoid_checks = true;
  options.compression = rocksdb::kNoCompression;
  options.bottommost_compression = rocksdb::kNoCompression;
  options.compaction_style = rocksdb::kCompactionStyleLevel;
  options.disable_auto_compactions = true;  // files never overlap; there is nothing to merge
  options.max_open_files = 512;          // -1 would open every commit's file when the store opens
  options.max_file_opening_threads = 4;  // all are started, whatever there is to open
  options.file_checksum_gen_factory = std::make_shared<FileDigestFactory>();
  // It would take space by the megabyte for a manifest, and for a rewrite as much as all old files
  // have together.
  options.allow_fallocate = false;
  options.max_bgerror_resume_count = 0;  // after an error the handle is closed, never resumed
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.skip_stats_update_on_db_open = true;
  options.info_log = std::make_shared<SilentLogger>();
  options.db_host_id = "";  // a machine's name has no place in files that are copied around
  // The disk works while the file is still being built, so that the final fsync has little left.
  options.bytes_per_sync = std::uint64_t{4} << 20;
  options.write_buffer_size = std::size_t{64} << 10;  // nothing is ever written to it

  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;
  table.no_block_cache = true;  // the pager and the page cache are the caches
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

Status read_key(rocksdb::DB& db, const std::string& key,
                const std::function<Status(std::span<const std::byte>)>& visit) {
  rocksdb::PinnableSlice value;
  rocksdb::ReadOptions options;
  options.verify_checksums = true;
  const rocksdb::Status status = db.Get(options, db.DefaultColumnFamily(), key, &value);
  if (status.IsNotFound()) return {StatusCode::not_found, "not in the store"};
  if (!status.ok()) return from_rocksdb(status, "read failed");
  return visit(std::as_bytes(std::span(value.data(), value.size())));
}

Status check_direct_reads(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd >= 0) {
    ::close(fd);
    return {};
  }
  return error(errno == EINVAL ? StatusCode::invalid_argument : StatusCode::io_error, file.string(),
               ": direct_reads: ", std::generic_category().message(errno));
}

Status from_rocksdb(const rocksdb::Status& status, const std::string& what) {
  if (status.ok()) return {};
  const std::string text = status.ToString();
  StatusCode code = StatusCode::io_error;
  if (status.IsNoSpace() || text.find("No space left") != std::string::npos ||
      text.find("Disk quota exceeded") != std::string::npos) {
    code = StatusCode::no_space;
  } else if (status.IsNotFound()) {
    code = StatusCode::not_found;
  } else if (status.IsCorruption()) {
    code = StatusCode::corruption;
  } else if (status.IsPathNotFound()) {
    code = StatusCode::corruption;  // a file that the manifest or CURRENT names is gone
  }
  return error(code, what, ": ", text);
}

}  // namespace perennial::storage
