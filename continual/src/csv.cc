// SPDX-License-Identifier: Apache-2.0
// Comma-separated numbers.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

#include "byte_source.h"
#include "readers.h"

namespace perennial::continual {
namespace {

constexpr std::size_t kShownCellBytes = 24;

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// A cell's number; empty when it is none or not finite in 32 bits.
std::optional<float> number(std::string_view cell) {
  cell = trim(cell);
  if (cell.size() >= 2 && cell.front() == '"' && cell.back() == '"') {
    cell = trim(cell.substr(1, cell.size() - 2));
  }
  if (!cell.empty() && cell.front() == '+') cell.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc{} || end != cell.data() + cell.size()) return std::nullopt;
  const float narrow = static_cast<float>(value);
  return std::isfinite(narrow) ? std::optional(narrow) : std::nullopt;
}

std::string shown(std::string_view cell) {
  std::string text;
  for (const char c : trim(cell).substr(0, kShownCellBytes)) {
    text += c >= ' ' && c <= '~' ? c : '?';
  }
  if (trim(cell).size() > kShownCellBytes) text += "...";
  return "'" + text + "'";
}

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> cells;
  while (true) {
    const std::size_t comma = line.find(',');
    cells.push_back(line.substr(0, comma));
    if (comma == std::string_view::npos) return cells;
    line.remove_prefix(comma + 1);
  }
}

}  // namespace

at::Tensor read_csv(const std::filesystem::path& file) {
  ByteSource source(file);
  const std::string content = source.rest();
  if (content.find('\0') != std::string::npos) {
    source.fail("neither IDX, NPY nor text: rows of comma-separated numbers were expected");
  }
  std::string_view text = content;
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());

  std::vector<float> values;
  std::size_t width = 0, rows = 0, line_number = 0, width_line = 0;
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    const std::string_view line = trim(text.substr(0, newline));
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    ++line_number;
    if (line.empty()) continue;
    const std::vector<std::string_view> cells = split(line);
    const std::string at = "line " + std::to_string(line_number);
    if (width == 0) {
      width = cells.size();
      width_line = line_number;
      const auto is_number = [](std::string_view cell) { return number(cell).has_value(); };
      if (std::none_of(cells.begin(), cells.end(), is_number)) continue;  // the header
    } else if (cells.size() != width) {
      source.fail(at + " has " + std::to_string(cells.size()) + " cells, line " +
                  std::to_string(width_line) + " has " + std::to_string(width));
    }
    for (std::size_t column = 0; column < width; ++column) {
      const std::optional<float> value = number(cells[column]);
      if (!value) {
        source.fail(at + ", column " + std::to_string(column + 1) + ": " + shown(cells[column]) +
                    " is not a number");
      }
      values.push_back(*value);
    }
    ++rows;
  }
  if (rows == 0) source.fail("holds no rows of numbers");
  at::Tensor out =
      at::empty({static_cast<std::int64_t>(rows), static_cast<std::int64_t>(width)}, at::kFloat);
  std::copy(values.begin(), values.end(), out.mutable_data_ptr<float>());
  return out;
}

}  // namespace perennial::continual
