// SPDX-License-Identifier: Apache-2.0
// A parser of safetensors headers that keeps nothing it has not checked.
#include "safetensors_header.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_from.hpp>
#include <limits>
#include <optional>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "text.h"

namespace perennial::storage {
namespace {

namespace json = boost::json;

constexpr std::string_view kMetadata = "__metadata__";

struct TypeName {
  TensorType type;
  std::string_view name;
  std::size_t bytes;
};
constexpr std::array kTypes = {
    TypeName{TensorType::boolean, "BOOL", 1},    TypeName{TensorType::u8, "U8", 1},
    TypeName{TensorType::i8, "I8", 1},           TypeName{TensorType::f8_e4m3, "F8_E4M3", 1},
    TypeName{TensorType::f8_e5m2, "F8_E5M2", 1}, TypeName{TensorType::u16, "U16", 2},
    TypeName{TensorType::i16, "I16", 2},         TypeName{TensorType::f16, "F16", 2},
    TypeName{TensorType::bf16, "BF16", 2},       TypeName{TensorType::u32, "U32", 4},
    TypeName{TensorType::i32, "I32", 4},         TypeName{TensorType::f32, "F32", 4},
    TypeName{TensorType::u64, "U64", 8},         TypeName{TensorType::i64, "I64", 8},
    TypeName{TensorType::f64, "F64", 8}};

const TypeName& name_of(TensorType type) {
  return *std::ranges::find(kTypes, type, &TypeName::type);
}

// A name from a file, fit for a one-line message.
std::string shown(std::string_view name) {
  constexpr std::size_t kShown = 60;
  std::string text(name.substr(0, kShown));
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return "'" + text + (name.size() > kShown ? "...'" : "'");
}

// Shape times element size; nothing when it does not fit 64 bits. A zero excuses no other size, as
// in the Python package.
std::optional<std::uint64_t> bytes_of(const TensorSpec& spec) {
  std::uint64_t bytes = element_bytes(spec.type);
  for (const std::uint64_t size : spec.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

// Takes Boost.JSON's events: a tree would take many times the text's memory, and forget which keys
// came twice.
class Handler {
 public:
  static constexpr std::size_t max_array_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_object_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_string_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_key_size = std::numeric_limits<std::size_t>::max();

  SafetensorsHeader header;
  std::vector<std::uint64_t> ends;  // second data offset of each tensor
  std::string reason;               // of the first failure

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code& ec) {
    if (place_ == Place::document) {
      place_ = Place::top;
    } else if (place_ == Place::top && key_ == kMetadata) {
      place_ = Place::metadata;
    } else if (place_ == Place::top) {
      if (header.tensors.size() == kMaxSafetensors) return fail(ec, "has too many tensors");
      place_ = Place::tensor;
      tensor_ = {};
      tensor_.name = key_;
      seen_ = {};
    } else {
      return misplaced(ec, "an object");
    }
    return true;
  }
  bool on_object_end(std::size_t, json::error_code& ec) {
    if (place_ == Place::tensor) {
      if (seen_ != std::array{true, true, true}) {
        return fail(ec, "lacks dtype, shape or data_offsets of tensor ", shown(tensor_.name));
      }
      header.tensors.push_back(std::move(tensor_));
      ends.push_back(end_);
    }
    place_ = place_ == Place::top ? Place::document : Place::top;
    return true;
  }
  bool on_key_part(json::string_view s, std::size_t, json::error_code&) { return add(s); }
  bool on_key(json::string_view s, std::size_t, json::error_code& ec) {
    add(s);
    key_ = std::exchange(text_, {});
    if (place_ == Place::top && !names_.insert(key_).second) {
      return fail(ec, "has ", shown(key_), " twice");
    }
    if (place_ == Place::tensor) {
      const auto field = std::ranges::find(kFields, key_);
      if (field == kFields.end()) {
        return fail(ec, "says ", shown(key_), " of tensor ", shown(tensor_.name),
                    "; known: dtype, shape, data_offsets");
      }
      bool& seen = seen_[static_cast<std::size_t>(field - kFields.begin())];
      if (std::exchange(seen, true)) {
        return fail(ec, "has ", key_, " of tensor ", shown(tensor_.name), " twice");
      }
    }
    return true;
  }
  bool on_string_part(json::string_view s, std::size_t, json::error_code&) { return add(s); }
  bool on_string(json::string_view s, std::size_t, json::error_code& ec) {
    add(s);
    const std::string text = std::exchange(text_, {});
    if (place_ == Place::metadata) {
      if (header.metadata.size() == kMaxSafetensorsMetadata) {
        return fail(ec, "has too many entries of metadata");
      }
      if (!header.metadata.emplace(key_, text).second) {
        return fail(ec, "has metadata ", shown(key_), " twice");
      }
      return true;
    }
    if (place_ != Place::tensor || key_ != "dtype") return misplaced(ec, "a string");
    const auto* const type = std::ranges::find(kTypes, text, &TypeName::name);
    if (type == kTypes.end()) {
      return fail(ec, "gives tensor ", shown(tensor_.name), " the unknown dtype ", shown(text));
    }
    tensor_.type = type->type;
    return true;
  }
  bool on_array_begin(json::error_code& ec) {
    if (place_ != Place::tensor || key_ == "dtype") return misplaced(ec, "an array");
    place_ = key_ == "shape" ? Place::shape : Place::offsets;
    offsets_ = 0;
    return true;
  }
  bool on_array_end(std::size_t, json::error_code& ec) {
    if (place_ == Place::offsets && offsets_ != 2) {
      return fail(ec, "has ", offsets_, " data_offsets for tensor ", shown(tensor_.name),
                  ", not 2");
    }
    place_ = Place::tensor;
    return true;
  }
  bool on_number_part(json::string_view, json::error_code&) { return true; }
  bool on_int64(std::int64_t value, json::string_view text, json::error_code& ec) {
    if (text.starts_with('-')) return misplaced(ec, "a negative number");
    return on_uint64(static_cast<std::uint64_t>(value), text, ec);
  }
  bool on_uint64(std::uint64_t value, json::string_view, json::error_code& ec) {
    if (place_ == Place::shape) {
      if (tensor_.shape.size() == kMaxSafetensorsDims) {
        return fail(ec, "gives tensor ", shown(tensor_.name), " too many dimensions");
      }
      tensor_.shape.push_back(value);
      return true;
    }
    if (place_ != Place::offsets) return misplaced(ec, "a number");
    if (offsets_ < 2) (offsets_ == 0 ? tensor_.offset : end_) = value;
    ++offsets_;
    return true;
  }
  bool on_double(double, json::string_view, json::error_code& ec) {
    return misplaced(ec, "a number that is no integer of 64 bits");
  }
  bool on_bool(bool, json::error_code& ec) { return misplaced(ec, "a truth value"); }
  bool on_null(json::error_code& ec) { return misplaced(ec, "null"); }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

 private:
  enum class Place { document, top, metadata, tensor, shape, offsets };
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};

  bool add(json::string_view part) {
    text_.append(part.data(), part.size());
    return true;
  }
  template <class... Parts>
  bool fail(json::error_code& ec, const Parts&... parts) {
    reason = text_of(parts...);
    ec = json::error::syntax;
    return false;
  }
  bool misplaced(json::error_code& ec, std::string_view what) {
    const bool in_tensor = place_ != Place::document && place_ != Place::top;
    return fail(ec, "has ", what, " where none may be",
                place_ == Place::document ? "" : " (" + shown(key_) + ")",
                in_tensor && place_ != Place::metadata ? " of tensor " + shown(tensor_.name) : "");
  }

  Place place_ = Place::document;
  std::string text_, key_;
  std::unordered_set<std::string> names_;
  TensorInfo tensor_;
  std::uint64_t end_ = 0;
  std::size_t offsets_ = 0;
  std::array<bool, 3> seen_{};
};

// Gives each tensor its length and puts them in the order of their bytes, which must be complete.
Status lay_out(std::vector<TensorInfo>& tensors, const std::vector<std::uint64_t>& ends,
               std::uint64_t data_bytes) {
  const auto wrong = [](const TensorInfo& tensor, const auto&... parts) {
    return error(StatusCode::corruption, "the header gives tensor ", shown(tensor.name), " ",
                 parts...);
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    TensorInfo& tensor = tensors[i];
    if (ends[i] < tensor.offset || ends[i] > data_bytes) {
      return wrong(tensor, "the bytes ", tensor.offset, " to ", ends[i], " of ", data_bytes);
    }
    tensor.bytes = ends[i] - tensor.offset;
    if (const auto bytes = bytes_of(tensor); bytes != tensor.bytes) {
      return wrong(tensor, tensor.bytes, " bytes; its shape and dtype need ",
                   bytes ? std::to_string(*bytes) : "more than 2^64");
    }
  }
  std::ranges::sort(tensors, {}, [](const TensorInfo& tensor) {
    return std::tuple(tensor.offset, tensor.bytes, std::string_view(tensor.name));
  });
  std::uint64_t end = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset != end) {
      return wrong(tensor, "bytes from ", tensor.offset, " where ", end,
                   tensor.offset < end ? " overlap" : " leave a hole");
    }
    end += tensor.bytes;
  }
  if (end == data_bytes) return {};
  return error(StatusCode::corruption, "the header describes ", end, " bytes of tensors, and ",
               data_bytes, " follow it");
}

}  // namespace

