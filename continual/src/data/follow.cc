// SPDX-License-Identifier: Apache-2.0
// RowFollower over a file descriptor.
#include "perennial/continual/follow.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/json/value_from.hpp>
#include <boost/json/value_to.hpp>
#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>

#include "data/encoding.h"
#include "data/label_table.h"
#include "data/table.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

constexpr std::size_t kBlockBytes = 1 << 16;
constexpr std::size_t kLongestLine = 16 << 20;
constexpr std::chrono::milliseconds kLookAgain{50};

// Rows as they are read; of a regression they have targets, else labels.
struct RowsSoFar {
  std::int64_t count = 0;
  std::vector<double> features, targets;
  std::vector<std::int64_t> labels;

  FollowedRows finish() const {
    if (!targets.empty()) return {table_of(features), table_of(targets)};
    const at::Tensor y = at::empty({count}, at::kLong);
    std::copy(labels.begin(), labels.end(), y.mutable_data_ptr<std::int64_t>());
    return {table_of(features), y};
  }

 private:
  at::Tensor table_of(const std::vector<double>& values) const {
    const at::Tensor table =
        at::empty({count, count == 0 ? 0 : std::ssize(values) / count}, at::kDouble);
    std::copy(values.begin(), values.end(), table.mutable_data_ptr<double>());
    return table;
  }
};

}  // namespace

json::object FollowPosition::to_json() const {
  json::object object{{"bytes", bytes}, {"lines", lines},
                      {"rows", rows},   {"skipped", skipped},
                      {"named", named}, {"columns", json::value_from(columns)}};
  if (separator != ',') object["separator"] = std::string(1, separator);
  return object;
}

FollowPosition FollowPosition::from_json(const json::object& object) {
  try {
    FollowPosition position;
    position.bytes = json::value_to<std::uint64_t>(object.at("bytes"));
    position.lines = json::value_to<std::uint64_t>(object.at("lines"));
    position.rows = json::value_to<std::uint64_t>(object.at("rows"));
    position.skipped = json::value_to<std::uint64_t>(object.at("skipped"));
    position.named = json::value_to<bool>(object.at("named"));
    position.columns = json::value_to<std::vector<std::string>>(object.at("columns"));
    if (const json::value* separator = object.if_contains("separator")) {
      position.separator = json::value_to<std::string>(*separator).at(0);
    }
    return position;
  } catch (const std::exception& error) {
    throw DataError(std::string("a malformed position in a table: ") + error.what());
  }
}

struct RowFollower::Impl {
  std::filesystem::path file;
  TableParser parser;
  Decoder decoder;
  BadRowLog bad;
  LabelTable labels;
  FollowPosition position;
  int descriptor = -1;
  bool pipe = false;
  bool seen_writer = false;  // a pipe that nobody has opened yet has not ended
  bool writers_gone = false;
  bool ended = false;
  std::string buffer;     // read and not yet taken; begins at a record
  std::size_t taken = 0;  // of it

