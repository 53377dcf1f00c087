// SPDX-License-Identifier: Apache-2.0
// Verifying: reads every byte of every commit and goes on after damage.
#include <chrono>
#include <thread>

#include "keys.h"
#include "live_set.h"
#include "page_codec.h"
#include "state_reader.h"
#include "text.h"

namespace perennial::storage {
namespace {

// Slows reading down to a rate and passes progress on.
class Pace {
 public:
  Pace(const VerifyOptions& options, std::uint64_t total) : options_(options), total_(total) {}

  // False once the caller wants to end.
  bool tick(std::uint64_t bytes) {
    done_ += bytes;
    if (options_.bytes_per_second > 0) {
      const double due =
          static_cast<double>(done_) / static_cast<double>(options_.bytes_per_second);
      std::this_thread::sleep_until(
          start_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(due)));
    }
    constexpr std::uint64_t kReportEvery = std::uint64_t{4} << 20;
    if (going_ && options_.on_progress && done_ - reported_ >= kReportEvery) {
      reported_ = done_;
      going_ = options_.on_progress(done_, std::max(total_, done_));
    }
    return going_;
  }

 private:
  using Clock = std::chrono::steady_clock;
  const VerifyOptions& options_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  std::uint64_t reported_ = 0;
  bool going_ = true;
  Clock::time_point start_ = Clock::now();
};

void verify_live(const Backend& backend, const LiveSet& live, VerifyReport& report,
                 const std::function<bool(std::uint64_t)>& tick) {
  Bytes payload;
  for (const auto& [number, keys] : live.commits()) {
    const std::uint64_t commit = number;
    const std::string file = backend.file_of(commit).path;
    const auto damaged = [&](const std::string& what, const Status& status,
                             std::optional<PageId> page) {
      report.damage.push_back(
          {file, text_of(what, " of commit ", commit, ": ", status.message()), page, commit});
    };
    for (const LiveSet::Page& page : keys.pages) {
      Status status;
      if (page.base_only) {
        status = backend.get(page_key(commit, page.id), [&](std::span<const std::byte> value) {
          Digest digest;
          return check_page_value(value, page.id, page.entry, digest).status();
        });
      } else {
        payload.resize(page.entry.shape.payload_bytes());
        status = read_page_version(backend, page.id, page.entry, payload);
      }
      ++report.pages;
      report.bytes += kPageHeaderBytes + stored_bytes(page.entry);
      if (!status.ok()) damaged(to_string(page.id), status, page.id);
      if (!tick(kPageHeaderBytes + stored_bytes(page.entry))) return;
    }
    for (const LiveSet::Chunk& chunk : keys.chunks) {
      const Status status =
          backend.get(chunk_key(commit, chunk.digest), [&](std::span<const std::byte> value) {
            return check_chunk(value, chunk.bytes, chunk.digest);
          });
      ++report.chunks;
      report.bytes += chunk.bytes;
      if (!status.ok()) {
        damaged(text_of("dense entry '", chunk.entry, "' chunk ", chunk.index), status, {});
      }
      if (!tick(chunk.bytes)) return;
    }
    report.records += keys.record_bytes != 0;
    report.bytes += keys.record_bytes;
  }
}

}  // namespace

Result<VerifyReport> verify_history(const Backend& backend, const State& newest,
                                    const VerifyOptions& options) {
  std::uint64_t total = 0;
  for (const BackendFile& file : backend.files()) total += 2 * file.bytes;
  Pace pace(options, total);
  VerifyReport report;
  const auto tick = [&](std::uint64_t bytes) { return report.finished = pace.tick(bytes); };
  backend.verify_files(report.damage, tick);
  if (!report.finished) return report;
  const Result<LiveSet> live =
      LiveSet::collect(backend, newest, {}, [&](std::uint64_t commit, const Status& status) {
        report.damage.push_back({backend.file_of(commit).path,
                                 text_of("record of commit ", commit, ": ", status.message()),
                                 {},
                                 commit});
      });
  if (!live.ok()) return live.status();
  verify_live(backend, *live, report, tick);
  return report;
}

}  // namespace perennial::storage
