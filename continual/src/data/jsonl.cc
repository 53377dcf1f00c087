// SPDX-License-Identifier: Apache-2.0
// One JSON object a line: its fields are the columns; an array of numbers is a column each.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <deque>

#include "data/table.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

class JsonlCutter : public RecordCutter {
 public:
  bool cut(std::string_view line, std::vector<Cell>& cells, std::vector<std::string>& names,
           std::string& problem) override {
    cells.clear();
    names.clear();
    texts_.clear();
    boost::system::error_code error;
    const json::value parsed = json::parse(line, error);
    if (error) {
      problem = "not JSON: " + error.message();
      return false;
    }
    if (!parsed.is_object()) {
      problem = "a JSON object was expected, found " + shown(line);
      return false;
    }
    for (const auto& field : parsed.get_object()) {
      const std::string name(field.key());
      if (const json::array* values = field.value().if_array()) {
        for (std::size_t i = 0; i < values->size(); ++i) {
          names.push_back(name + "[" + std::to_string(i) + "]");
          cells.push_back(cell((*values)[i]));
        }
      } else {
        names.push_back(name);
        cells.push_back(cell(field.value()));
      }
    }
    return true;
  }

 private:
  Cell cell(const json::value& value) {
    Cell cell;
    if (value.is_null()) return cell;
    if (const json::string* text = value.if_string()) {
      texts_.emplace_back(*text);
      // A string is text even where it looks like a number, except that it may say "no value".
      cell = cell_of(texts_.back());
      if (cell.kind == Cell::Kind::number) cell.kind = Cell::Kind::text;
      return cell;
    }
    texts_.push_back(json::serialize(value));
    cell.text = texts_.back();
    cell.kind = Cell::Kind::text;
    if (value.is_number()) {
      cell.number = value.to_number<double>();
      if (std::isfinite(cell.number)) cell.kind = Cell::Kind::number;
    }
    return cell;
  }

  std::deque<std::string> texts_;  // keeps the texts that cells refer to in place
};

}  // namespace

std::unique_ptr<RecordCutter> make_jsonl_cutter() { return std::make_unique<JsonlCutter>(); }

}  // namespace perennial::continual
