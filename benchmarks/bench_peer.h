// SPDX-License-Identifier: Apache-2.0
// What the parts of bench_peer share: the run, sizes, inputs, the machine's ceilings.
//
// Symbols: B tokens, H heads, K top-k, S = H K slots, d width of a token, N experts, D = d_key / 2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench_store.h"

namespace perennial::bench {

class OurSide;
class EagerSide;

struct PeerSizes {
  std::int64_t side = 1024;  // rows and columns: N = side^2
  std::int64_t width = 256;
  std::int64_t heads = 8;
  std::int64_t top_k = 16;
  std::int64_t d_key = 128;

  std::int64_t experts() const { return side * side; }
  std::int64_t slots() const { return heads * top_k; }
  double expert_bytes() const { return static_cast<double>(2 * width) * sizeof(float); }
  double table_bytes() const { return static_cast<double>(experts()) * expert_bytes(); }
};

class PeerRun {
 public:
  PeerRun(bool smoke, int threads, bool cpu_clock, std::string peers);
  ~PeerRun();

  const bool smoke;
  const int threads;        // of both sides
  const bool cpu_clock;     // time is the process's own; with one thread only
  const std::string peers;  // file of the Python packages' figures, or empty
  std::vector<Row> rows;
  std::vector<std::string> notes;  // what was left out, and why; printed after the table

  std::size_t repetitions(std::size_t usual) const { return smoke ? 1 : usual; }
  std::int64_t tokens(std::int64_t usual) const { return smoke && usual > 8 ? usual / 64 : usual; }
  PeerSizes sizes(std::int64_t side, std::int64_t width) const;

  // The layers of N = 1M and d = 256, made when first asked for.
  OurSide& ours();
  EagerSide& eager();  // with ours' weights, as they are then
  void drop_sides();

  // Both sides' tables, and their moments when they train, must fit beside what else runs here.
  // False, with a note of the bytes, when they do not.
  bool fits(const std::string& what, double bytes);
  // Random rows read by 2 threads over those read by 1; measured when first asked for.
  double bandwidth_scaling();

 private:
  std::optional<double> bandwidth_scaling_;
  std::unique_ptr<OurSide> ours_;
  std::unique_ptr<EagerSide> eager_;
};

// Each side's seconds a call, interleaved, after a warm-up; short calls are repeated.
std::vector<std::vector<double>> time_sides(const PeerRun& run, std::size_t repetitions,
                                            const std::vector<std::function<void()>>& sides);
// Memory beyond what was resident before that the call took at its highest, in bytes.
double transient_bytes(const std::function<void()>& call);

// A ratio that is already one: value beside what it is a share of.
Row share_row(std::string name, std::string unit, const std::vector<double>& values,
              const std::vector<double>& whole, std::optional<double> target = {});

// "1 token", "1,024 tokens".
std::string count_of(std::int64_t count, const std::string& what);

// Sets ATen's threads while it lives.
class ThreadsScope {
 public:
  explicit ThreadsScope(int threads);
  ~ThreadsScope();
  ThreadsScope(const ThreadsScope&) = delete;
  ThreadsScope& operator=(const ThreadsScope&) = delete;

 private:
  int before_;
};

// Batches that are given out in turn: their experts together are more than any cache holds, so that
// no call finds those of the call before there.
class Batches {
 public:
  // Uniform: unit normals, every token new. Zipf: tokens are drawn from a vocabulary of 32,768 with
  // weights rank^-1.1, so that tokens repeat and with them their experts.
  enum class Usage { uniform, zipf };
  Batches(const PeerRun& run, const PeerSizes& sizes, std::int64_t tokens,
          Usage usage = Usage::uniform);

  const std::vector<at::Tensor>& all() const { return batches_; }  // (B, d) each
  double tokens() const { return static_cast<double>(batches_.front().size(0)); }
  // Each caller has its own turn.
  std::function<const at::Tensor&()> turn() const;

 private:
  std::vector<at::Tensor> batches_;
};

// Rows of 2 KiB in huge-page memory, to see what the machine gives at best.
class RowMemory {
 public:
  explicit RowMemory(std::size_t rows);
  std::size_t rows() const { return rows_; }
  // Reads, or reads and writes, these rows with ATen's threads; bytes moved.
  double read(std::span<const std::uint32_t> order);
  double read_in_order(std::span<const std::uint32_t> order);  // best for rows side by side
  double update(std::span<const std::uint32_t> order);
  static constexpr std::size_t kRowBytes = 2048;

 private:
  template <std::size_t kGroup>
  double read_groups(std::span<const std::uint32_t> order);

  std::size_t rows_;
  AlignedBytes memory_;
  std::uint64_t seen_ = 0;
};
// All rows, in order or not.
std::vector<std::uint32_t> row_order(std::size_t rows, bool shuffled);

void bench_ceilings(PeerRun& run);  // bench_peer_ceilings.cc
void bench_experts(PeerRun& run);   // bench_peer_experts.cc: expert part, retrieval, scaling
void bench_forward(PeerRun& run);   // bench_peer_forward.cc: the judged forward rows
void bench_training(PeerRun& run);  // bench_peer_training.cc: the judged training rows
void bench_parts(PeerRun& run);     // bench_peer_parts.cc: where the time goes
void bench_dense(PeerRun& run);     // bench_peer_dense.cc: beside dense layers
void bench_axes(PeerRun& run);      // bench_peer_axes.cc: N, tokens, width, usage
void bench_paged(PeerRun& run);     // bench_peer_paged.cc: 16 million experts in a pool that pages
void bench_packages(PeerRun& run);  // bench_peer_packages.cc: beside the Python packages

}  // namespace perennial::bench
