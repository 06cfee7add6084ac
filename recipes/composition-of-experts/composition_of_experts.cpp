/// Composition of Experts: classify the prompt, look its category up, let one whole model answer.
///
/// Read from top to bottom: the texts and prompts, the models, what each loses on each prompt, the
/// ways to choose a model, serving from little memory, the recipe.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <numbers>
#include <numeric>

#include "cadre/base/random.h"
#include "cadre/data/byte_text.h"
#include "cadre/ensemble/category_router.h"
#include "cadre/ensemble/grouped_queue.h"
#include "cadre/ensemble/model_map.h"
#include "cadre/ensemble/model_pool.h"
#include "cadre/formats/data_sets.h"
#include "cadre/formats/debian_domains.h"
#include "cadre/training/checkpoint.h"
#include "cadre/training/optimizer.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

namespace fs = std::filesystem;
using ensemble::CategoryRouter;
using ensemble::ModelMap;
using ensemble::ModelMapProblem;
using torch::Tensor;

// ---- Texts: six categories, and what belongs to none.

constexpr int64_t kPrompt = 128, kAnswer = 64, kWindow = kPrompt + kAnswer;

struct Text {
  std::string name, bytes;
};

std::string reference(const ArmRun& run, const std::string& code) {
  const std::string name = "debian-reference-" + code;
  return read_data(data_set_named(name), "debian-reference." + code + ".txt.gz", run.data);
}

/// The Bible, C headers and one handbook in four languages.
std::vector<Text> real_texts(const ArmRun& run) {
  constexpr int64_t kBytes = 1'000'000;
  std::vector<Text> texts;
  for (const DebianDomain& domain : debian_domains()) {
    if (domain.name != "literature" && domain.name != "code") continue;
    const Domain read = read_debian_domain(domain, {.max_bytes = kBytes});
    std::string all;
    for (const std::string& document : read.documents) all += document;
    texts.push_back({domain.name == "code" ? "code" : "prose", all.substr(0, kBytes)});
  }
  for (const auto& [code, name] : {std::pair("en", "technical"), std::pair("de", "german"),
                                   std::pair("es", "spanish"), std::pair("ja", "japanese")}) {
    texts.push_back({name, reference(run, code).substr(0, kBytes)});
  }
  return texts;
}

/// A made-up language: its own words, from its own part of the alphabet.
std::string made_up_text(uint64_t language, int64_t bytes) {
  Random random(7, {language});
  std::vector<std::string> words(40);
  for (std::string& word : words) {
    for (uint64_t i = 0, length = 2 + random.below(6); i < length; ++i) {
      word += static_cast<char>('a' + (3 * language + random.below(10)) % 26);
    }
  }
  std::string text;
  while (static_cast<int64_t>(text.size()) < bytes) {
    text += words[std::min(random.below(40), random.below(40))] + ' ';
  }
  return text;
}

