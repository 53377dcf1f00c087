// SPDX-License-Identifier: Apache-2.0
// Product-key retrieval: scores of a tile of tokens, the best of each side, and a best-first walk
// over the pairs of their ranks.
#include "perennial/kernels/retrieve.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <utility>
#include <vector>

#include "pair_order.h"
#include "perennial/kernels/expert_id.h"
#include "select.h"

namespace perennial::kernels {
namespace {

// Floats of scores a tile of tokens may take: half of a small second-level cache.
constexpr std::int64_t kTileFloats = 64 * 1024;
constexpr std::int64_t kMaxTileTokens = 60;  // blocks of score_panels are 6 tokens high
constexpr std::int64_t kMinTileTokens = 6;

// Pairs that are ordered by counting, which takes a compare for each two. K = 16 has 50.
constexpr std::int64_t kMostPairs = 128;

// A key, never 0, whose order is that of the sums; -0 equals 0.
std::uint64_t sum_key(double sum) {
  const auto bits = std::bit_cast<std::uint64_t>(sum + 0.0);
  return (bits >> 63) != 0 ? ~bits : bits | std::uint64_t{1} << 63;
}

// The next pair of one row rank of one segment.
struct Head {
  Pair pair;
  std::size_t segment = 0;
  std::size_t row_rank = 0;
  std::size_t col_rank = 0;
};

// What one token's scores look like and where its results go.
struct TokenHead {
  const float* row_scores = nullptr;  // of all row keys
  const float* col_scores = nullptr;
  std::int64_t* ids = nullptr;
  float* scores = nullptr;
  std::int32_t* row_index = nullptr;
};

class Merger {
 public:
  Merger(std::span<const KeySegment> segments, std::int64_t k)
      : segments_(segments), k_(k), rows_(segments.size()) {
    for (std::size_t s = 0; s < segments.size(); ++s) {
      // Segments of equal width share one selection of columns.
      const auto known = std::find(widths_.begin(), widths_.end(), segments[s].cols);
      col_side_.push_back(static_cast<std::size_t>(known - widths_.begin()));
      if (known == widths_.end()) widths_.push_back(segments[s].cols);
    }
    cols_.resize(widths_.size());
  }

  void run(const TokenHead& token) {
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      select_top(token.row_scores + segments_[s].key_begin, segments_[s].rows, k_, scratch_,
                 rows_[s]);
    }
    for (std::size_t w = 0; w < widths_.size(); ++w) {
      select_top(token.col_scores, widths_[w], k_, scratch_, cols_[w]);
    }
    if (rank(token)) return;
    fill_lowest(token, walk(token));
  }

 private:
  // The common case at one go: every pair that can win, ordered by counting. False where two sums
  // tie, K pairs are not there, or there are too many to count: then nothing is known.
  bool rank(const TokenHead& token) {
    std::int64_t n = 0;
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      const Side& rows = rows_[s];
      const Side& cols = cols_[col_side_[s]];
      for (std::size_t a = 0; a < rows.size(); ++a) {
        const std::size_t most = static_cast<std::size_t>(k_) / (a + 1);
        for (std::size_t b = 0; b < cols.size() && b < most; ++b) {
          if (n == kMostPairs) return false;
          sums_[n] = sum_key(order_value(rows.score[a]) + order_value(cols.score[b]));
          pairs_[n++] = {static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(a),
                         static_cast<std::uint32_t>(b)};
        }
      }
    }
    if (n < k_) return false;
    rank_keys(sums_, n, ranks_);
    std::int32_t winner[kMostPairs];
    std::fill_n(winner, k_, -1);
    for (std::int64_t i = 0; i < n; ++i) {
      if (ranks_[i] < static_cast<std::uint64_t>(k_)) {
        winner[ranks_[i]] = static_cast<std::int32_t>(i);
      }
    }
    // Equal sums stand at the last of their places and leave the others empty, the K-th too.
    if (std::find(winner, winner + k_, -1) != winner + k_) return false;
    for (std::int64_t slot = 0; slot < k_; ++slot) {
      const Ranks& pair = pairs_[winner[slot]];
      const Side& rows = rows_[pair.segment];
      const Side& cols = cols_[col_side_[pair.segment]];
      const std::uint32_t row = rows.index[pair.row];
      emit(token, slot, pair.segment, row,
           expert_id(segments_[pair.segment].first_row + row, cols.index[pair.col]),
           rows.score[pair.row] + cols.score[pair.col]);
    }
    return true;
  }

  // Best first: a row rank enters when the rank before it gives its best pair, so that at every
  // moment the best pair not yet taken is a head. Ranks with (a + 1)(b + 1) > K are never reached.
  std::int64_t walk(const TokenHead& token) {
    heads_.clear();
    for (std::size_t s = 0; s < segments_.size(); ++s) push(s, 0);
    std::int64_t taken = 0;
    for (; taken < k_ && !heads_.empty(); ++taken) {
      std::size_t best = 0;
      for (std::size_t i = 1; i < heads_.size(); ++i) {
        if (heads_[i].pair.before(heads_[best].pair)) best = i;
      }
      const Head head = heads_[best];
      const Side& rows = rows_[head.segment];
      const Side& cols = cols_[col_side_[head.segment]];
      emit(token, taken, head.segment, rows.index[head.row_rank], head.pair.id,
           rows.score[head.row_rank] + cols.score[head.col_rank]);
      if (head.col_rank + 1 < cols.size()) {
        heads_[best].col_rank = head.col_rank + 1;
        heads_[best].pair = pair_of(heads_[best]);
      } else {
        heads_[best] = heads_.back();
        heads_.pop_back();
      }
      if (head.col_rank == 0) push(head.segment, head.row_rank + 1);
    }
    return taken;
  }

