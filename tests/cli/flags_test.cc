// SPDX-License-Identifier: Apache-2.0
// Flags: what is set, what is refused and in which words, and what help says.
#include "flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace perennial::cli {
namespace {

using ::testing::HasSubstr;

enum class Colour { red, dark_green };
EnumNames<Colour> enum_names(Colour) {
  return {{Colour::red, "red"}, {Colour::dark_green, "dark_green"}};
}

struct PaintOptions {
  std::int64_t coat_count = 2;
  std::int32_t small = 1;
  double gloss = 0.25;
  Colour colour = Colour::red;
  bool dry = true;
  std::string maker = "nobody";

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("coat_count", self.coat_count, "how many coats", Range{1, 1048576});
    visitor("small", self.small, "a small number", Range{-3, 9e15});
    visitor("gloss", self.gloss, "how much it shines", Range{0, 1});
    visitor("colour", self.colour, "colour of the paint");
    visitor("dry", self.dry, "wait until it is dry");
    visitor("maker", self.maker, "who made it");
  }
};

struct WallOptions {
  std::int64_t walls = 4;
  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("walls", self.walls, "walls of the room", Range{1, 100});
  }
};

struct Parsed {
  PaintOptions paint;
  WallOptions wall;
  std::string store;
  std::int64_t budget = 0;
  CommonOptions common;
  bool given_walls = false;
  bool wanted = false;
};

Flags make_flags(Parsed& parsed) {
  Flags flags("paint", "paint a room", "perennial paint --store DIR --walls 3");
  flags.require("store", parsed.store, "DIR", "the store's folder")
      .add(parsed.paint)
      .add(parsed.wall)
      .add_bytes("budget", parsed.budget, "memory", Range{0, 1e12});
  parsed.common.add_to(flags);
  return flags;
}

Parsed parse(std::vector<std::string> args) {
  Parsed parsed;
  args.insert(args.begin(), {"--store", "here"});
  Flags flags = make_flags(parsed);
  parsed.wanted = flags.parse(args);
  parsed.given_walls = flags.given("walls");
  return parsed;
}

// The message of the refusal of `args`.
std::string refusal(const std::vector<std::string>& args) {
  try {
    parse(args);
  } catch (const InvalidOptions& error) {
    return error.what();
  }
  return "not refused";
}

TEST(Flags, KeepDefaultsAndSetWhatIsGiven) {
  const Parsed defaults = parse({});
  EXPECT_TRUE(defaults.wanted);
  EXPECT_EQ(defaults.store, "here");
  EXPECT_EQ(defaults.paint.coat_count, 2);
  EXPECT_EQ(defaults.paint.maker, "nobody");
  EXPECT_TRUE(defaults.paint.dry);
  EXPECT_FALSE(defaults.common.json);
  EXPECT_FALSE(defaults.given_walls);

  const Parsed set = parse({"--coat-count", "7", "--small=-3", "--gloss", "1e-1", "--colour",
                            "dark_green", "--no-dry", "--maker", "", "--walls", "5", "--json"});
  EXPECT_EQ(set.paint.coat_count, 7);
  EXPECT_EQ(set.paint.small, -3);
  EXPECT_EQ(set.paint.gloss, 0.1);
  EXPECT_EQ(set.paint.colour, Colour::dark_green);
  EXPECT_FALSE(set.paint.dry);
  EXPECT_EQ(set.paint.maker, "");
  EXPECT_EQ(set.wall.walls, 5);
  EXPECT_TRUE(set.common.json);
  EXPECT_TRUE(set.given_walls);
  EXPECT_TRUE(parse({"--dry"}).paint.dry);
}

TEST(Flags, SuggestTheNearestOfAnUnknownFlag) {
  EXPECT_EQ(refusal({"--coat-cout", "3"}),
            "unknown flag '--coat-cout' of 'paint'; did you mean '--coat-count'?");
  EXPECT_THAT(refusal({"--coat_count", "3"}), HasSubstr("did you mean '--coat-count'?"));
  EXPECT_THAT(refusal({"--hlep"}), HasSubstr("did you mean '--help'?"));
  EXPECT_THAT(refusal({"--no-dri"}), HasSubstr("did you mean '--no-dry'?"));
  EXPECT_EQ(refusal({"--unlike-anything-here"}),
            "unknown flag '--unlike-anything-here' of 'paint'");
  // Names are never guessed from their beginning.
  EXPECT_THAT(refusal({"--coat", "3"}), HasSubstr("unknown flag '--coat'"));
  EXPECT_THAT(refusal({"-json"}), HasSubstr("did you mean '--json'?"));
  EXPECT_THAT(refusal({"-x"}), HasSubstr("unknown flag '-x'"));
  EXPECT_THAT(refusal({"--no-json"}), HasSubstr("unknown flag '--no-json'"));
  EXPECT_THAT(refusal({"--no-walls"}), HasSubstr("unknown flag '--no-walls'"));
  EXPECT_THAT(refusal({"stray"}), HasSubstr("unexpected argument 'stray'"));
}

