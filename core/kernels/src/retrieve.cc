// SPDX-License-Identifier: Apache-2.0
// Product-key retrieval: scores of a tile of tokens, the best of each side, and a best-first walk
// over the pairs of their ranks.
#include "perennial/kernels/retrieve.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "pair_order.h"
#include "perennial/kernels/expert_id.h"
#include "perennial/kernels/matmul.h"
#include "select.h"

namespace perennial::kernels {
namespace {

// Floats of scores a tile of tokens may take: half of a small second-level cache.
constexpr std::int64_t kTileFloats = 64 * 1024;
constexpr std::int64_t kMaxTileTokens = 64;
constexpr std::int64_t kMinTileTokens = 4;  // the rows of one matmul_nt tile

// The next pair of one row rank of one segment.
struct Head {
  Pair pair;
  std::size_t segment = 0;
  std::size_t row_rank = 0;
  std::size_t col_rank = 0;
};

// What one token's scores look like and where its results go.
struct TokenHead {
  const float* row_scores = nullptr;  // all segments' rows, one after the other
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
    const float* row_scores = token.row_scores;
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      select_top(row_scores, segments_[s].rows, k_, scratch_, rows_[s]);
      row_scores += segments_[s].rows;
    }
    for (std::size_t w = 0; w < widths_.size(); ++w) {
      select_top(token.col_scores, widths_[w], k_, scratch_, cols_[w]);
    }
    fill_lowest(token, walk(token));
  }

 private:
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
      if (head.col_rank + 1 < cols.index.size()) {
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
    if (row_rank >= rows_[segment].index.size() || cols_[col_side_[segment]].index.empty()) return;
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
    const float* row_scores = token.row_scores;
    for (std::size_t s = 0; s < segments_.size() && taken < k_; ++s) {
      const KeySegment& segment = segments_[s];
      for (std::int64_t r = 0; r < segment.rows && taken < k_; ++r) {
        for (std::int64_t c = 0; c < segment.cols && taken < k_; ++c) {
          if (!is_lowest(row_scores[r]) && !is_lowest(token.col_scores[c])) continue;
          const auto row = static_cast<std::uint32_t>(r), col = static_cast<std::uint32_t>(c);
          emit(token, taken++, s, row, expert_id(segment.first_row + row, col),
               row_scores[r] + token.col_scores[c]);
        }
      }
      row_scores += segment.rows;
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
};

}  // namespace

void retrieve(const RetrieveArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t heads = args.heads, k = args.k, dim = args.sub_dim;
  std::int64_t rows = 0, cols = 0;
  for (const KeySegment& segment : args.segments) {
    rows += segment.rows;
    cols = std::max(cols, segment.cols);
  }
  if (begin >= end || rows == 0 || cols == 0) return;
  const std::int64_t tile = std::min(
      end - begin, std::clamp(kTileFloats / (rows + cols), kMinTileTokens, kMaxTileTokens));
  std::vector<float> row_scores(static_cast<std::size_t>(tile * rows));
  std::vector<float> col_scores(static_cast<std::size_t>(tile * cols));
  Merger merger(args.segments, k);
  for (std::int64_t first = begin; first < end; first += tile) {
    const std::int64_t tokens = std::min(tile, end - first);
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* query = args.query + (first * heads + h) * 2 * dim;
      const float* row_keys = args.row_keys + h * args.row_head_stride;
      std::int64_t at = 0;
      for (const KeySegment& segment : args.segments) {
        matmul_nt(tokens, segment.rows, dim, query, heads * 2 * dim,
                  row_keys + segment.key_begin * dim, dim, nullptr, row_scores.data() + at, rows);
        at += segment.rows;
      }
      matmul_nt(tokens, cols, dim, query + dim, heads * 2 * dim,
                args.col_keys + h * args.col_head_stride, dim, nullptr, col_scores.data(), cols);
      for (std::int64_t t = 0; t < tokens; ++t) {
        const std::int64_t out = ((first + t) * heads + h) * k;
        merger.run({row_scores.data() + t * rows, col_scores.data() + t * cols, args.ids + out,
                    args.scores + out, args.row_index + out});
      }
    }
  }
}

}  // namespace perennial::kernels