  void push(std::size_t segment, std::size_t row_rank) {
    if (row_rank >= rows_[segment].size() || cols_[col_side_[segment]].index.empty()) return;
    Head head{{}, segment, row_rank, 0};
    head.pair = pair_of(head);
    heads_.push_back(head);
  }

  Pair pair_of(const Head& head) const {
    const Side& rows = rows_[head.segment];
    const Side& cols = cols_[col_side_[head.segment]];
    return Pair(rows.score[head.row_rank], cols.score[head.col_rank],
                expert_id(segments_[head.segment].first_row + rows.index[head.row_rank],
                          cols.index[head.col_rank]));
  }

  // The pairs with a lowest side, in id order. Fewer than K pairs are skipped on the way, since
  // fewer than K without one exist.
  void fill_lowest(const TokenHead& token, std::int64_t taken) const {
    for (std::size_t s = 0; s < segments_.size() && taken < k_; ++s) {
      const KeySegment& segment = segments_[s];
      const float* row_scores = token.row_scores + segment.key_begin;
      for (std::int64_t r = 0; r < segment.rows && taken < k_; ++r) {
        for (std::int64_t c = 0; c < segment.cols && taken < k_; ++c) {
          if (!is_lowest(row_scores[r]) && !is_lowest(token.col_scores[c])) continue;
          const auto row = static_cast<std::uint32_t>(r), col = static_cast<std::uint32_t>(c);
          emit(token, taken++, s, row, expert_id(segment.first_row + row, col),
               row_scores[r] + token.col_scores[c]);
        }
      }
    }
  }

  void emit(const TokenHead& token, std::int64_t slot, std::size_t segment, std::uint32_t row,
            std::int64_t id, float score) const {
    token.ids[slot] = id;
    token.scores[slot] = score;
    token.row_index[slot] = static_cast<std::int32_t>(segments_[segment].key_begin + row);
  }

  std::span<const KeySegment> segments_;
  std::int64_t k_;
  std::vector<std::int64_t> widths_;   // the different widths of the segments
  std::vector<std::size_t> col_side_;  // segment -> index in widths_ and cols_
  std::vector<Side> rows_;             // per segment
  std::vector<Side> cols_;             // per width
  std::vector<Head> heads_;
  SelectScratch scratch_;

  struct Ranks {
    std::uint32_t segment, row, col;
  };
  std::uint64_t sums_[kMostPairs + kKeySlack];
  std::uint64_t ranks_[kMostPairs];
  Ranks pairs_[kMostPairs];
};

}  // namespace

void retrieve(const RetrieveArgs& args, std::int64_t begin, std::int64_t end,
              std::int64_t head_begin, std::int64_t head_end) {
  const std::int64_t heads = args.heads, k = args.k, dim = args.sub_dim;
  std::int64_t rows = 0, cols = 0;
  for (const KeySegment& segment : args.segments) {
    if (segment.rows > 0) rows = std::max(rows, segment.key_begin + segment.rows);
    cols = std::max(cols, segment.cols);
  }
  if (begin >= end || rows == 0 || cols == 0) return;
  const std::int64_t row_panels = panels_of(rows), col_panels = panels_of(cols);
  const std::int64_t row_floats = row_panels * kPanelKeys, col_floats = col_panels * kPanelKeys;
  const std::int64_t fitting = kTileFloats / (row_floats + col_floats) / kMinTileTokens;
  const std::int64_t tile =
      std::min(end - begin, std::clamp(fitting * kMinTileTokens, kMinTileTokens, kMaxTileTokens));
  std::vector<float> row_scores(static_cast<std::size_t>(tile * row_floats));
  std::vector<float> col_scores(static_cast<std::size_t>(tile * col_floats));
  Merger merger(args.segments, k);
  for (std::int64_t h = head_begin; h < head_end; ++h) {  // a head's panels stay in the cache
    const float* row_keys = args.rows.panels_of(h, dim);
    const float* col_keys = args.cols.panels_of(h, dim);
    for (std::int64_t first = begin; first < end; first += tile) {
      const std::int64_t tokens = std::min(tile, end - first);
      const std::int64_t stride = heads * 2 * dim;
      const float* query = args.query + first * stride + h * 2 * dim;
      score_panels(tokens, dim, query, stride, row_keys, 0, row_panels, row_scores.data(),
                   row_floats);
      score_panels(tokens, dim, query + dim, stride, col_keys, 0, col_panels, col_scores.data(),
                   col_floats);
      for (std::int64_t t = 0; t < tokens; ++t) {
        const std::int64_t out = ((first + t) * heads + h) * k;
        merger.run({row_scores.data() + t * row_floats, col_scores.data() + t * col_floats,
                    args.ids + out, args.scores + out, args.row_index + out});
      }
    }
  }
}

}  // namespace perennial::kernels