TEST(Flags, RefuseDuplicates) {
  EXPECT_EQ(refusal({"--walls", "1", "--walls", "1"}), "--walls is given more than once");
  EXPECT_EQ(refusal({"--json", "--json"}), "--json is given more than once");
  EXPECT_EQ(refusal({"--dry", "--no-dry"}), "--dry is given more than once");
  EXPECT_EQ(refusal({"--store", "there"}), "--store is given more than once");
}

TEST(Flags, CheckRangesAndForms) {
  EXPECT_EQ(refusal({"--coat-count", "0"}), "--coat-count is 0; allowed: 1 to 1048576");
  EXPECT_EQ(refusal({"--coat-count", "1048577"}), "--coat-count is 1048577; allowed: 1 to 1048576");
  EXPECT_EQ(refusal({"--gloss", "1.5"}), "--gloss is 1.5; allowed: 0 to 1");
  for (const char* text : {"", "x", "3x", "3.5", "1e3", "99999999999999999999", " 3", "0x10"}) {
    EXPECT_EQ(refusal({std::string("--coat-count=") + text}),
              *text == '\0'
                  ? "--coat-count needs a value"
                  : "--coat-count is '" + std::string(text) + "'; an integer was expected");
  }
  for (const char* text : {"nan", "inf", "0,5", "half"}) {
    EXPECT_EQ(refusal({"--gloss", text}),
              "--gloss is '" + std::string(text) + "'; a number was expected");
  }
  // Within the flag's range, but not within the field's type.
  EXPECT_THAT(refusal({"--small", "4000000000"}), HasSubstr("-2147483648 to 2147483647"));
  EXPECT_EQ(refusal({"--walls"}), "--walls needs a value");
  EXPECT_EQ(refusal({"--json=yes"}), "--json takes no value");
  EXPECT_EQ(refusal({"--dry=no"}), "--dry takes no value");
}

TEST(Flags, NameTheAllowedValuesOfAnEnum) {
  EXPECT_THAT(refusal({"--colour", "dark_gren"}),
              ::testing::AllOf(HasSubstr("--colour"), HasSubstr("did you mean 'dark_green'?")));
  EXPECT_THAT(refusal({"--colour", "ultraviolet"}), HasSubstr("known: red, dark_green"));
}

TEST(Flags, ReadSizes) {
  for (const auto& [text, bytes] :
       std::vector<std::pair<const char*, std::int64_t>>{{"0", 0},
                                                         {"4096", 4096},
                                                         {"3B", 3},
                                                         {"64K", 65536},
                                                         {"64kb", 65536},
                                                         {"1MiB", 1048576},
                                                         {"1.5G", 1610612736}}) {
    EXPECT_EQ(parse({"--budget", text}).budget, bytes) << text;
  }
  for (const char* text : {"-1", "big", "3X", "3MM", "K", "1e30G", "3 K"}) {
    EXPECT_THAT(refusal({"--budget", text}), HasSubstr("--budget is ")) << text;
  }
  EXPECT_THAT(refusal({"--budget", "2T"}), HasSubstr("allowed: 0 to 1000000000000"));
}

TEST(Flags, DemandWhatIsRequired) {
  Parsed parsed;
  Flags flags = make_flags(parsed);
  try {
    flags.parse({"--walls", "3"});
    FAIL() << "not refused";
  } catch (const InvalidOptions& error) {
    EXPECT_STREQ(error.what(), "--store DIR is missing: the store's folder");
  }
  Flags again = make_flags(parsed);
  EXPECT_THROW(again.parse({"--store="}), InvalidOptions);
}

TEST(Flags, DeclaredTwiceIsAMistakeOfTheProgram) {
  Parsed parsed;
  Flags flags = make_flags(parsed);
  EXPECT_THROW(flags.add("coat-count", parsed.wall.walls, "again"), Error);
}

struct HouseOptions {
  PaintOptions inside, outside;
  WallOptions wall;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor.group("inside", self.inside);
    visitor.group("outside", self.outside);
    visitor.group("wall", self.wall);
  }
};

HouseOptions house_of(const std::vector<std::string>& args, std::string* help = nullptr) {
  HouseOptions house;
  Flags flags("build", "build a house", "perennial build");
  flags.add_set().add(house, "house");
  flags.parse(args);
  std::ostringstream out;
  flags.print_help(out);
  if (help != nullptr) *help = out.str();
  return house;
}

