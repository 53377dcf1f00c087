// SPDX-License-Identifier: Apache-2.0
// NumPy's NPY format, versions 1 to 3: magic, version, header length, a Python dictionary literal
// with descr, fortran_order and shape, then the elements.
#include <ATen/ops/empty.h>

#include <array>
#include <boost/endian/conversion.hpp>
#include <charconv>
#include <cmath>
#include <string_view>

#include "data/byte_source.h"
#include "data/preprocessing.h"
#include "data/readers.h"
#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

// NumPy itself writes headers of a few hundred bytes; more is a hostile or broken file.
constexpr std::size_t kMaxHeaderBytes = 1 << 16;
// A label beyond this is taken for a mistake: a class more is a column of every answer.
constexpr std::int64_t kMaxClasses = 1 << 20;

struct Header {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// Reads the dictionary {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const ByteSource& source) : text_(text), source_(source) {}

  Header parse() {
    Header header;
    bool has_descr = false, has_order = false, has_shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr") {
        if (peek() == '[') source_.fail("NPY of structured records; plain numbers were expected");
        header.descr = quoted();
        has_descr = true;
      } else if (key == "fortran_order") {
        header.fortran_order = boolean();
        has_order = true;
      } else if (key == "shape") {
        header.shape = tuple();
        has_shape = true;
      } else {
        source_.fail("NPY header has the unknown key '" + key + "'");
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (!has_descr || !has_order || !has_shape) {
      source_.fail("NPY header lacks descr, fortran_order or shape");
    }
    return header;
  }

 private:
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) {
      source_.fail(std::string("damaged NPY header: '") + c + "' was expected at byte " +
                   std::to_string(at_));
    }
  }
  std::string quoted() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') expect('\'');
    const std::size_t end = text_.find(quote, ++at_);
    if (end == std::string_view::npos) source_.fail("damaged NPY header: a string does not end");
    std::string value(text_.substr(at_, end - at_));
    at_ = end + 1;
    return value;
  }
  bool boolean() {
    peek();
    for (const auto& [word, value] : {std::pair{"True", true}, std::pair{"False", false}}) {
      const std::string_view expected = word;
      if (text_.substr(at_, expected.size()) == expected) {
        at_ += expected.size();
        return value;
      }
    }
    source_.fail("damaged NPY header: fortran_order is neither True nor False");
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> dims;
    expect('(');
    while (!accept(')')) {
      peek();
      std::int64_t dim = 0;
      const char* begin = text_.data() + at_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), dim);
      if (error != std::errc{} || dim < 0) source_.fail("damaged NPY header: bad shape");
      at_ += static_cast<std::size_t>(end - begin);
      dims.push_back(dim);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return dims;
  }

  std::string_view text_;
  const ByteSource& source_;
  std::size_t at_ = 0;
};

Header read_header(ByteSource& source) {
  std::array<unsigned char, 8> start{};
  source.read_exactly(start.data(), start.size(), "the NPY magic number and version");
  if (std::string_view(reinterpret_cast<const char*>(start.data()), 6) != kNpyMagic) {
    source.fail("not an NPY file: its first bytes are not \\x93NUMPY");
  }
  if (start[6] < 1 || start[6] > 3) {
    source.fail("NPY version " + std::to_string(start[6]) + ", 1 to 3 were expected");
  }
  std::array<unsigned char, 4> length_bytes{};
  source.read_exactly(length_bytes.data(), start[6] == 1 ? 2 : 4, "the NPY header's length");
  const std::size_t length = boost::endian::load_little_u32(length_bytes.data());
  if (length > kMaxHeaderBytes) {
    source.fail("NPY header of " + std::to_string(length) + " bytes, at most " +
                std::to_string(kMaxHeaderBytes) + " were expected");
  }
  std::string text(length, '\0');
  source.read_exactly(text.data(), length, "the NPY header");
  return HeaderParser(text, source).parse();
}

