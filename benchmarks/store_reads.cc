// SPDX-License-Identifier: Apache-2.0
// Reads of whole pages in random order, by several threads, beside pread of a plain file.
//
// The ways to read the same committed pages, all with header and digest checked:
//   store    PageStore::read_page as it is opened by default (through the page cache)
//   direct   the same with RocksdbStoreOptions::direct_reads, where the store has it
//   Get      RocksDB's Get on the store's files, direct reads
//   locator  one pread (direct) or preadv (page cache) a page where PageLocator finds it
#include <rocksdb/db.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <random>

#include "bench_store.h"
#include "keys.h"
#include "page_codec.h"
#include "page_locator.h"
#include "rocksdb_support.h"

namespace perennial::bench {
namespace {
namespace fs = std::filesystem;
using storage::Digest;
using storage::PageId;

struct Listed {
  PageId id;
  Digest digest;
};

// One committed store of pages, and a plain file as large.
struct Pool {
  fs::path store;
  fs::path raw;
  std::size_t page_bytes = 0;
  std::vector<Listed> pages;
  std::vector<std::uint32_t> order;  // of the reads
};

// A way to read page `index` of the pool into `payload`.
using Read = std::function<void(std::size_t index, std::span<std::byte> payload)>;

double seconds_of(const Pool& pool, std::size_t threads, const Read& read) {
  std::vector<AlignedBytes> buffers;
  for (std::size_t i = 0; i < threads; ++i) buffers.push_back(aligned_bytes(pool.page_bytes));
  return run_threads(threads, pool.order.size(), [&](std::size_t thread, std::size_t i) {
    read(pool.order[i], {buffers[thread].get(), pool.page_bytes});
  });
}

// Compiles with stores that have no such option, too.
template <class Options>
bool ask_for_direct_reads(Options& options) {
  if constexpr (requires { options.direct_reads; }) {
    options.direct_reads = true;
    return true;
  }
  return false;
}

Read store_read(const storage::PageStore& store, const Pool& pool) {
  return [&store, &pool](std::size_t index, std::span<std::byte> payload) {
    must(store.read_page(pool.pages[index].id, payload));
  };
}

// RocksDB's own read path, past the page cache.
class DirectGet {
 public:
  explicit DirectGet(const Pool& pool) : pool_(pool) {
    rocksdb::Options options = storage::make_inspection_options(rocksdb::Env::Default());
    options.use_direct_reads = true;
    rocksdb::DB* db = nullptr;
    must(storage::from_rocksdb(
        rocksdb::DB::OpenForReadOnly(options, (pool.store / "db").string(), &db), "open"));
    db_.reset(db);
  }

  void read(std::size_t index, std::span<std::byte> payload) const {
    const Listed& page = pool_.pages[index];
    rocksdb::ReadOptions options;
    rocksdb::PinnableSlice value;
    must(storage::from_rocksdb(
        db_->Get(options, db_->DefaultColumnFamily(), storage::page_key(1, page.id), &value),
        "get"));
    must(storage::check_page_value(std::as_bytes(std::span(value.data(), value.size())), page.id,
                                   page_shape(pool_.page_bytes), 1, page.digest));
    std::memcpy(payload.data(), value.data() + storage::kPageHeaderBytes, payload.size());
  }

 private:
  const Pool& pool_;
  std::unique_ptr<rocksdb::DB> db_;
};

// One read a page, without RocksDB.
class LocatorRead {
 public:
  LocatorRead(const Pool& pool, const fs::path& table, Caching caching)
      : pool_(pool),
        locator_(must(storage::PageLocator::read(table))),
        file_(table, caching),
        direct_(caching == Caching::direct) {}

  void read(std::size_t index, std::span<std::byte> payload) const {
    const Listed& page = pool_.pages[index];
    const std::string key = storage::page_key(1, page.id);
    const auto at = locator_.find(key, storage::kPageHeaderBytes + payload.size());
    if (!at) fail("the locator does not find a page");
    direct_ ? read_direct(page, key, *at, payload) : read_cached(page, key, *at, payload);
  }

 private:
  void read_direct(const Listed& page, const std::string& key, const storage::LocatedValue& at,
                   std::span<std::byte> payload) const {
    const std::uint64_t start = at.offset / kSector * kSector;
    const std::size_t skip = at.offset - start;
    const std::size_t wanted = skip + at.bytes();
    const std::size_t whole = (wanted + kSector - 1) / kSector * kSector;
    thread_local AlignedBytes memory;
    thread_local std::size_t room = 0;
    if (room < whole) {
      memory = aligned_bytes(whole);
      room = whole;
    }
    file_.read(start, {memory.get(), whole}, wanted);
    const std::span<const std::byte> block(memory.get() + skip, at.bytes());
    check(page, key, at, block.first(at.head),
          block.subspan(at.head, at.value).first(storage::kPageHeaderBytes),
          block.subspan(at.head + storage::kPageHeaderBytes, payload.size()),
          block.last(storage::LocatedValue::kTail));
    std::memcpy(payload.data(), block.data() + at.head + storage::kPageHeaderBytes, payload.size());
  }

  void read_cached(const Listed& page, const std::string& key, const storage::LocatedValue& at,
                   std::span<std::byte> payload) const {
    std::array<std::byte, 192> front;
    std::array<std::byte, storage::LocatedValue::kTail> tail;
    const std::size_t head = at.head + storage::kPageHeaderBytes;
    file_.read_into(at.offset, std::span(front).first(head), payload, tail);
    check(page, key, at, std::span(front).first(at.head),
          std::span(front).subspan(at.head, storage::kPageHeaderBytes), payload, tail);
  }