  Impl(std::filesystem::path path, const TableOptions& options, FollowPosition from,
       const std::vector<std::string>& known_labels, const std::vector<std::string>& features)
      : file(std::move(path)),
        parser(table_format(file, ""), options, true, features),
        decoder(options.encoding),
        bad(file, options.bad_rows),
        labels(known_labels),
        position(std::move(from)) {
    if (file.extension() == ".gz") fail("gzip cannot be followed; unpack it");
    if (!decoder.by_line()) {
      fail("encoding " + options.encoding +
           " cannot be followed: its lines do not end in one byte");
    }
    descriptor = ::open(file.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) fail(std::string("cannot be opened: ") + std::strerror(errno));
    try {
      begin();
    } catch (...) {
      ::close(descriptor);
      throw;
    }
  }
  ~Impl() { ::close(descriptor); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  [[noreturn]] void fail(const std::string& message) const {
    throw DataError(file.string() + ": " + message);
  }

  struct stat status() const {
    struct stat now {};
    if (::fstat(descriptor, &now) != 0)
      fail(std::string("cannot be read: ") + std::strerror(errno));
    return now;
  }

  void begin() {
    const struct stat now = status();
    pipe = S_ISFIFO(now.st_mode);
    if (!pipe && !S_ISREG(now.st_mode)) fail("is neither a file nor a pipe");
    parser.resume(position.columns, position.named, position.separator, position.lines);
    if (pipe || position.bytes == 0) return;
    check_length(now);
    char before = 0;
    if (::pread(descriptor, &before, 1, static_cast<off_t>(position.bytes - 1)) != 1 ||
        before != '\n') {
      fail("no line ends at byte " + std::to_string(position.bytes) +
           ", to which it was read before: it is another file now");
    }
  }

  void check_length(const struct stat& now) const {
    const auto known = position.bytes + buffer.size() - taken;
    if (static_cast<std::uint64_t>(now.st_size) >= known) return;
    fail("has " + std::to_string(now.st_size) + " bytes, but " + std::to_string(known) +
         " were read before: it became shorter");
  }

  // Takes what is there now into the buffer, a block at most; true if there was something.
  bool fill() {
    if (taken > kBlockBytes) {
      buffer.erase(0, taken);
      taken = 0;
    }
    if (buffer.size() - taken > kLongestLine) {
      fail("line " + std::to_string(position.lines + 1) + " has more than " +
           std::to_string(kLongestLine) + " bytes");
    }
    std::array<char, kBlockBytes> block;
    const auto at = static_cast<off_t>(position.bytes + buffer.size() - taken);
    const ssize_t got = pipe ? ::read(descriptor, block.data(), block.size())
                             : ::pread(descriptor, block.data(), block.size(), at);
    if (got < 0) {
      if (errno == EAGAIN || errno == EINTR) {
        if (errno == EAGAIN) seen_writer = true;  // it is open, and silent
        return false;
      }
      fail(std::string("cannot be read: ") + std::strerror(errno));
    }
    if (got > 0) {
      seen_writer = true;
      buffer.append(block.data(), static_cast<std::size_t>(got));
      return true;
    }
    if (pipe) {
      writers_gone = seen_writer;
    } else {
      check_length(status());
      struct stat there {};
      const struct stat mine = status();
      if (::stat(file.c_str(), &there) == 0 &&
          (there.st_ino != mine.st_ino || there.st_dev != mine.st_dev)) {
        fail("was replaced by another file after " + std::to_string(position.rows) + " rows");
      }
    }
    return false;
  }

  // The next whole record, without its newline; of a pipe that has ended also the last piece.
  std::optional<std::string_view> record() {
    while (true) {
      const std::string_view rest = std::string_view(buffer).substr(taken);
      if (const auto next = parser.next(rest, false)) return next;
      if (fill()) continue;
      if (!writers_gone) return std::nullopt;
      if (taken < buffer.size()) return parser.next(rest, true);
      ended = true;
      return std::nullopt;
    }
  }

  std::string decoded(std::string_view bytes) {
    try {
      return decoder.decode(std::string(bytes), position.lines + 1);
    } catch (const DataError& error) {
      fail(error.what());
    }
  }

  // Goes past a record.
  void pass(std::size_t length) {
    const bool newline = taken + length < buffer.size();
    taken += length + (newline ? 1 : 0);
    position.bytes += length + (newline ? 1 : 0);
    position.lines = parser.lines();
    position.columns = parser.columns().names;
    position.named = parser.columns().named;
    position.separator = parser.columns().separator;
  }

  void add_row(RowsSoFar& rows) {
    const auto append = [](std::vector<double>& to, const std::vector<double>& values) {
      to.insert(to.end(), values.begin(), values.end());
    };
    append(rows.features, parser.features());
    if (parser.columns().targets.empty()) {
      rows.labels.push_back(labels.add(parser.label()));
    } else {
      append(rows.targets, parser.targets());
    }
    ++rows.count;
    ++position.rows;
  }

  void take_rows(std::int64_t count, RowsSoFar& rows) {
    while (rows.count < count) {
      const std::optional<std::string_view> next = record();
      if (!next) return;
      if (next->find('\0') != std::string_view::npos) {
        fail("line " + std::to_string(position.lines + 1) + " is no text");
      }
      const std::size_t length = next->size();
      const std::string text = decoded(*next);
      TableParser::Outcome outcome{};
      try {
        outcome = parser.take(text);
        if (outcome == TableParser::Outcome::bad) bad.add(parser.problem());
      } catch (const DataError& error) {
        // Before this line: what is wrong can be put right, and reading goes on.
        parser.take_back();
        const std::string message = error.what();
        if (message.starts_with(file.string())) throw;
        fail(message);
      }
      if (outcome == TableParser::Outcome::row) {
        add_row(rows);
      } else if (outcome == TableParser::Outcome::bad) {
        ++position.skipped;
      }
      pass(length);
    }
  }
};

RowFollower::RowFollower(const std::filesystem::path& file, const TableOptions& options,
                         const FollowPosition& from, const std::vector<std::string>& known_labels,
                         const std::vector<std::string>& features)
    : impl_(std::make_unique<Impl>(file, options, from, known_labels, features)) {}

RowFollower::~RowFollower() = default;

FollowedRows RowFollower::read(std::int64_t count, std::chrono::milliseconds patience,
                               const std::function<bool()>& stop) {
  if (count < 1) throw Error("a read of " + std::to_string(count) + " rows");
  const auto until = std::chrono::steady_clock::now() + patience;
  RowsSoFar rows;
  while (true) {
    try {
      impl_->take_rows(count, rows);
    } catch (const DataError&) {
      // The good rows before it are handed out first; the next read meets it again.
      if (rows.count == 0) throw;
      break;
    }
    const auto now = std::chrono::steady_clock::now();
    if (rows.count == count || impl_->ended || now >= until || (stop && stop())) break;
    const auto wait =
        std::min(kLookAgain, std::chrono::ceil<std::chrono::milliseconds>(until - now));
    if (impl_->pipe && impl_->seen_writer) {
      pollfd readable{impl_->descriptor, POLLIN, 0};
      ::poll(&readable, 1, static_cast<int>(wait.count()));
    } else {
      std::this_thread::sleep_for(wait);
    }
  }
  return rows.finish();
}

bool RowFollower::ended() const { return impl_->ended; }
const FollowPosition& RowFollower::position() const { return impl_->position; }
const std::vector<std::string>& RowFollower::label_names() const { return impl_->labels.names(); }
std::vector<std::string> RowFollower::feature_names() const {
  return impl_->parser.feature_names();
}
std::vector<std::string> RowFollower::target_names() const { return impl_->parser.target_names(); }
std::string RowFollower::bad_rows() const { return impl_->bad.summary(impl_->position.rows); }

}  // namespace perennial::continual