void check_finite(const ByteSource& source, const at::Tensor& values) {
  with_features(values, [&](const auto* value) {
    for (std::int64_t i = 0; i < values.numel(); ++i) {
      if (std::isfinite(static_cast<double>(value[i]))) continue;
      source.fail("row " + std::to_string(i / values.size(1)) + ", column " +
                  std::to_string(i % values.size(1)) + " is not a finite number");
    }
  });
}

// Bytes of the elements; fails when the file cannot have them.
std::uint64_t checked_payload(const ByteSource& source, const Header& header,
                              std::int64_t element) {
  std::uint64_t payload = 0;
  const std::uint64_t available = source.size_bound() - source.position();
  if (!checked_bytes(header.shape, element, payload) || payload > available) {
    source.fail("its header promises " + format_dims(header.shape) + " elements of " +
                std::to_string(element) + " bytes, the file has " +
                (source.compressed() ? "at most " : "") + std::to_string(available) + " bytes");
  }
  if (payload == 0) source.fail("holds no values (" + format_dims(header.shape) + ")");
  return payload;
}

// A little-endian integer of `bytes` bytes.
std::int64_t integer_at(const unsigned char* from, std::size_t bytes, bool is_signed) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes; i-- > 0;) value = value << 8 | from[i];
  const std::size_t unused = 64 - 8 * bytes;
  if (!is_signed) return static_cast<std::int64_t>(value);
  return static_cast<std::int64_t>(value << unused) >> unused;
}

// The values of an array of such a type, which nothing follows.
at::Tensor read_values(ByteSource& source, const Header& header, at::ScalarType type) {
  const auto element = static_cast<std::int64_t>(c10::elementSize(type));
  const std::uint64_t payload = checked_payload(source, header, element);
  const std::int64_t count = static_cast<std::int64_t>(payload) / element, rows = header.shape[0];
  at::Tensor values = at::empty({rows, count / rows}, type);
  source.read_exactly(values.mutable_data_ptr(), payload, "the NPY data");
  if (!source.at_end()) {
    source.fail("its header promises " + std::to_string(payload) + " bytes, the file has more");
  }
  if (type != at::kByte) check_finite(source, values);
  return values;
}

// One part of a data set: examples, and as many labels or targets.
Dataset read_arrays(const std::filesystem::path& x_file, const std::filesystem::path& y_file,
                    TaskKind task) {
  Dataset data;
  data.x = read_npy(x_file, &data.image_rows, &data.image_cols);
  const bool numbers = task == TaskKind::regression;
  data.y = numbers ? read_npy_targets(y_file) : read_npy_labels(y_file);
  if (data.x.size(0) != data.y.size(0)) {
    throw DataError(y_file.string() + ": " + std::to_string(data.y.size(0)) +
                    (numbers ? " targets for the " : " labels for the ") +
                    std::to_string(data.x.size(0)) + " examples of " + x_file.string());
  }
  return data;
}

}  // namespace

at::Tensor read_npy_labels(const std::filesystem::path& file) {
  ByteSource source(file);
  const Header header = read_header(source);
  // "<i8": byte order, kind, bytes; one byte has no order.
  const std::string& type = header.descr;
  const bool known =
      type.size() == 3 && (type[1] == 'i' || type[1] == 'u') &&
      (type[2] == '1' || (type[0] == '<' && (type[2] == '2' || type[2] == '4' || type[2] == '8')));
  if (!known) {
    source.fail("NPY of type '" + type + "'; labels are little-endian integers, as <i8 or |u1");
  }
  const bool column = header.shape.size() == 2 && header.shape[1] == 1;
  if (header.shape.size() != 1 && !column) {
    source.fail("NPY of " + format_dims(header.shape) + "; labels have one dimension");
  }
  const auto bytes = static_cast<std::size_t>(type[2] - '0');
  const std::uint64_t payload = checked_payload(source, header, static_cast<std::int64_t>(bytes));
  std::vector<unsigned char> raw(payload);
  source.read_exactly(raw.data(), payload, "the NPY labels");
  if (!source.at_end()) {
    source.fail("its header promises " + std::to_string(payload) + " bytes, the file has more");
  }
  at::Tensor labels = at::empty({header.shape[0]}, at::kLong);
  std::int64_t* out = labels.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < header.shape[0]; ++i) {
    out[i] = integer_at(raw.data() + static_cast<std::size_t>(i) * bytes, bytes, type[1] == 'i');
    if (out[i] >= 0 && out[i] < kMaxClasses) continue;
    source.fail("row " + std::to_string(i) + ": " + std::to_string(out[i]) +
                " is no label; whole numbers from 0 to " + std::to_string(kMaxClasses - 1) +
                " were expected");
  }
  return labels;
}

