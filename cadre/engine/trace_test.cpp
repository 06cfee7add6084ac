#include "cadre/engine/trace.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/engine/test_traces.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

TEST(Trace, RoundTrip) {
  const TestFolder folder;
  const RouteTrace trace = random_trace({.tokens = 20, .layers = 3, .experts = 9, .used = 2});
  write_trace(trace, folder / "t.trace");
  const RouteTrace back = read_trace(folder / "t.trace");
  EXPECT_EQ(back.chosen, trace.chosen);
  EXPECT_EQ(back.weights, trace.weights);
  EXPECT_EQ(back.passes, trace.passes);
  EXPECT_EQ(back.tokens, trace.tokens);
  EXPECT_EQ(back.experts, 9);
  EXPECT_EQ(back.model, trace.model);
}

TEST(Trace, UnusedPlacesAreMinusOne) {
  TraceRecorder recorder({.layers = 2, .experts = 4, .used = 3});
  const int64_t token = recorder.add_token(0, 0, 17);
  const int32_t experts[] = {3};
  const float weights[] = {0.5F};
  recorder.add_route(token, 1, experts, weights);
  EXPECT_EQ(recorder.trace().chosen, (std::vector<int16_t>{-1, -1, -1, 3, -1, -1}));
  const int32_t many[] = {0, 1, 2, 3};
  EXPECT_THROW(recorder.add_route(token, 0, many, {}), Error);
}

TEST(Trace, PrefillIsLeftOutOfTheDecodePart) {
  RouteTrace trace = random_trace({.tokens = 6, .layers = 2, .experts = 4, .used = 1});
  trace.passes = {0, 0, 0, 1, 1, 2};
  trace.sequences = {0, 0, 1, 0, 1, 0};
  const RouteTrace decode = decode_part(trace);
  EXPECT_EQ(decode.passes, (std::vector<int32_t>{1, 1, 2}));
  EXPECT_EQ(decode.at(2, 1)[0], trace.at(5, 1)[0]);
}

constexpr const char* kCsv =
    "# route_trace v1\n"
    "# model=/x/y/Tiny.gguf arch=a n_layer=2 n_expert=4 n_expert_used=2\n"
    "# layer=0 expert_bytes=4096 dense_bytes=1\n"
    "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n"
    "0,0,0,0,0,3,0.75,0,1\n0,0,0,0,1,1,0.25,0,1\n"
    "0,0,1,0,0,2,0.5,0,1\n"
    "0,0,0,1,0,1,1,0,1\n"
    "0,1,2,0,0,0,1,0,1\n";

TEST(TraceCsv, PrefillLayerByLayerAndDecode) {
  const TestFolder folder;
  write_file(folder / "t.csv", kCsv);
  const RouteTrace trace = read_trace(folder / "t.csv");
  EXPECT_EQ(trace.model, "Tiny.gguf");
  EXPECT_EQ(trace.expert_bytes, 4096);
  EXPECT_EQ(trace.passes, (std::vector<int32_t>{0, 0, 1}));
  EXPECT_EQ(trace.chosen, (std::vector<int16_t>{3, 1, 1, -1, 2, -1, -1, -1, 0, -1, -1, -1}));
  EXPECT_EQ(decode_part(trace).size(), 1);
}

TEST(TraceCsv, FaultsNameTheLine) {
  const TestFolder folder;
  const std::string head = "# a n_layer=2 n_expert=4 n_expert_used=2\n";
  for (const std::string row :
       {"0,0,0,0,0,4,1", "0,0,0,2,0,1,1", "0,0,0,0,2,1,1", "0,0,0,-1,0,1,1", "0,0,0,0,0,1",
        "0,0,0,0,0,x,1", "0,0,0,0,0,,1", "99999999999999999999,0,0,0,0,1,1"}) {
    write_file(folder / "t.csv", head + row + "\n");
    try {
      read_trace(folder / "t.csv");
      FAIL() << row;
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find("line 2"), std::string::npos) << error.what();
    }
  }
  write_file(folder / "t.csv", "0,0,0,0,0,1,1\n");
  EXPECT_THROW(read_trace(folder / "t.csv"), FormatError) << "no shape above it";
  write_file(folder / "t.csv", "");
  EXPECT_THROW(read_trace(folder / "t.csv"), FormatError);
}

TEST(Trace, HostileFilesAreRefused) {
  const TestFolder folder;
  RouteTrace trace = random_trace({.tokens = 4, .layers = 2, .experts = 4, .used = 1});
  trace.chosen[3] = 4;
  write_trace(trace, folder / "t.trace");
  EXPECT_THROW(read_trace(folder / "t.trace"), FormatError);
  trace.chosen[3] = 0;
  trace.passes = {3, 2, 1, 0};
  write_trace(trace, folder / "t.trace");
  EXPECT_THROW(read_trace(folder / "t.trace"), FormatError);
  write_file(folder / "t.trace", "nonsense");
  EXPECT_THROW(read_trace(folder / "t.trace"), FormatError);
  EXPECT_THROW(read_trace(folder / "absent.trace"), IoError);
}

}  // namespace
}  // namespace cadre::engine
