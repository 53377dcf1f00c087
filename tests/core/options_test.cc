// SPDX-License-Identifier: Apache-2.0
// Options: JSON round trips, and messages that name the field, its value and what is allowed.
#include "perennial/core/options.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <limits>

#include "core/core_testing.h"
#include "perennial/core/gate.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;
namespace json = boost::json;

PeerOptions unusual_options() {
  PeerOptions options = small_options();
  options.routing = Routing::shared;
  options.sub_keys = SubKeys::common;
  options.score = kernels::ScoreFunction::sigmoid;
  options.activation = kernels::Activation::identity;
  options.glu = true;
  options.expert_width = 3;
  options.dtype = kernels::WeightType::bf16;
  options.dropout = 0.1;
  options.query_norm = QueryNorm::none;
  options.norm_eps = 1.0 / 300;
  options.norm_momentum = 0.30000000000000004;
  options.key_scale = 5e-6;
  options.distribution = Distribution::uniform;
  options.u_scale = 0.1;
  options.v_scale = 123.456789012345678;
  options.seed = 9000000000000000;
  return options;
}

// Through text and back.
template <class Options>
Options round_trip(const Options& options) {
  return from_json<Options>(json::parse(json::serialize(to_json(options))).as_object());
}

TEST(Options, RoundTripThroughJsonExactly) {
  const PeerOptions options = unusual_options();
  EXPECT_NO_THROW(options.validate());
  const PeerOptions back = round_trip(options);
  EXPECT_EQ(json::serialize(to_json(back)), json::serialize(to_json(options)));
  EXPECT_EQ(back.norm_eps, options.norm_eps);
  EXPECT_EQ(back.norm_momentum, options.norm_momentum);
  EXPECT_EQ(back.key_scale, options.key_scale);
  EXPECT_EQ(back.v_scale, options.v_scale);
  EXPECT_EQ(back.seed, options.seed);
  EXPECT_EQ(back.routing, Routing::shared);
  EXPECT_EQ(back.activation, kernels::Activation::identity);
  EXPECT_TRUE(back.glu);
  EXPECT_EQ(back.expert_width, 3);
  EXPECT_EQ(back.dtype, kernels::WeightType::bf16);
  EXPECT_EQ(back.dropout, 0.1);
  // Every double comes back as it was, however its text looks.
  kernels::RandomStream random(5);
  for (int i = 0; i < 2000; ++i) {
    SparseOptimizerOptions rates;
    rates.lr =
        random.next() / 4294967296.0 * std::pow(10.0, -static_cast<double>(random.below(30)));
    rates.eps = std::nextafter(rates.lr + 1e-30, 1);
    EXPECT_EQ(round_trip(rates).lr, rates.lr);
    EXPECT_EQ(round_trip(rates).eps, rates.eps);
  }
}

TEST(Options, AbsentKeysKeepTheirDefaults) {
  const auto options = from_json<PeerOptions>(json::parse(R"({"d_in": 4})").as_object());
  EXPECT_EQ(options.d_in, 4);
  EXPECT_EQ(options.heads, PeerOptions{}.heads);
  EXPECT_EQ(from_json<PeerOptions>(json::parse(R"({"v_scale": 1})").as_object()).v_scale, 1.0);
}

std::string refusal(const char* text) {
  return message_of<InvalidOptions>(
      [&] { (void)from_json<PeerOptions>(json::parse(text).as_object()); });
}

TEST(Options, UnknownKeysAndNamesSuggestTheNearest) {
  EXPECT_THAT(refusal(R"({"head": 4})"), AllOf(HasSubstr("'head'"), HasSubstr("'heads'")));
  EXPECT_THAT(refusal(R"({"norm_esp": 1})"), HasSubstr("'norm_eps'"));
  EXPECT_THAT(refusal(R"({"zzzzzzzzzzzz": 1})"), AllOf(HasSubstr("known:"), HasSubstr("d_key")));
  EXPECT_THAT(refusal(R"({"routing": "isolate"})"),
              AllOf(HasSubstr("routing"), HasSubstr("'isolate'"), HasSubstr("'isolated'")));
  EXPECT_THAT(refusal(R"({"activation": "swish7"})"),
              AllOf(HasSubstr("activation"), HasSubstr("relu, gelu, gelu_tanh, silu, identity")));
  EXPECT_EQ(nearest_name("", {"a"}), "a");
  EXPECT_EQ(nearest_name("heads", {}), "");
}