  void check(const Listed& page, const std::string& key, const storage::LocatedValue& at,
             std::span<const std::byte> head, std::span<const std::byte> header,
             std::span<const std::byte> payload, std::span<const std::byte> tail) const {
    if (!storage::is_value_of(key, at, head, tail)) fail("the block holds something else");
    must(storage::check_page(header, payload, page.id, page_shape(pool_.page_bytes), 1,
                             page.digest));
  }

  const Pool& pool_;
  storage::PageLocator locator_;
  ReadFile file_;
  bool direct_;
};

Pool make_pool(const StoreRun& run, std::size_t page_bytes, std::size_t pages, std::size_t reads) {
  Pool pool;
  pool.store = run.folder / "reads";
  pool.raw = run.folder / "raw";
  pool.page_bytes = page_bytes;
  const PageSource source(page_bytes, pages);
  const auto store = open_store(pool.store);
  must(store->commit(source.first(pages)));
  for (std::size_t i = 0; i < pages; ++i) {
    pool.pages.push_back({page_id(i), must(store->page_digest(page_id(i)))});
  }
  write_file(pool.raw, source.all(), Writing::buffered);
  pool.order.resize(pages);
  std::iota(pool.order.begin(), pool.order.end(), 0u);
  std::ranges::shuffle(pool.order, std::mt19937(1));
  pool.order.resize(reads);
  return pool;
}

fs::path only_table(const Pool& pool) {
  for (const auto& entry : fs::directory_iterator(pool.store / "db")) {
    if (entry.path().extension() == ".sst") return entry.path();
  }
  fail("the store has no table file");
}

// One caching mode and one number of threads: every way to read beside pread.
class ReadRows {
 public:
  ReadRows(StoreRun& run, const Pool& pool, Caching caching)
      : run_(run),
        pool_(pool),
        caching_(caching),
        raw_(pool.raw, caching),
        locator_(pool, only_table(pool), caching) {
    ways_.push_back(
        {"locator", [this](std::size_t i, auto payload) { locator_.read(i, payload); }});
    storage::RocksdbStoreOptions options;
    if (caching == Caching::direct) {
      {
        auto get = std::make_shared<DirectGet>(pool);
        ways_.push_back({"Get", [get](std::size_t i, auto payload) { get->read(i, payload); }});
      }
      if (!ask_for_direct_reads(options)) return;
    }
    store_ = must(storage::open_rocksdb_store(pool.store, options));
    ways_.push_back({"store", store_read(*store_, pool)});
  }

  void measure(std::size_t threads) {
    Sides sides;
    const auto add = [&](const fs::path& file, const Read& read) {
      sides.push_back([this, threads, file, read] {
        if (caching_ == Caching::cold) prepare_cache(file, caching_);
        return seconds_of(pool_, threads, read);
      });
    };
    add(pool_.raw, [this](std::size_t index, std::span<std::byte> payload) {
      raw_.read(index * pool_.page_bytes, payload, payload.size());
    });
    for (const Way& way : ways_) add(pool_.store, way.read);
    prepare_cache(pool_.raw, caching_);
    prepare_cache(pool_.store, caching_);
    const auto seconds = interleave(run_.repetitions(7), sides);
    const double gigabytes =
        1e-9 * static_cast<double>(pool_.order.size()) * static_cast<double>(pool_.page_bytes);
    for (std::size_t way = 0; way < ways_.size(); ++way) {
      const std::string name = "read " + std::to_string(pool_.page_bytes >> 10) + " KB, " +
                               to_string(caching_) + ", " + std::to_string(threads) + " threads, " +
                               ways_[way].name;
      // The last way is the store's own, where it has one for this caching mode.
      const bool judged = caching_ == Caching::direct && threads >= 8 &&
                          pool_.page_bytes == kJudgedBytes && way + 1 == ways_.size();
      run_.rows.push_back(rate_row(name, "GB/s", gigabytes, seconds[way + 1], seconds[0],
                                   judged ? std::optional(0.8) : std::nullopt));
    }
  }

 private:
  static constexpr std::size_t kJudgedBytes = std::size_t{64} << 10;
  struct Way {
    const char* name;
    Read read;
  };
  StoreRun& run_;
  const Pool& pool_;
  Caching caching_;
  ReadFile raw_;
  LocatorRead locator_;
  std::unique_ptr<storage::PageStore> store_;
  std::vector<Way> ways_;
};

}  // namespace

void bench_reads(StoreRun& run) {
  for (const std::size_t kilobytes : {64u, 16u, 256u}) {
    const std::size_t page_bytes = kilobytes << 10;
    const std::size_t pages = run.size((std::size_t{512} << 20) / page_bytes, 32);
    // 128 MB a repetition; of small pages, 4,096.
    const std::size_t reads =
        std::min({pages, std::size_t{4096}, (std::size_t{128} << 20) / page_bytes});
    const Pool pool = make_pool(run, page_bytes, pages, reads);
    for (const Caching caching : {Caching::direct, Caching::cold, Caching::warm}) {
      ReadRows rows(run, pool, caching);
      for (const std::size_t threads : {1u, 4u, 8u, 16u}) {
        if (run.smoke && threads > 4) continue;
        rows.measure(threads);
      }
    }
    fs::remove_all(pool.store);
    fs::remove(pool.raw);
  }
}

}  // namespace perennial::bench
