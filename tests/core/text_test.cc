// SPDX-License-Identifier: Apache-2.0
// UTF-8, against the table of well-formed byte sequences of the Unicode standard (3-7).
#include "perennial/core/text.h"

#include <gtest/gtest.h>

#include <vector>

namespace perennial {
namespace {

TEST(Text, IsUtf8WhereTheStandardSaysSo) {
  for (const std::string_view text :
       {"", "plain",
        "gr\xC3\xB6\xC3\x9F"
        "e",
        "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
        "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(invalid_utf8(text), std::string_view::npos) << text;
    EXPECT_EQ(valid_utf8(text), text);
  }
  struct Case {
    std::string_view text;
    std::size_t at;
  };
  for (const Case& wrong : std::vector<Case>{{"gr\xF6\xDF"
                                              "e",
                                              2},                      // Latin-1
                                             {"\x80", 0},              // continues nothing
                                             {"ab\xC3", 2},            // ends within a character
                                             {"\xC1\xBF", 0},          // longer than needed
                                             {"\xE0\x9F\xBF", 0},      // the same, of three
                                             {"\xF0\x8F\xBF\xBF", 0},  // and of four
                                             {"\xED\xA0\x80", 0},      // half a surrogate pair
                                             {"\xF4\x90\x80\x80", 0},  // beyond U+10FFFF
                                             {"\xC3\xB6\xF8\x88", 2}}) {
    EXPECT_EQ(invalid_utf8(wrong.text), wrong.at) << wrong.text;
  }
}

TEST(Text, ReplacesWhatIsNoCharacter) {
  EXPECT_EQ(valid_utf8("a\xF6\xDF"
                       "b\xC3\xA4\xE2\x82"),
            "a\xEF\xBF\xBD\xEF\xBF\xBD"
            "b\xC3\xA4\xEF\xBF\xBD\xEF\xBF\xBD");
}

}  // namespace
}  // namespace perennial