TEST(Options, WrongTypesNameTheFieldAndTheValue) {
  EXPECT_THAT(refusal(R"({"heads": "4"})"), AllOf(HasSubstr("heads"), HasSubstr("\"4\"")));
  EXPECT_THAT(refusal(R"({"heads": 4.5})"), AllOf(HasSubstr("heads"), HasSubstr("4.5")));
  EXPECT_THAT(refusal(R"({"heads": 18446744073709551615})"), HasSubstr("heads"));
  EXPECT_THAT(refusal(R"({"glu": 1})"), AllOf(HasSubstr("glu"), HasSubstr("true or false")));
  EXPECT_THAT(refusal(R"({"routing": 1})"), AllOf(HasSubstr("routing"), HasSubstr("a string")));
  EXPECT_THAT(refusal(R"({"v_scale": "big"})"), AllOf(HasSubstr("v_scale"), HasSubstr("big")));
  EXPECT_THAT(refusal(R"({"v_scale": null})"), AllOf(HasSubstr("v_scale"), HasSubstr("null")));
}

TEST(Options, RangesNameTheFieldTheValueAndTheLimits) {
  struct Case {
    std::function<void(PeerOptions&)> change;
    const char* field;
    const char* value;
    const char* limit;
  };
  const std::vector<Case> cases = {
      {[](auto& o) { o.d_in = 0; }, "d_in", "is 0", "262144"},
      {[](auto& o) { o.d_out = -3; }, "d_out", "is -3", "1 to"},
      {[](auto& o) { o.heads = 1025; }, "heads", "1025", "1024"},
      {[](auto& o) { o.top_k = 0; }, "top_k", "is 0", "4096"},
      {[](auto& o) { o.top_k = 65; }, "top_k", "65", "8 x 8"},
      {[](auto& o) { o.d_key = 7; }, "d_key", "7", "even"},
      {[](auto& o) { o.rows = std::int64_t{1} << 32; }, "rows", "4294967296", "1 to 4294967295"},
      {[](auto& o) { o.cols = 0; }, "cols", "is 0", "1 to"},
      {[](auto& o) { o.norm_eps = 0; }, "norm_eps", "is 0", "1e-12"},
      {[](auto& o) { o.norm_momentum = 1.5; }, "norm_momentum", "1.5", "0 to 1"},
      {[](auto& o) { o.v_scale = std::numeric_limits<double>::quiet_NaN(); }, "v_scale", "nan",
       "0 to"},
      {[](auto& o) { o.u_scale = std::numeric_limits<double>::infinity(); }, "u_scale", "inf",
       "0 to"},
      {[](auto& o) { o.page_bytes = 4194305; }, "page_bytes", "4194305", "4194304"},
      {[](auto& o) { o.seed = -1; }, "seed", "is -1", "0 to"},
      {[](auto& o) { o.d_in = o.d_out = 262144; }, "d_in", "262144", "4194304"},
  };
  for (const Case& c : cases) {
    PeerOptions options = small_options();
    c.change(options);
    const std::string message = message_of<InvalidOptions>([&] { options.validate(); });
    EXPECT_THAT(message, AllOf(HasSubstr(c.field), HasSubstr(c.value), HasSubstr(c.limit)));
    EXPECT_THAT(message_of<InvalidOptions>([&] { PeerImpl peer(options); }), HasSubstr(c.field));
  }
  AnalyticGateOptions gate;
  gate.ridge = -1;
  EXPECT_THAT(message_of<InvalidOptions>([&] { AnalyticGate(4, gate); }), HasSubstr("ridge is -1"));
}

struct TextOptions {
  std::string place = "here";

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("place", self.place, "a text");
  }
};

TEST(Options, TextMustBeUtf8) {
  EXPECT_NO_THROW(validate_ranges(TextOptions{"caf\xC3\xA9"}));
  EXPECT_THAT(message_of<InvalidOptions>([] { validate_ranges(TextOptions{"caf\xE9"}); }),
              AllOf(HasSubstr("place is 'caf"), HasSubstr("not UTF-8")));
}

struct AttentionOptions {
  std::int64_t heads = 8;
  double dropout = 0;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("heads", self.heads, "heads of attention", Range{1, 1024});
    visitor("dropout", self.dropout, "of attention", Range{0, 1});
  }
};

struct BlockOptions {
  std::string kind = "dense";
  AttentionOptions attention;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("kind", self.kind, "kind of the block");
    visitor.group("attention", self.attention);
  }
};

struct NetworkOptions {
  std::int64_t width = 64;
  AttentionOptions first;
  AttentionOptions last;
  std::vector<BlockOptions> blocks;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("width", self.width, "width of the network", Range{1, 65536});
    visitor.group("first", self.first);
    visitor.group("last", self.last);
    visitor.group("blocks", self.blocks);
  }
};

