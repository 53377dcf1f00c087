// SPDX-License-Identifier: Apache-2.0
// Decoding: libpng, libjpeg, and the formats of Netpbm.
#include "data/image.h"

#include <png.h>

#include <array>
#include <csetjmp>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string_view>

// Needs size_t and FILE before it.
#include <jpeglib.h>

#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

constexpr std::int64_t kMostPixels = std::int64_t{1} << 26;
constexpr std::string_view kPng = "\x89PNG", kJpeg = "\xFF\xD8\xFF";

void require_size(std::int64_t rows, std::int64_t cols) {
  if (rows > 0 && cols > 0 && rows <= kMostPixels / cols) return;
  throw DataError("an image of " + std::to_string(rows) + " x " + std::to_string(cols) +
                  " pixels; 1 to 2^26 in all were expected");
}

Image sized(std::int64_t rows, std::int64_t cols, std::int64_t channels) {
  require_size(rows, cols);
  return {rows, cols, channels,
          std::vector<std::uint8_t>(static_cast<std::size_t>(rows * cols * channels))};
}

Image read_png(const std::string& bytes) {
  struct Reader : png_image {
    Reader() : png_image{} { version = PNG_IMAGE_VERSION; }
    ~Reader() { png_image_free(this); }
    [[noreturn]] void fail() const { throw DataError(std::string("a bad PNG: ") + message); }
  } reader;
  if (png_image_begin_read_from_memory(&reader, bytes.data(), bytes.size()) == 0) reader.fail();
  const bool colour = (reader.format & PNG_FORMAT_FLAG_COLOR) != 0;
  Image image = sized(reader.height, reader.width, colour ? 3 : 1);
  reader.format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  const png_color black{0, 0, 0};
  if (png_image_finish_read(&reader, &black, image.values.data(), 0, nullptr) == 0) reader.fail();
  return image;
}

// libjpeg calls error_exit where it cannot go on, which must not return.
struct JpegErrors : jpeg_error_mgr {
  std::jmp_buf out;
  std::array<char, JMSG_LENGTH_MAX> text;
};

[[noreturn]] void leave(j_common_ptr state) {
  auto* errors = static_cast<JpegErrors*>(state->err);
  errors->format_message(state, errors->text.data());
  std::longjmp(errors->out, 1);
}

// Warnings are of damaged data, which would be filled with grey.
void on_message(j_common_ptr state, int level) {
  if (level < 0) leave(state);
}

// False when it failed. Nothing with a destructor lives here: longjmp skips those.
bool decode_jpeg(const std::string& bytes, JpegErrors& errors, jpeg_decompress_struct& state,
                 Image& image) {
  if (setjmp(errors.out) != 0) return false;
  jpeg_create_decompress(&state);
  jpeg_mem_src(&state, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&state, TRUE);
  require_size(state.image_height, state.image_width);  // before libjpeg allocates
  const bool grey = state.jpeg_color_space == JCS_GRAYSCALE;
  state.out_color_space = grey ? JCS_GRAYSCALE : JCS_RGB;
  // libjpeg cannot turn these into red, green, blue itself.
  if (state.jpeg_color_space == JCS_CMYK || state.jpeg_color_space == JCS_YCCK) {
    state.out_color_space = JCS_CMYK;
  }
  jpeg_start_decompress(&state);
  image.rows = state.output_height;
  image.cols = state.output_width;
  image.channels = state.output_components;
  return true;
}

bool decode_lines(JpegErrors& errors, jpeg_decompress_struct& state, Image& image) {
  if (setjmp(errors.out) != 0) return false;
  while (state.output_scanline < state.output_height) {
    unsigned char* line = image.values.data() + static_cast<std::size_t>(state.output_scanline) *
                                                    static_cast<std::size_t>(image.cols) *
                                                    static_cast<std::size_t>(image.channels);
    jpeg_read_scanlines(&state, &line, 1);
  }
  jpeg_finish_decompress(&state);
  return true;
}

// Adobe's CMYK, the one there is in practice, is stored inverted.
Image without_black(const Image& cmyk) {
  Image image = sized(cmyk.rows, cmyk.cols, 3);
  for (std::size_t i = 0; i < image.values.size(); ++i) {
    const std::size_t pixel = i / 3;
    image.values[i] = static_cast<std::uint8_t>(cmyk.values[4 * pixel + i % 3] *
                                                cmyk.values[4 * pixel + 3] / 255);
  }
  return image;
}