TrainTest load_npy_dataset(const std::filesystem::path& folder, TaskKind task) {
  const auto file = [&](const std::string& name) {
    for (const char* ending : {".npy", ".npy.gz"}) {
      std::error_code error;
      if (std::filesystem::exists(folder / (name + ending), error)) return folder / (name + ending);
    }
    throw DataError(folder.string() + ": " + name + ".npy is not there");
  };
  std::error_code error;
  const bool parts = std::filesystem::exists(folder / "x_train.npy", error) ||
                     std::filesystem::exists(folder / "x_train.npy.gz", error);
  TrainTest data;
  data.train = parts ? read_arrays(file("x_train"), file("y_train"), task)
                     : read_arrays(file("x"), file("y"), task);
  if (parts) data.test = read_arrays(file("x_test"), file("y_test"), task);
  if (task == TaskKind::regression) {
    const std::int64_t targets = data.train.y.size(1);
    for (std::int64_t t = 1; t <= targets; ++t) {
      data.train.targets.push_back(targets == 1 ? "target" : "target " + std::to_string(t));
    }
    data.test.targets = data.train.targets;
    return data;
  }
  data.train.label_names = number_names(data.train.y.max().item<std::int64_t>() + 1);
  data.test.label_names = data.train.label_names;
  return data;
}

at::Tensor read_npy(const std::filesystem::path& file, std::int64_t* image_rows,
                    std::int64_t* image_cols) {
  ByteSource source(file);
  const Header header = read_header(source);
  const bool bytes = header.descr == "|u1" || header.descr == "u1" || header.descr == "<u1";
  const bool floats = header.descr == "<f4";
  const bool doubles = header.descr == "<f8";
  if (!bytes && !floats && !doubles) {
    source.fail("NPY of type '" + header.descr + "'; |u1, <f4 or <f8 were expected");
  }
  if (header.fortran_order) source.fail("NPY in Fortran order; C order was expected");
  if (header.shape.size() != 2 && header.shape.size() != 3) {
    source.fail("NPY with " + std::to_string(header.shape.size()) +
                " dimensions; rows of features have 2, images 3");
  }
  const bool images = header.shape.size() == 3;
  if (image_rows != nullptr) *image_rows = images ? header.shape[1] : 0;
  if (image_cols != nullptr) *image_cols = images ? header.shape[2] : 0;
  return read_values(source, header, bytes ? at::kByte : floats ? at::kFloat : at::kDouble);
}

at::Tensor read_npy_targets(const std::filesystem::path& file) {
  ByteSource source(file);
  const Header header = read_header(source);
  const bool floats = header.descr == "<f4";
  if (!floats && header.descr != "<f8") {
    source.fail("NPY of type '" + header.descr + "'; targets of a regression are <f4 or <f8");
  }
  if (header.fortran_order) source.fail("NPY in Fortran order; C order was expected");
  if (header.shape.size() != 1 && header.shape.size() != 2) {
    source.fail("NPY of " + format_dims(header.shape) + "; targets have one dimension, or two");
  }
  return read_values(source, header, floats ? at::kFloat : at::kDouble).to(at::kDouble);
}

}  // namespace perennial::continual
