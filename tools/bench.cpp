/// cadre bench: how fast a model runs here.

#include <algorithm>
#include <iostream>

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/random.h"
#include "cadre/base/table.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "tools/common/engine_options.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using Json = nlohmann::ordered_json;

struct Options {
  EngineOptions engine;
  int64_t prompt_tokens = 512, tokens = 64, repeat = 3;
  bool json = false;
};

struct Measurement {
  double prefill = 0, decode = 0;  ///< tokens per second
  engine::ExpertCounters before, after_prefill, after;
};

/// Every run has tokens of its own, so that no cache knows them already.
std::vector<TokenId> random_prompt(int64_t length, int64_t vocabulary, uint64_t seed) {
  Random random(seed);
  std::vector<TokenId> tokens(static_cast<size_t>(length));
  for (TokenId& token : tokens) {
    token = static_cast<TokenId>(random.below(static_cast<uint64_t>(vocabulary)));
  }
  return tokens;
}

Measurement measure(const std::shared_ptr<engine::Model>& model, const Options& options,
                    uint64_t seed) {
  const auto prompt = random_prompt(options.prompt_tokens, model->spec().vocabulary, seed);
  engine::Session session(model);
  Measurement result{.before = model->expert_counters()};
  Stopwatch watch;
  std::vector<float> logits = session.feed(prompt);
  result.prefill = static_cast<double>(options.prompt_tokens) / watch.seconds();
  result.after_prefill = model->expert_counters();
  watch.restart();
  for (int64_t i = 0; i < options.tokens; ++i) {
    const auto best = static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
    logits = session.feed(std::span(&best, 1));
  }
  result.decode = static_cast<double>(options.tokens) / watch.seconds();
  result.after = model->expert_counters();
  return result;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double share(int64_t hits, int64_t misses) {
  return engine::hit_rate({.hits = hits, .misses = misses});
}

Json summarise(const std::vector<Measurement>& runs) {
  Json list = Json::array();
  std::vector<double> prefill, decode, hits, stalls;
  for (const Measurement& run : runs) {
    const auto& [from, to] = std::pair(run.after_prefill, run.after);
    prefill.push_back(run.prefill);
    decode.push_back(run.decode);
    hits.push_back(share(to.hits - from.hits, to.misses - from.misses));
    stalls.push_back(to.stall_seconds - from.stall_seconds);
    list.push_back({{"prefill_tokens_per_second", run.prefill},
                    {"decode_tokens_per_second", run.decode},
                    {"decode_hit_rate", hits.back()},
                    {"decode_stall_seconds", stalls.back()},
                    {"decode_bytes_read", to.bytes_read - from.bytes_read},
                    {"prefill_bytes_read", from.bytes_read - run.before.bytes_read}});
  }
  return {{"prefill_tokens_per_second", median(prefill)},
          {"decode_tokens_per_second", median(decode)},
          {"decode_hit_rate", median(hits)},
          {"decode_stall_seconds", median(stalls)},
          {"peak_resident_bytes", peak_resident_bytes()},
          {"runs", list}};
}

void print(const Json& result, const Options& options) {
  Table table({"what", "median", "of"});
  const auto speed = [&](const char* key) {
    return fmt::format("{:.2f} tokens/s", result[key].get<double>());
  };
  table.add_row({"prefill", speed("prefill_tokens_per_second"),
                 fmt::format("{} tokens, {} runs", options.prompt_tokens, options.repeat)});
  table.add_row({"decode", speed("decode_tokens_per_second"),
                 fmt::format("{} tokens, {} runs", options.tokens, options.repeat)});
  table.add_row({"expert hits",
                 fmt::format("{:.1f} %", 100 * result["decode_hit_rate"].get<double>()),
                 "decoding"});
  table.add_row({"peak memory", format_bytes(result["peak_resident_bytes"].get<uint64_t>()),
                 "the whole process"});
  std::cout << table.str();
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("bench");
  add_engine_options(line, options.engine);
  add_routing_options(line, options.engine.routing);
  line.add("bench", "--prompt-tokens", options.prompt_tokens, "Tokens of the prompt (random ones)")
      ->check(CLI::PositiveNumber);
  line.add("bench", "--tokens", options.tokens, "Tokens to decode after it")
      ->check(CLI::PositiveNumber);
  line.add("bench", "--repeat", options.repeat, "Measure so often and give the median")
      ->check(CLI::PositiveNumber);
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
  if (const auto done = line.parse(argc, argv)) return *done;

  const Stopwatch watch;
  const auto model = open_model(options.engine, line.threads());
  const double load_seconds = watch.seconds();
  const int64_t context = context_of(options.engine, model->spec());
  if (options.prompt_tokens + options.tokens > context) {
    throw UsageError(
        "--prompt-tokens and --tokens are {} together, the context is {}; set --context",
        options.prompt_tokens + options.tokens, context);
  }
  std::vector<Measurement> runs;
  for (int64_t i = 0; i < options.repeat; ++i) {
    runs.push_back(measure(model, options, static_cast<uint64_t>(i) + 1));
  }
  Json result = {{"model", options.engine.model},
                 {"prompt_tokens", options.prompt_tokens},
                 {"tokens", options.tokens},
                 {"load_seconds", load_seconds}};
  result.update(summarise(runs));
  if (options.json) {
    std::cout << pretty(result);
  } else {
    print(result, options);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("bench", [&] { return run(argc, argv); });
}