TEST(Flags, SetOptionsByTheirPath) {
  const HouseOptions house =
      house_of({"--set", "house.outside.coat_count=7", "--set", "inside.dry=false",
                "--set=wall.walls=5", "--set", "inside.maker=a=b"});
  EXPECT_EQ(house.outside.coat_count, 7);
  EXPECT_EQ(house.inside.coat_count, 2);
  EXPECT_FALSE(house.inside.dry);
  EXPECT_TRUE(house.outside.dry);
  EXPECT_EQ(house.wall.walls, 5);
  EXPECT_EQ(house.inside.maker, "a=b");
  // The name alone will do where one option has it, as a flag or a path.
  EXPECT_EQ(house_of({"--walls", "6"}).wall.walls, 6);
  EXPECT_EQ(house_of({"--set", "walls=6"}).wall.walls, 6);
}

TEST(Flags, KnowWhatWasGivenByItsPath) {
  HouseOptions house;
  Flags flags("build", "build a house", "perennial build");
  flags.add_set().add(house, "house");
  flags.parse({"--set", "outside.coat_count=7", "--walls", "2"});
  EXPECT_TRUE(flags.given("coat_count"));
  EXPECT_TRUE(flags.given("walls"));
  EXPECT_FALSE(flags.given("gloss"));
}

TEST(Flags, RefusePathsThatAreNoneOrSeveral) {
  const auto refused = [](const std::vector<std::string>& args) -> std::string {
    try {
      house_of(args);
    } catch (const InvalidOptions& error) {
      return error.what();
    }
    return "not refused";
  };
  EXPECT_EQ(refused({"--set", "coat_count=1"}),
            "--set: 'coat_count' may mean house.inside.coat_count or house.outside.coat_count");
  EXPECT_EQ(refused({"--set", "house.inside.coat_cuont=1"}),
            "--set: no option 'house.inside.coat_cuont'; did you mean "
            "'house.inside.coat_count'?");
  EXPECT_EQ(refused({"--set", "walls=0"}), "house.wall.walls is 0; allowed: 1 to 100");
  EXPECT_EQ(refused({"--set", "inside.dry=maybe"}),
            "house.inside.dry is 'maybe'; true or false was expected");
  EXPECT_EQ(refused({"--set", "walls"}), "--set walls: PATH=VALUE was expected");
  EXPECT_EQ(refused({"--set", "walls=1", "--walls", "2"}), "--walls is given more than once");
  EXPECT_EQ(refused({"--set", "walls=1", "--set", "wall.walls=2"}),
            "house.wall.walls is given more than once");
  EXPECT_THAT(refused({"--coat-count", "1"}), HasSubstr("unknown flag '--coat-count'"));
  std::string help;
  house_of({}, &help);
  EXPECT_THAT(help, HasSubstr("--set house.inside.coat_count=N"));
  EXPECT_THAT(help, HasSubstr("--walls N"));
}

TEST(Flags, HelpNamesEveryFlagItsDefaultAndItsValues) {
  Parsed parsed;
  const Flags flags = make_flags(parsed);
  std::ostringstream out;
  flags.print_help(out);
  const std::string help = out.str();
  for (const char* part : {"paint: paint a room",
                           "usage: perennial paint --store DIR [flags]",
                           "--store DIR",
                           "(required)",
                           "--coat-count N",
                           "how many coats (default 2; 1 to 1048576)",
                           "--gloss X",
                           "default 0.25; 0 to 1",
                           "--colour NAME",
                           "red, dark_green; default red",
                           "--[no-]dry",
                           "default on",
                           "--maker TEXT",
                           "default nobody",
                           "--walls N",
                           "--budget SIZE",
                           "--json",
                           "--quiet",
                           "--help, -h",
                           "perennial paint --store DIR --walls 3"}) {
    EXPECT_THAT(help, HasSubstr(part));
  }
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
}

TEST(Flags, ShortHelpIsNoValue) {
  ::testing::internal::CaptureStdout();
  EXPECT_FALSE(parse({"-h"}).wanted);
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), HasSubstr("usage: perennial paint"));
  const Parsed parsed = parse({"--maker", "-h"});
  EXPECT_TRUE(parsed.wanted);
  EXPECT_EQ(parsed.paint.maker, "-h");
}

TEST(Flags, HelpWinsOverTheRest) {
  ::testing::internal::CaptureStdout();
  const Parsed parsed = parse({"--walls", "3", "--help"});
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), HasSubstr("usage: perennial paint"));
  EXPECT_FALSE(parsed.wanted);
  EXPECT_EQ(parsed.wall.walls, 4);
}

}  // namespace
}  // namespace perennial::cli