std::vector<Text> texts_of(const ArmRun& run) {
  if (!run.smoke()) return real_texts(run);
  std::vector<Text> texts;
  for (const char* name : {"prose", "code", "technical", "german", "spanish", "japanese"}) {
    texts.push_back({name, made_up_text(texts.size(), 60'000)});
  }
  return texts;
}

/// Text of none of the categories: another language, base64 noise, digits.
std::vector<Text> strange_texts(const ArmRun& run) {
  Random random(run.seed, {99});
  std::string noise, digits;
  constexpr std::string_view kBase64 =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int i = 0; i < 60'000; ++i) {
    noise += i % 77 == 76 ? '\n' : kBase64[random.below(64)];
    digits += i % 7 == 6 ? ' ' : static_cast<char>('0' + random.below(10));
  }
  return {{"french", run.smoke() ? made_up_text(20, 60'000) : reference(run, "fr")},
          {"noise", noise},
          {"digits", digits}};
}

/// Of every eight blocks five train models, one each the router, the table and the test.
struct Parts {
  std::string models, router, validation, test;
};

Parts parts_of(const std::string& text) {
  constexpr size_t kBlock = 4096;
  Parts parts;
  for (size_t at = 0; at < text.size(); at += kBlock) {
    const size_t kind = at / kBlock % 8;
    std::string& part = kind == 5   ? parts.router
                        : kind == 6 ? parts.validation
                        : kind == 7 ? parts.test
                                    : parts.models;
    part += text.substr(at, kBlock);
  }
  return parts;
}

/// Prompts with the bytes that go on, and which text they are from.
struct Prompts {
  std::vector<std::string> windows;  ///< of kWindow bytes
  std::vector<std::string> texts;    ///< their first kPrompt bytes
  std::vector<int64_t> categories;

  int64_t size() const { return static_cast<int64_t>(windows.size()); }
  void draw(const std::string& text, int64_t category, int64_t count, Random random) {
    for (int64_t i = 0; i < count; ++i) {
      const std::string window = text.substr(random.below(text.size() - kWindow), kWindow);
      windows.push_back(window);
      texts.push_back(window.substr(0, kPrompt));
      categories.push_back(category);
    }
  }
};

// ---- The models: byte-level decoders of different size and diet.

struct Member {
  std::string name;
  int64_t hidden, layers, steps;
  std::vector<std::string> diet;  ///< texts; empty = all
};

std::vector<Member> members(const ArmRun& run) {
  std::vector<Member> list = {
      {"general-S", 64, 2, 200, {}},
      {"general-L", 128, 3, 500, {}},
      {"english", 96, 3, 400, {"prose", "technical"}},
      {"german-spanish", 96, 3, 400, {"german", "spanish"}},
      {"japanese", 96, 3, 300, {"japanese"}},
      {"code", 96, 3, 300, {"code"}},
  };
  if (!run.smoke()) return list;
  for (Member& member : list) {
    member.hidden = 32;
    member.layers = 1;
    member.steps = member.name == "general-S" ? 20 : member.name == "general-L" ? 90 : 60;
  }
  return list;
}
constexpr int64_t kModels = 6, kGeneral = 1, kByteVocabulary = 257;  // the bytes and an end of text

ModelConfig config_of(const Member& member) {
  return {.architecture = Architecture::kLlama,
          .vocabulary = kByteVocabulary,
          .hidden = member.hidden,
          .layers = member.layers,
          .heads = 4,
          .kv_heads = 4,
          .intermediate = member.hidden * 8 / 3,
          .max_positions = 256};
}

constexpr int64_t kBatch = 4;  ///< sequences of kWindow bytes

std::unique_ptr<LanguageModel> train(const ArmRun& run, const Member& member, uint64_t seed,
                                     const std::vector<ByteDomain>& all) {
  std::vector<ByteDomain> diet;
  for (const ByteDomain& domain : all) {
    const auto& names = member.diet;
    if (names.empty() || std::find(names.begin(), names.end(), domain.name) != names.end()) {
      diet.push_back(domain);
    }
  }
  const ByteText text(diet, kBatch, kWindow, seed);
  auto model = std::make_unique<LanguageModel>(config_of(member), seed);
  NamedTensors parameters;
  for (const auto& item : model->decoder()->named_parameters()) {
    parameters.emplace_back(item.key(), item.value());
  }
  AdamW adam(parameters, {});
  const CosineSchedule schedule{
      .lr = 3e-3, .warmup_steps = member.steps / 10, .total_steps = member.steps};
  run.steps(member.steps, [&](int64_t step) {
    const TokenBatch batch = text.at(step);
    model->loss(batch.inputs, batch.targets, step, member.steps).total.backward();
    adam.step(schedule.at(step));
  });
  return model;
}

/// Bits a byte of the answers' bytes, a number a prompt.
std::vector<double> bits_of(LanguageModel& model, const Prompts& prompts) {
  constexpr int64_t kRows = 64;
  std::vector<double> bits;
  for (int64_t first = 0; first < prompts.size(); first += kRows) {
    const int64_t rows = std::min(kRows, prompts.size() - first);
    Tensor ids = torch::empty({rows, kWindow}, torch::kInt64);
    auto* id = ids.data_ptr<int64_t>();
    for (int64_t row = 0; row < rows; ++row) {
      for (const char byte : prompts.windows[first + row]) *id++ = static_cast<uint8_t>(byte);
    }
    const Tensor losses = model.evaluate(ids.slice(1, 0, kWindow - 1).contiguous(),
                                         ids.slice(1, 1, kWindow).contiguous());
    const Tensor mean = losses.slice(1, kPrompt - 1, kWindow - 1).mean(1).contiguous();
    const auto* value = mean.data_ptr<float>();
    for (int64_t row = 0; row < rows; ++row) bits.push_back(value[row] * std::numbers::log2e);
  }
  return bits;
}

// ---- Everything that one seed trains and measures; arms only choose.

struct World {
  std::vector<std::string> categories;
  std::vector<Member> models;
  std::vector<int64_t> sizes;
  std::vector<std::unique_ptr<LanguageModel>> trained;
  Prompts router, validation, test, strange;
  /// Of every model, a number a prompt.
  using Bits = std::vector<std::vector<double>>;
  Bits router_bits, validation_bits, test_bits, strange_bits;
};

void draw_prompts(const ArmRun& run, const std::vector<Text>& texts, World& world,
                  std::vector<ByteDomain>& domains) {
  const int64_t part = run.smoke() ? 3 : 1;
  for (size_t c = 0; c < texts.size(); ++c) {
    const Parts parts = parts_of(texts[c].bytes);
    const auto category = static_cast<int64_t>(c);
    const auto stream = [&](uint64_t kind) { return Random(run.seed, {kind, c}); };
    world.categories.push_back(texts[c].name);
    domains.push_back({texts[c].name, parts.models, parts.validation});
    world.router.draw(parts.router, category, 150 / part, stream(1));
    world.validation.draw(parts.validation, category, 100 / part, stream(2));
    world.test.draw(parts.test, category, 120 / part, stream(3));
  }
  for (const Text& text : strange_texts(run)) {
    world.strange.draw(text.bytes, -1, 60 / part, Random(run.seed, {4, text.bytes.size()}));
  }
}

/// Arms of one seed share it.
const World& world_of(const ArmRun& run) {
  static std::map<uint64_t, World> kept;
  if (const auto found = kept.find(run.seed); found != kept.end()) return found->second;
  World world;
  std::vector<ByteDomain> domains;
  draw_prompts(run, texts_of(run), world, domains);
  world.models = members(run);
  for (size_t m = 0; m < world.models.size(); ++m) {
    const Member& member = world.models[m];
    world.sizes.push_back(count_parameters(config_of(member)).total);
    world.trained.push_back(train(run, member, 100 * run.seed + m, domains));
    LanguageModel& model = *world.trained.back();
    world.router_bits.push_back(bits_of(model, world.router));
    world.validation_bits.push_back(bits_of(model, world.validation));
    world.test_bits.push_back(bits_of(model, world.test));
    world.strange_bits.push_back(bits_of(model, world.strange));
  }
  return kept.emplace(run.seed, std::move(world)).first->second;
}

/// Mean losses [C, M] and their standard errors.
ModelMapProblem table_of(const World& world, const Prompts& prompts, const World::Bits& bits) {
  const auto categories = static_cast<int64_t>(world.categories.size());
  ModelMapProblem problem{.categories = categories, .models = kModels};
  problem.share.assign(categories, 1.0 / static_cast<double>(categories));
  problem.size = world.sizes;
  for (int64_t c = 0; c < categories; ++c) {
    for (int64_t m = 0; m < kModels; ++m) {
      std::vector<double> values;
      for (int64_t i = 0; i < prompts.size(); ++i) {
        if (prompts.categories[i] == c) values.push_back(bits[m][i]);
      }
      const Spread spread = spread_of(values);
      problem.loss.push_back(spread.mean);
      problem.error.push_back(spread.deviation / std::sqrt(static_cast<double>(values.size())));
    }
  }
  return problem;
}

// ---- Ways to choose a model.

CategoryRouter fitted_router(const World& world) {
  CategoryRouter router(world.router.texts, world.router.categories);
  router.calibrate(world.validation.texts, world.validation.categories);
  return router;
}

/// Category -> model, the general model included.
ModelMap map_of(const ArmRun& run, const World& world) {
  ModelMapProblem problem = table_of(world, world.validation, world.validation_bits);
  problem.general = kGeneral;
  ModelMap map = best_model_map(problem);
  if (run.sabotaged()) std::rotate(map.model.begin(), map.model.begin() + 1, map.model.end());
  return map;
}

using Chooser = std::function<int64_t(const std::string& prompt)>;

enum class Unsure { kNever, kByEntropy, kByDistance };

Chooser two_step(const ArmRun& run, const World& world, Unsure unsure) {
  using Confidence = CategoryRouter::Answer::Confidence;
  const auto router = std::make_shared<CategoryRouter>(fitted_router(world));
  const ModelMap map = map_of(run, world);
  const auto known = std::make_shared<ensemble::NearestTexts>(world.router.texts);
  double farthest = std::numeric_limits<double>::infinity();
  if (unsure == Unsure::kByDistance) {
    std::vector<double> distances;
    for (const auto& text : world.validation.texts) distances.push_back(known->distance(text));
    std::sort(distances.begin(), distances.end());
    farthest = distances[distances.size() * 95 / 100];
  }
  return [=](const std::string& prompt) {
    const auto answer = router->route(prompt);
    if (unsure == Unsure::kByEntropy && answer.confidence == Confidence::kUnsure) return kGeneral;
    if (unsure == Unsure::kByDistance && known->distance(prompt) > farthest) return kGeneral;
    return map.model[answer.category];
  };
}

std::vector<int64_t> best_models(const World::Bits& bits) {
  std::vector<int64_t> best(bits[0].size());
  for (size_t i = 0; i < best.size(); ++i) {
    for (int64_t m = 1; m < kModels; ++m) {
      if (bits[m][i] < bits[best[i]][i]) best[i] = m;
    }
  }
  return best;
}

/// Which model is best, learned prompt by prompt.
Chooser direct(const World& world) {
  const auto labels = best_models(world.router_bits);
  const auto router = std::make_shared<CategoryRouter>(world.router.texts, labels);
  return [router](const std::string& prompt) { return router->route(prompt).category; };
}

struct Outcome {
  double bits = 0, active = 0;
};

Outcome outcome(const World& world, const std::vector<int64_t>& choices, const World::Bits& bits) {
  Outcome sum;
  for (size_t i = 0; i < choices.size(); ++i) {
    sum.bits += bits[choices[i]][i];
    sum.active += static_cast<double>(world.sizes[choices[i]]);
  }
  const auto n = static_cast<double>(choices.size());
  return {sum.bits / n, sum.active / n};
}

std::vector<int64_t> choices_of(const Chooser& choose, const Prompts& prompts) {
  std::vector<int64_t> choices;
  for (const std::string& text : prompts.texts) choices.push_back(choose(text));
  return choices;
}

Measurements measure(const World& world, const Chooser& choose) {
  Measurements result;
  const Outcome test = outcome(world, choices_of(choose, world.test), world.test_bits);
  const Outcome strange = outcome(world, choices_of(choose, world.strange), world.strange_bits);
  result.values = {{"bits", test.bits}, {"active", test.active / 1000}, {"strange", strange.bits}};
  return result;
}

Measurements measure_choices(const World& world, const std::vector<int64_t>& choices) {
  const Outcome test = outcome(world, choices, world.test_bits);
  Measurements result;
  result.values = {{"bits", test.bits}, {"active", test.active / 1000}};
  return result;
}

Measurements measure_category_oracle(const World& world) {
  const ModelMap map = best_model_map(table_of(world, world.test, world.test_bits));
  std::vector<int64_t> choices;
  for (const int64_t category : world.test.categories) choices.push_back(map.model[category]);
  return measure_choices(world, choices);
}

Measurements measure_random(const ArmRun& run, const World& world) {
  Random random(run.seed, {5});
  return measure(world,
                 [&](const std::string&) { return static_cast<int64_t>(random.below(kModels)); });
}

/// Shares of the 5 nearest prompts that have another category, or another best model.
void measure_jitter(const World& world, Measurements& result) {
  constexpr int kNearest = 5;
  const auto best = best_models(world.router_bits);
  std::vector<ensemble::SparseFeatures> features;
  for (const auto& text : world.router.texts) features.push_back(ensemble::ngram_features(text));
  const auto n = static_cast<int64_t>(features.size());
  double other_best = 0, other_category = 0;
  for (int64_t i = 0; i < n; ++i) {
    std::vector<std::pair<double, int64_t>> near;
    for (int64_t j = 0; j < n; ++j) {
      if (j != i) near.emplace_back(-ensemble::dot(features[i], features[j]), j);
    }
    std::partial_sort(near.begin(), near.begin() + kNearest, near.end());
    for (int k = 0; k < kNearest; ++k) {
      other_best += best[near[k].second] != best[i];
      other_category += world.router.categories[near[k].second] != world.router.categories[i];
    }
  }
  const auto pairs = static_cast<double>(n * kNearest);
  result.values["jitter"] = other_best / pairs;
  result.values["impurity"] = other_category / pairs;
}

/// The least validation loss at each budget, and what that map loses on the test prompts.
void measure_budgets(const World& world, const CategoryRouter& router, Measurements& result) {
  ModelMapProblem problem = table_of(world, world.validation, world.validation_bits);
  const int64_t all = std::accumulate(world.sizes.begin(), world.sizes.end(), int64_t{0});
  double before = std::numeric_limits<double>::infinity(), rise = 0;
  for (const int percent : {20, 40, 60, 80, 100}) {
    problem.budget = all * percent / 100;
    const ModelMap map = best_model_map(problem);
    rise = std::max(rise, map.loss - before);
    before = map.loss;
    const auto choices = choices_of(
        [&](const std::string& prompt) { return map.model[router.route(prompt).category]; },
        world.test);
    const Outcome test = outcome(world, choices, world.test_bits);
    result.values[fmt::format("budget/{}", percent)] = test.bits;
    for (const auto& [name, y] :
         {std::pair("validation", map.loss), std::pair("test", test.bits)}) {
      result.curves[name].x.push_back(percent);
      result.curves[name].y.push_back(y);
    }
  }
  result.values["rise"] = rise;
}

Measurements measure_coe(const ArmRun& run) {
  const World& world = world_of(run);
  Measurements result = measure(world, two_step(run, world, Unsure::kByEntropy));
  const CategoryRouter router = fitted_router(world);
  double right = 0;
  for (int64_t i = 0; i < world.test.size(); ++i) {
    right += router.route(world.test.texts[i]).category == world.test.categories[i];
  }
  result.values["accuracy"] = right / static_cast<double>(world.test.size());
  measure_jitter(world, result);
  measure_budgets(world, router, result);
  return result;
}

// ---- Serving: the models as checkpoints, opened by the engine in room for two.

class Checkpoints {
 public:
  explicit Checkpoints(const World& world)
      : folder_(fs::temp_directory_path() / fmt::format("cadre-coe-{}", ::getpid())) {
    const std::string_view text = "x";
    const auto tokenizer = Tokenizer::train(std::span(&text, 1), {.vocabulary = kByteVocabulary});
    for (size_t m = 0; m < world.models.size(); ++m) {
      save_checkpoint(folder_ / world.models[m].name, *world.trained[m], tokenizer);
      paths_.push_back(folder_ / world.models[m].name);
    }
  }
  ~Checkpoints() { fs::remove_all(folder_); }
  Checkpoints(const Checkpoints&) = delete;
  Checkpoints& operator=(const Checkpoints&) = delete;
  const std::vector<fs::path>& paths() const { return paths_; }

 private:
  fs::path folder_;
  std::vector<fs::path> paths_;
};

struct Request {
  int64_t prompt, model;
};

/// Eight bytes, each the likeliest.
std::vector<TokenId> answer(const std::shared_ptr<engine::Model>& model,
                            const std::string& prompt) {
  std::vector<TokenId> next;
  for (const char byte : prompt) next.push_back(static_cast<uint8_t>(byte));
  engine::Session session(model);
  std::vector<TokenId> written;
  for (int i = 0; i < 8; ++i) {
    const std::vector<float> logits = session.feed(next);
    next = {static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin())};
    written.push_back(next[0]);
  }
  return written;
}

struct Served {
  double loads = 0, most_overtaken = 0, over_budget = 0;
  std::vector<std::vector<TokenId>> answers;
};

Served serve(const World& world, const std::vector<fs::path>& paths, const ArmRun& run,
             const std::vector<Request>& requests, int64_t window) {
  engine::ModelOptions options{.threads = 1, .context = 160};
  const ensemble::ModelPool sizes(paths, options);
  int64_t largest = 0;
  for (int64_t m = 0; m < kModels; ++m) largest = std::max(largest, sizes.need(m).resident);
  options.memory = sizes.process() + 2 * largest;
  ensemble::ModelPool pool(paths, options);

  ensemble::GroupedQueue queue(window);
  for (size_t i = 0; i < requests.size(); ++i) {
    queue.push({static_cast<int64_t>(i), requests[i].model});
  }
  Served served;
  served.answers.resize(requests.size());
  std::vector<int64_t> order;
  run.steps(static_cast<int64_t>(requests.size()), [&](int64_t) {
    const auto item = queue.pop([&](int64_t model) { return pool.is_open(model); });
    const std::string& prompt = world.test.texts[requests[item.id].prompt];
    served.answers[item.id] = answer(pool.get(item.model).model, prompt);
    order.push_back(item.id);
    served.over_budget = std::max(
        served.over_budget, static_cast<double>(pool.used() + pool.process() - options.memory));
  });
  for (size_t i = 0; i < order.size(); ++i) {
    const auto later = std::count_if(order.begin(), order.begin() + static_cast<int64_t>(i),
                                     [&](int64_t id) { return id > order[i]; });
    served.most_overtaken = std::max(served.most_overtaken, static_cast<double>(later));
  }
  served.loads = static_cast<double>(pool.loads());
  return served;
}

Measurements measure_serving(const ArmRun& run) {
  const World& world = world_of(run);
  const Chooser choose = two_step(run, world, Unsure::kByEntropy);
  Random random(run.seed, {6});
  std::vector<Request> requests;
  for (int i = 0; i < 200; ++i) {
    const auto prompt = static_cast<int64_t>(random.below(world.test.size()));
    requests.push_back({prompt, choose(world.test.texts[prompt])});
  }
  const Checkpoints checkpoints(world);
  const Served by_arrival = serve(world, checkpoints.paths(), run, requests, 0);
  const Served grouped = serve(world, checkpoints.paths(), run, requests, 16);
  double different = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    different += by_arrival.answers[i] != grouped.answers[i];
  }
  Measurements result;
  result.values = {{"loads", by_arrival.loads},
                   {"grouped_loads", grouped.loads},
                   {"different", different},
                   {"overtaken", grouped.most_overtaken},
                   {"over_budget", std::max(by_arrival.over_budget, grouped.over_budget)}};
  return result;
}

// ---- What counts.

Figure ratio(const std::string& value, const std::string& arm, const std::string& base) {
  return [=](const At& at) { return at(arm, value) / at(base, value); };
}

double best_single(const At& at, const std::vector<std::string>& singles) {
  double best = std::numeric_limits<double>::infinity();
  for (const std::string& name : singles) best = std::min(best, at(name, "bits"));
  return best;
}

void accept(Criterion& criterion, const std::vector<std::string>& singles) {
  const auto coe = [](const std::string& value) {
    return [value](const At& at) { return at("coe", value); };
  };
  criterion.every_seed("accuracy of the category router", coe("accuracy"), at_least(0.93));
  criterion.on_means(
      "bits a byte, CoE / best single model",
      [singles](const At& at) { return at("coe", "bits") / best_single(at, singles); },
      at_most(0.97));
  criterion.on_means("bits a byte, CoE / oracle of categories",
                     ratio("bits", "coe", "oracle-category"), at_most(1.03));
  criterion.every_seed("rise of the validation loss with the budget", coe("rise"), at_most(1e-12));
  criterion.on_means("bits a byte of strange prompts, CoE / never unsure",
                     ratio("strange", "coe", "never-unsure"), at_most(0.9999));
  criterion.on_means("bits a byte, CoE / never unsure", ratio("bits", "coe", "never-unsure"),
                     at_most(1.01));
  if (!criterion.smoke()) {
    criterion.on_means("bits a byte, CoE / direct router", ratio("bits", "coe", "direct"),
                       at_most(1.005));
    criterion.on_means("active parameters, CoE / direct router", ratio("active", "coe", "direct"),
                       at_most(1));
    criterion.on_means(
        "jitter of best models / impurity of categories",
        [](const At& at) { return at("coe", "jitter") / at("coe", "impurity"); }, more_than(2));
  }
  const auto served = [](const std::string& value) {
    return [value](const At& at) { return at("serving", value); };
  };
  criterion.every_seed(
      "models opened, grouped / by arrival",
      [](const At& at) { return at("serving", "grouped_loads") / at("serving", "loads"); },
      at_most(0.6));
  criterion.every_seed("answers that differ", served("different"), at_most(0));
  criterion.every_seed("prompts that overtook one, at most", served("overtaken"), at_most(16));
  criterion.every_seed("bytes beyond the budget", served("over_budget"), at_most(0));
}

std::vector<Picture> pictures(const Results& results) {
  std::vector<Series> series = results.series({"coe"}, "test");
  series.front().name = "test prompts";
  std::vector<Series> validation = results.series({"coe"}, "validation");
  validation.front().name = "validation table";
  series.push_back(validation.front());
  return {{"budget.svg", LineChart{.title = "loss by the budget for all models",
                                   .x_label = "parameters, % of all six models",
                                   .y_label = "bits a byte",
                                   .series = series}}};
}

Arm chooser_arm(const std::string& name, const std::string& help,
                const std::function<Measurements(const ArmRun&, const World&)>& measure_it) {
  return {name, help, [measure_it](const ArmRun& run) { return measure_it(run, world_of(run)); }};
}

}  // namespace

Recipe composition_of_experts(const Setting&) {
  std::vector<std::string> singles;
  for (const Member& member : members({})) singles.push_back(member.name);
  Recipe recipe = {
      .stub = "the map is turned: every category gets the next one's model",
      .arms = {{"coe", "category router and map, general model when unsure", measure_coe},
               chooser_arm("coe-distance", "the same, unsure by distance to known prompts",
                           [](const ArmRun& run, const World& world) {
                             return measure(world, two_step(run, world, Unsure::kByDistance));
                           }),
               chooser_arm("never-unsure", "the same, never unsure",
                           [](const ArmRun& run, const World& world) {
                             return measure(world, two_step(run, world, Unsure::kNever));
                           }),
               chooser_arm(
                   "direct", "a router that learned each prompt's best model",
                   [](const ArmRun&, const World& world) { return measure(world, direct(world)); }),
               chooser_arm("random", "any model", measure_random),
               chooser_arm("oracle-category", "the best map for the test prompts' true categories",
                           [](const ArmRun&, const World& world) {
                             return measure_category_oracle(world);
                           }),
               chooser_arm("oracle-prompt", "each test prompt's best model",
                           [](const ArmRun&, const World& world) {
                             return measure_choices(world, best_models(world.test_bits));
                           })},
      .accept = [singles](Criterion& criterion) { accept(criterion, singles); },
      .pictures = pictures};
  for (size_t m = 0; m < singles.size(); ++m) {
    recipe.arms.push_back(
        chooser_arm(singles[m], "this model alone", [m](const ArmRun&, const World& world) {
          return measure(world, [m](const std::string&) { return static_cast<int64_t>(m); });
        }));
  }
  recipe.arms.push_back(
      {"serving", "200 prompts, room for two of the six models in memory", measure_serving});
  const std::vector<std::string> choosers = {"coe", "coe-distance", "never-unsure", "direct",
                                             "random"};
  std::vector<std::string> with_strange = choosers;
  with_strange.insert(with_strange.end(), singles.begin(), singles.end());
  recipe.tables = {
      {.title = "Bits a byte of the 64 bytes after a prompt of 128",
       .arms = with_strange,
       .columns = {{"bits", "bits a byte", 3},
                   {"active", "active parameters, thousands", 0},
                   {"strange", "bits a byte of strange prompts", 3}}},
      {.title = "What hindsight would choose",
       .arms = {"oracle-category", "oracle-prompt"},
       .columns = {{"bits", "bits a byte", 3}, {"active", "active parameters, thousands", 0}}},
      {.title = "The router, and the map within a share of all parameters (bits a byte)",
       .arms = {"coe"},
       .columns = {{"accuracy", "accuracy", 3},
                   {"jitter", "jitter of best models", 3},
                   {"impurity", "impurity of categories", 3},
                   {"budget/20", "20 %", 3},
                   {"budget/40", "40 %", 3},
                   {"budget/60", "60 %", 3},
                   {"budget/80", "80 %", 3},
                   {"budget/100", "100 %", 3}}},
      {.title = "200 prompts in random order, room for two models: models opened",
       .arms = {"serving"},
       .columns = {{"loads", "by arrival", 0},
                   {"grouped_loads", "grouped", 0},
                   {"overtaken", "most overtaken", 0}}}};
  return recipe;
}

}  // namespace cadre::recipes