Image read_jpeg(const std::string& bytes) {
  JpegErrors errors{};
  jpeg_decompress_struct state{};
  struct End {
    jpeg_decompress_struct& of;
    ~End() { jpeg_destroy_decompress(&of); }
  } const end{state};
  state.err = jpeg_std_error(&errors);
  errors.error_exit = leave;
  errors.emit_message = on_message;
  Image image;
  const auto fail = [&] { throw DataError(std::string("a bad JPEG: ") + errors.text.data()); };
  if (!decode_jpeg(bytes, errors, state, image)) fail();
  image = sized(image.rows, image.cols, image.channels);
  if (!decode_lines(errors, state, image)) fail();
  return image.channels == 4 ? without_black(image) : image;
}

// The whole numbers of a Netpbm header or plain image, with comments between them.
class Numbers {
 public:
  Numbers(const std::string& bytes, std::size_t at) : bytes_(bytes), at_(at) {}

  std::int64_t next(std::int64_t most) {
    while (at_ < bytes_.size() && (is_space(bytes_[at_]) || bytes_[at_] == '#')) {
      if (bytes_[at_] == '#') at_ = std::min(bytes_.find('\n', at_), bytes_.size() - 1);
      ++at_;
    }
    std::int64_t value = -1;
    for (; at_ < bytes_.size() && bytes_[at_] >= '0' && bytes_[at_] <= '9'; ++at_) {
      value = std::max<std::int64_t>(value, 0) * 10 + (bytes_[at_] - '0');
      if (value > most) break;
    }
    if (value < 0 || value > most) {
      throw DataError("a bad PGM or PPM: a whole number up to " + std::to_string(most) +
                      " was expected at byte " + std::to_string(at_));
    }
    return value;
  }
  std::size_t at() const { return at_; }

 private:
  static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
  const std::string& bytes_;
  std::size_t at_;
};

Image read_netpbm(const std::string& bytes) {
  const bool plain = bytes[1] < '4', colour = bytes[1] == '3' || bytes[1] == '6';
  Numbers numbers(bytes, 2);
  const std::int64_t cols = numbers.next(kMostPixels), rows = numbers.next(kMostPixels);
  const std::int64_t most = numbers.next(65535);
  if (most == 0) throw DataError("a bad PGM or PPM: its largest value is 0");
  const std::int64_t wide = most > 255 ? 2 : 1;
  require_size(rows, cols);
  const std::int64_t count = rows * cols * (colour ? 3 : 1);
  const std::size_t begin = numbers.at() + 1;
  const auto left = static_cast<std::int64_t>(bytes.size()) - static_cast<std::int64_t>(begin);
  // A number of a plain image takes two bytes at least, but for the last one.
  if (plain ? left < 2 * count - 1 : left < wide * count) {
    throw DataError("a bad PGM or PPM: it ends before its " + std::to_string(count) + " values do");
  }
  Image image = sized(rows, cols, colour ? 3 : 1);
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t value = 0;
    if (plain) {
      value = numbers.next(most);
    } else {
      for (std::int64_t b = 0; b < wide; ++b) {
        value = 256 * value +
                static_cast<std::uint8_t>(bytes[begin + static_cast<std::size_t>(wide * i + b)]);
      }
    }
    image.values[static_cast<std::size_t>(i)] =
        static_cast<std::uint8_t>((std::min(value, most) * 255 + most / 2) / most);
  }
  return image;
}

bool is_netpbm(std::string_view start) {
  return start.size() > 2 && start[0] == 'P' &&
         std::string_view("2356").find(start[1]) != std::string_view::npos &&
         std::string_view(" \t\r\n#").find(start[2]) != std::string_view::npos;
}

}  // namespace

Image read_image(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file)) throw DataError("cannot be read");
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (bytes.starts_with(kPng)) return read_png(bytes);
  if (bytes.starts_with(kJpeg)) return read_jpeg(bytes);
  if (is_netpbm(bytes)) return read_netpbm(bytes);
  throw DataError("is no PNG, JPEG, PGM or PPM");
}

bool is_image(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string start(4, '\0');
  in.read(start.data(), std::ssize(start));
  start.resize(static_cast<std::size_t>(in.gcount()));
  return start.starts_with(kPng) || start.starts_with(kJpeg) || is_netpbm(start);
}

}  // namespace perennial::continual