NetworkOptions network_of(const char* text) {
  return from_json<NetworkOptions>(json::parse(text).as_object());
}

TEST(OptionGroups, NestedJsonGoesThereAndBack) {
  NetworkOptions network;
  network.width = 32;
  network.last.heads = 2;
  network.blocks.resize(2);
  network.blocks[1].kind = "peer";
  network.blocks[1].attention.dropout = 0.1;
  const std::string text = json::serialize(to_json(network, JsonForm::nested));
  EXPECT_EQ(text,
            R"({"width":32,"first":{"heads":8,"dropout":0E0},"last":{"heads":2,"dropout":0E0},)"
            R"("blocks":[{"kind":"dense","attention":{"heads":8,"dropout":0E0}},)"
            R"({"kind":"peer","attention":{"heads":8,"dropout":1E-1}}]})");
  const NetworkOptions back = network_of(text.c_str());
  EXPECT_EQ(json::serialize(to_json(back, JsonForm::nested)), text);
}

TEST(OptionGroups, FlatJsonIsReadWhereANameIsOfOneGroup) {
  const NetworkOptions block =
      network_of(R"({"blocks": [{"kind": "peer", "heads": 3}, {"dropout": 0.5}]})");
  ASSERT_EQ(block.blocks.size(), 2);
  EXPECT_EQ(block.blocks[0].attention.heads, 3);
  EXPECT_EQ(block.blocks[1].attention.dropout, 0.5);
  EXPECT_EQ(block.first.heads, 8);
  // Elements are written flat, too.
  const json::object flat = to_json(block.blocks[0]);
  EXPECT_EQ(flat.at("heads"), 3);
}

struct NamesakeOptions {
  AttentionOptions heads;  // a group of the name of an option within it

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor.group("heads", self.heads);
  }
};

TEST(OptionGroups, AGroupIsNotTakenForAnOptionOfItsName) {
  const auto heads = [](const char* text) {
    return from_json<NamesakeOptions>(json::parse(text).as_object()).heads.heads;
  };
  EXPECT_EQ(heads(R"({"heads": {"dropout": 0.5}})"), 8);
  EXPECT_EQ(heads(R"({"heads": {"heads": 3}})"), 3);
}

TEST(OptionGroups, TheFlatFormRefusesNamesakes) {
  NetworkOptions network;
  EXPECT_THAT(message_of<Error>([&] { (void)to_json(network); }), HasSubstr("heads"));
}

TEST(OptionGroups, MistakesAreNamedByTheirPath) {
  const auto refused = [](const char* text) {
    return message_of<InvalidOptions>([&] { (void)network_of(text); });
  };
  EXPECT_THAT(refused(R"({"heads": 3})"),
              AllOf(HasSubstr("'heads'"), HasSubstr("first.heads or last.heads")));
  EXPECT_THAT(refused(R"({"first": {"head": 3}})"),
              AllOf(HasSubstr("'first.head'"), HasSubstr("did you mean 'first.heads'?")));
  EXPECT_THAT(refused(R"({"frist": {}})"), HasSubstr("did you mean 'first'?"));
  EXPECT_THAT(refused(R"({"first": 3})"), HasSubstr("first must be an object, not 3"));
  EXPECT_THAT(refused(R"({"blocks": {}})"), HasSubstr("blocks must be an array"));
  EXPECT_THAT(refused(R"({"blocks": [{}, 1]})"), HasSubstr("blocks[1] must be an object"));
  EXPECT_THAT(refused(R"({"blocks": [{"attention": {"heads": "x"}}]})"),
              HasSubstr("blocks[0].attention.heads must be an integer"));
  EXPECT_THAT(refused(R"({"blocks": [{"width": 3}]})"), HasSubstr("unknown key 'blocks[0].width'"));
}

TEST(Options, EnumNamesAreTheStoredOnes) {
  EXPECT_EQ(enum_name(QueryNorm::rms), "rms");
  EXPECT_EQ(parse_enum<SubKeys>("sub_keys", "per-head"), SubKeys::per_head);
  EXPECT_EQ(parse_enum<SparseAlgorithm>("algorithm", "sgd"), SparseAlgorithm::sgd);
  EXPECT_EQ(parse_enum<GateKind>("gate", "analytic"), GateKind::analytic);
  EXPECT_THROW((void)parse_enum<GateKind>("gate", "Analytic"), InvalidOptions);
}

}  // namespace
}  // namespace perennial