std::string_view to_string(TensorType type) { return name_of(type).name; }
std::size_t element_bytes(TensorType type) { return name_of(type).bytes; }

Result<SafetensorsHeader> parse_safetensors_header(std::string_view text,
                                                   std::uint64_t data_bytes) {
  if (!text.starts_with('{')) {
    return error(StatusCode::corruption, "the header does not begin with '{'");
  }
  json::parse_options options;
  options.max_depth = 4;  // of which a valid header uses 3
  json::basic_parser<Handler> parser(options);
  json::error_code ec;
  const std::size_t used = parser.write_some(false, text.data(), text.size(), ec);
  Handler& handler = parser.handler();
  if (!handler.reason.empty()) {
    return error(StatusCode::corruption, "the header ", handler.reason);
  }
  if (ec || used != text.size()) {
    return error(StatusCode::corruption,
                 "the header is no UTF-8 JSON: ", ec ? ec.message() : "text follows", " at byte ",
                 used);
  }
  if (Status status = lay_out(handler.header.tensors, handler.ends, data_bytes); !status.ok()) {
    return status;
  }
  return std::move(handler.header);
}

Result<SafetensorsHeaderText> safetensors_header_text(const std::vector<TensorSpec>& tensors,
                                                      const SafetensorsMetadata& metadata) {
  SafetensorsHeaderText made;
  made.text = "{";
  const auto begin_entry = [&](std::string_view name) {
    if (made.text.size() > 1) made.text += ',';
    made.text += json::serialize(json::value(name));
    made.text += ':';
  };
  if (!metadata.empty()) {
    json::object object;
    for (const auto& [key, value] : metadata) object[key] = value;
    begin_entry(kMetadata);
    made.text += json::serialize(object);
  }
  for (const TensorSpec& tensor : tensors) {
    const auto bytes = bytes_of(tensor);
    const std::uint64_t begin = made.data_bytes;
    if (!bytes || __builtin_add_overflow(begin, *bytes, &made.data_bytes)) {
      return error(StatusCode::invalid_argument, "tensor ", shown(tensor.name),
                   " ends beyond 2^64 bytes");
    }
    begin_entry(tensor.name);
    made.text +=
        json::serialize(json::object{{"dtype", to_string(tensor.type)},
                                     {"shape", json::value_from(tensor.shape)},
                                     {"data_offsets", json::array{begin, made.data_bytes}}});
  }
  made.text += "}";
  made.text.resize((made.text.size() + 7) / 8 * 8, ' ');
  if (made.text.size() > kMaxSafetensorsHeader) {
    return error(StatusCode::invalid_argument, "the header would have ", made.text.size(),
                 " bytes; allowed: ", kMaxSafetensorsHeader);
  }
  if (const auto parsed = parse_safetensors_header(made.text, made.data_bytes); !parsed.ok()) {
    return error(StatusCode::invalid_argument, parsed.status().message());
  }
  return made;
}

}  // namespace perennial::storage
