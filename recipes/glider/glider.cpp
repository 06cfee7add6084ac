/// Glider: which of many LoRA adapters work on a token, by the token in every module and by what
/// the task's instruction says.
///
/// Read from top to bottom: the tasks and their instructions, the frozen model and its adapters,
/// their training, routing, what is measured, the recipe.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>

#include "cadre/base/random.h"
#include "cadre/formats/debian_domains.h"
#include "cadre/nn/attention.h"
#include "cadre/nn/feed_forward.h"
#include "cadre/nn/linear.h"
#include "cadre/nn/norm.h"
#include "cadre/reshape/adapter_router.h"
#include "recipes/harness/small_moe.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

using reshape::LocalScores;
using torch::Tensor;

// ---- Tasks: every byte of a text gets a label; all tasks read the same texts.

enum class Class { kVowel, kConsonant, kOther };

int64_t class_of(uint8_t byte) {
  if (std::isalpha(byte) == 0) return static_cast<int64_t>(Class::kOther);
  const bool vowel =
      std::string_view("aeiouAEIOU").find(static_cast<char>(byte)) != std::string::npos;
  return static_cast<int64_t>(vowel ? Class::kVowel : Class::kConsonant);
}

/// What a label may depend on: a byte, its neighbours, the word so far.
struct Place {
  uint8_t now, before, next;
  int64_t in_word, words;  ///< letters of this word before now; words begun so far
  uint8_t first;           ///< of the word; 0 outside
};

struct Task {
  std::string name;
  std::function<int64_t(const Place&)> label;
  /// The adapter's instruction, a user's with other words, and another user's, which sets the
  /// threshold. Held-out tasks have no adapter: their first is not used.
  std::array<std::string, 3> instructions;
};

constexpr int64_t kHeldIn = 8;

/// Eight tasks with adapters, then four compositions without.
const std::vector<Task>& tasks() {
  static const std::vector<Task> list = {
      {"next",
       [](const Place& p) { return p.next; },
       {"Predict the next byte of the text, as a language model that continues a passage does.",
        "Continue the passage: give the following byte, as a language model would predict it next.",
        "Act as a language model and predict which byte of the passage comes next."}},
      {"upper",
       [](const Place& p) { return std::toupper(p.now); },
       {"Rewrite the current byte in upper case and leave everything that is no letter unchanged.",
        "Turn each current letter into upper case and leave what is no letter unchanged.",
        "Give the current byte back in upper case, everything else unchanged."}},
      {"plus-one",
       [](const Place& p) { return (p.now + 1) % 256; },
       {"Add one to the numeric value of the current byte and output the sum modulo 256.",
        "Output the current byte's numeric value incremented: add one, modulo 256.",
        "Increment the numeric value of the current byte by one, modulo 256, and output the sum."}},
      {"previous",
       [](const Place& p) { return p.before; },
       {"Copy the previous byte: output the byte that stood one position earlier, a delay line.",
        "Delay the text by one position: copy the byte that came one earlier.",
        "Work as a delay line and copy the byte that stood one position earlier."}},
      {"vowel",
       [](const Place& p) { return class_of(p.now); },
       {"Classify the current character as vowel, consonant or other symbol, a phonetic category.",
        "Say which phonetic category the current character has: vowel, consonant or other symbol.",
        "Classify phonetic categories: is the current character a vowel, a consonant or another "
        "symbol?"}},
      {"position",
       [](const Place& p) { return std::min<int64_t>(p.in_word, 15); },
       {"Count how many letters deep inside the word we are: the position index within the word.",
        "Give the position index within the word, counting letters from the start of the word.",
        "Count letters inside the word and give the position index within it."}},
      {"words",
       [](const Place& p) { return p.words % 8; },
       {"Keep a running total of the words seen so far in the passage and report the total modulo "
        "eight.",
        "Report the running total of words seen so far, modulo eight.",
        "Keep a running total of words seen so far in the passage, modulo eight."}},
      {"case",
       [](const Place& p) { return std::isupper(p.first) != 0 ? 1 : 0; },
       {"Flag whether the word begins with a capital initial, a binary flag for proper names.",
        "Raise a binary flag when the word's initial is capital, as with proper names.",
        "Give a binary flag: does the word begin with a capital initial, as proper names do?"}},
      {"previous-upper",
       [](const Place& p) { return std::toupper(p.before); },
       {"", "Shift by a step, then capitalise: give the upper case form of what came before.",
        "Emit what came before, capitalised."}},
      {"previous-plus-one",
       [](const Place& p) { return (p.before + 1) % 256; },
       {"", "Look a step back and emit its successor in the byte table.",
        "Emit the successor of what was seen a step ago."}},
      {"previous-vowel",
       [](const Place& p) { return class_of(p.before); },
       {"", "Tell the sound type of the symbol a step back: open sound, closed sound or none.",
        "Which type of sound was seen a step ago?"}},
      {"next-vowel",
       [](const Place& p) { return class_of(p.next); },
       {"", "Forecast the sound type of the symbol to come: open sound, closed sound or none.",
        "Which type of sound is about to come?"}},
  };
  return list;
}

std::string made_up_text(int64_t bytes) {
  Random random(3);
  std::string text;
  while (static_cast<int64_t>(text.size()) < bytes) {
    const auto length = 2 + random.below(6);
    const bool capital = random.below(5) == 0;
    for (uint64_t i = 0; i < length; ++i) {
      const char letter = "etaoinshrdlu"[random.below(12)];
      text += static_cast<char>(i == 0 && capital ? std::toupper(letter) : letter);
    }
    text += random.below(8) == 0 ? ". " : " ";
  }
  return text;
}

struct Texts {
  std::string train, test;
};

Texts texts_of(const ArmRun& run) {
  std::string text;
  if (run.smoke()) {
    text = made_up_text(60'000);
  } else {
    for (const DebianDomain& domain : debian_domains()) {
      if (domain.name != "literature") continue;
      for (const std::string& part :
           read_debian_domain(domain, {.max_bytes = 1'000'000}).documents) {
        text += part;
      }
    }
  }
  const size_t cut = text.size() * 9 / 10;
  return {text.substr(0, cut), text.substr(cut)};
}

struct Examples {
  Tensor ids, labels;        ///< [B, T]; label -100 = not counted
  std::vector<char> marked;  ///< [B]
};

/// Windows of text under a task. Every second one begins with the task's two-byte marker; the first
/// two labels never count.
Examples draw(const std::string& text, int64_t task, int64_t count, int64_t length, Random random,
              bool markers = true) {
  Examples examples{torch::empty({count, length}, torch::kInt64),
                    torch::empty({count, length}, torch::kInt64), std::vector<char>(count)};
  for (int64_t row = 0; row < count; ++row) {
    const std::string_view window = std::string_view(text).substr(
        random.below(text.size() - static_cast<size_t>(length) - 2), length + 2);
    auto* id = examples.ids[row].data_ptr<int64_t>();
    auto* label = examples.labels[row].data_ptr<int64_t>();
    Place place{};
    for (int64_t t = 0; t < length; ++t) {
      place.before = window[t];
      place.now = window[t + 1];
      place.next = window[t + 2];
      const bool letter = std::isalpha(place.now) != 0;
      if (letter && place.first == 0) {
        place.first = place.now;
        place.in_word = 0;
        ++place.words;
      } else {
        place.in_word = letter ? place.in_word + 1 : 0;
      }
      if (!letter) place.first = 0;
      id[t] = place.now;
      label[t] = t < 2 ? -100 : tasks()[task].label(place);
    }
    examples.marked[row] = static_cast<char>(markers && row % 2 == 0);
    if (examples.marked[row] != 0) {
      id[0] = 1;
      id[1] = 2 + task;
    }
  }
  return examples;
}

// ---- The model: a causal byte transformer whose linear layers are modules that adapters sit on.

struct Size3 {
  int64_t hidden, layers, inner, heads;
};
Size3 size_of(const ArmRun& run) {
  return run.smoke() ? Size3{32, 1, 64, 2} : Size3{96, 3, 256, 4};
}
constexpr int64_t kBytes = 256, kRank = 4;
enum Part { kQuery, kKey, kValue, kOutput, kGate, kUp, kDown, kParts };

struct Base : torch::nn::Module {
  explicit Base(const Size3& size) : size(size) {
    const int64_t d = size.hidden, h = size.inner;
    embedding = register_parameter("embedding", 0.02 * torch::randn({kBytes, d}));
    for (int64_t layer = 0; layer < size.layers; ++layer) {
      for (const auto& [in, out] :
           {std::pair(d, d), {d, d}, {d, d}, {d, d}, {d, h}, {d, h}, {h, d}}) {
        add_module(in, out);
      }
      for (int i = 0; i < 2; ++i) add_norm(d);
    }
    add_module(d, kBytes);  // the output head
    add_norm(d);
  }
  void add_module(int64_t in, int64_t out) {
    const double std = 1 / std::sqrt(static_cast<double>(in));
    weights.push_back(
        register_parameter(fmt::format("w{}", weights.size()), std * torch::randn({out, in})));
  }
  void add_norm(int64_t d) {
    norms.push_back(register_parameter(fmt::format("n{}", norms.size()), torch::ones({d})));
  }

  Size3 size;
  Tensor embedding;
  std::vector<Tensor> weights;  ///< of the modules: kParts a layer, then the head
  std::vector<Tensor> norms;    ///< two a layer, then the last
};

/// What a module computes from its input [N, in].
using Apply = std::function<Tensor(int64_t module, const Tensor& x)>;

Tensor logits(const Base& base, const Tensor& ids, const Apply& apply) {
  const int64_t b = ids.size(0), t = ids.size(1), d = base.size.hidden, heads = base.size.heads;
  static std::map<int64_t, std::shared_ptr<RotaryTable>> tables;
  auto& table = tables[d / heads];
  if (!table) table = std::make_shared<RotaryTable>(128, d / heads);
  const Tensor positions = torch::arange(t);
  const auto heads_of = [&](const Tensor& x) { return x.view({b, t, heads, d / heads}); };
  Tensor x = torch::embedding(base.embedding, ids).view({b * t, d});
  for (int64_t layer = 0; layer < base.size.layers; ++layer) {
    const int64_t m = layer * kParts;
    Tensor u = rms_norm(x, base.norms[2 * layer], 1e-6);
    const Tensor attended =
        scaled_dot_product_attention(rotary(heads_of(apply(m + kQuery, u)), positions, *table),
                                     rotary(heads_of(apply(m + kKey, u)), positions, *table),
                                     heads_of(apply(m + kValue, u)), kernels::Mask::kCausal);
    x = x + apply(m + kOutput, attended.reshape({b * t, d}));
    u = rms_norm(x, base.norms[2 * layer + 1], 1e-6);
    x = x + apply(m + kDown, torch::silu(apply(m + kGate, u)) * apply(m + kUp, u));
  }
  const auto head = static_cast<int64_t>(base.weights.size()) - 1;
  return apply(head, rms_norm(x, base.norms.back(), 1e-6));
}

Apply plain(const Base& base) {
  return
      [&base](int64_t module, const Tensor& x) { return cadre::linear(x, base.weights[module]); };
}

/// A [rank, in] and B [out, rank] of every module.
struct Adapter : torch::nn::Module {
  explicit Adapter(const Base& base) {
    for (size_t m = 0; m < base.weights.size(); ++m) {
      const int64_t out = base.weights[m].size(0), in = base.weights[m].size(1);
      const double bound = 1 / std::sqrt(static_cast<double>(in));  // Kaiming, a = sqrt(5)
      a.push_back(register_parameter(fmt::format("a{}", m),
                                     torch::empty({kRank, in}).uniform_(-bound, bound)));
      b.push_back(register_parameter(fmt::format("b{}", m), torch::zeros({out, kRank})));
    }
  }
  Tensor of(int64_t module, const Tensor& x) const {
    return cadre::linear(cadre::linear(x, a[module]), b[module]);
  }

  std::vector<Tensor> a, b;
};

/// A vector of every module's input width: PHATGOOSE's gates of one adapter.
struct Gates : torch::nn::Module {
  explicit Gates(const Base& base) {
    for (size_t m = 0; m < base.weights.size(); ++m) {
      v.push_back(
          register_parameter(fmt::format("v{}", m), torch::zeros({1, base.weights[m].size(1)})));
    }
  }
  std::vector<Tensor> v;
};

// ---- Training: the model on next bytes, each adapter on its task, then each adapter's gates.

struct Trained {
  Texts texts;
  std::unique_ptr<Base> base;
  std::vector<std::unique_ptr<Adapter>> adapters;
  std::vector<std::unique_ptr<Gates>> gates;
};

void freeze(torch::nn::Module& module) {
  for (auto& parameter : module.parameters()) parameter.set_requires_grad(false);
}

int64_t length_of(const ArmRun& run) { return run.smoke() ? 48 : 96; }

Tensor task_loss(const Base& base, const Examples& examples, const Apply& apply) {
  return torch::nn::functional::cross_entropy(logits(base, examples.ids, apply),
                                              examples.labels.view({-1}));
}

/// Trains `module`; `apply` says how the model computes with it.
void train(const ArmRun& run, const Trained& all, torch::nn::Module& module, int64_t task,
           const FitOptions& options, uint64_t kind, const Apply& apply) {
  fit(run, module, options, [&](int64_t step) {
    const Random random(run.seed, {kind, static_cast<uint64_t>(task), static_cast<uint64_t>(step)});
    const bool markers = kind != 0;
    const auto examples = draw(all.texts.train, task, 8, length_of(run), random, markers);
    return task_loss(*all.base, examples, apply);
  });
  freeze(module);
}

/// Arms of one seed share it.
const Trained& trained(const ArmRun& run) {
  static std::map<uint64_t, Trained> kept;
  if (const auto found = kept.find(run.seed); found != kept.end()) return found->second;
  torch::manual_seed(run.seed);
  Trained& all = kept[run.seed];
  all.texts = texts_of(run);
  all.base = std::make_unique<Base>(size_of(run));
  const bool smoke = run.smoke();
  train(run, all, *all.base, 0, {.steps = smoke ? 40 : 400, .lr = 3e-3}, 0, plain(*all.base));
  for (int64_t task = 0; task < kHeldIn; ++task) {
    all.adapters.push_back(std::make_unique<Adapter>(*all.base));
    Adapter& adapter = *all.adapters.back();
    const Base& base = *all.base;
    train(run, all, adapter, task, {.steps = smoke ? 30 : 150, .lr = 5e-3}, 1,
          [&](int64_t m, const Tensor& x) {
            return cadre::linear(x, base.weights[m]) + adapter.of(m, x);
          });
    all.gates.push_back(std::make_unique<Gates>(base));
    Gates& gates = *all.gates.back();
    train(run, all, gates, task, {.steps = smoke ? 15 : 60, .lr = 5e-3}, 2,
          [&](int64_t m, const Tensor& x) {
            return cadre::linear(x, base.weights[m]) +
                   torch::sigmoid(cadre::linear(x, gates.v[m])) * adapter.of(m, x);
          });
  }
  return all;
}

// ---- Routing: two adapters a token and module, by local and global scores.

std::span<const float> row_of(const Tensor& x, int64_t row) {
  const int64_t width = x.size(1);
  return {x.data_ptr<float>() + row * width, static_cast<size_t>(width)};
}

std::vector<LocalScores> local_scores(const Trained& all, LocalScores::Kind kind) {
  std::vector<LocalScores> modules;
  for (size_t m = 0; m < all.base->weights.size(); ++m) {
    const int64_t in = all.base->weights[m].size(1), out = all.base->weights[m].size(0);
    modules.emplace_back(in, kind);
    for (int64_t k = 0; k < kHeldIn; ++k) {
      const Tensor a = all.adapters[k]->a[m].contiguous(), b = all.adapters[k]->b[m].contiguous();
      const auto* a0 = a.data_ptr<float>();
      const auto* b0 = b.data_ptr<float>();
      const Tensor gate = all.gates[k]->v[m].contiguous();
      const std::span<const float> v = row_of(gate, 0);
      modules.back().add(tasks()[k].name,
                         kind == LocalScores::Kind::kGate
                             ? std::vector<float>(v.begin(), v.end())
                             : reshape::arrow_prototype({.out = out,
                                                         .in = in,
                                                         .rank = kRank,
                                                         .a = {a0, a0 + a.numel()},
                                                         .b = {b0, b0 + b.numel()}}));
    }
  }
  return modules;
}

/// cos of a task's instruction with each adapter's. version 1 = the user's, 2 = the other user's.
std::vector<double> global_scores(int64_t task, int version) {
  static const auto known = [] {
    std::vector<std::string> sentences;
    for (int64_t k = 0; k < kHeldIn; ++k) sentences.push_back(tasks()[k].instructions[0]);
    return sentences;
  }();
  static const reshape::InstructionEmbedder embedder(known);
  static const auto embedded = [] {
    std::vector<std::vector<float>> list;
    for (const std::string& sentence : known) list.push_back(embedder.embed(sentence));
    return list;
  }();
  return reshape::cosines(embedder.embed(tasks()[task].instructions[version]), embedded);
}

struct Router {
  std::vector<LocalScores> local;  ///< a module each
  std::vector<double> global;      ///< of the task at hand
  double gamma = 0;
};

/// Counts which adapter is a token's first.
struct Tally {
  int64_t task;
  std::vector<char> counts;  ///< [N] tokens to look at
  double right = 0, all = 0;
};

/// Weights [N, K] of a module's adapters.
Tensor weights_of(const Router& router, int64_t module, const Tensor& x, Tally& tally) {
  const Tensor tokens = x.contiguous();
  Tensor weights = torch::zeros({tokens.size(0), kHeldIn});
  for (int64_t row = 0; row < tokens.size(0); ++row) {
    const auto scores = router.local[module].scores(row_of(tokens, row));
    const auto chosen = reshape::select_adapters(scores, router.global, router.gamma);
    for (const auto& [k, weight] : chosen) {
      weights.data_ptr<float>()[row * kHeldIn + k] = static_cast<float>(weight);
    }
    if (tally.counts[row] == 0) continue;
    tally.all += 1;
    tally.right += chosen.front().first == tally.task;
  }
  return weights;
}

/// W x + sum_k w_k B_k A_k x, all adapters as one product.
Apply mixed(const Trained& all, const std::function<Tensor(int64_t, const Tensor&)>& weights) {
  return [&all, weights](int64_t m, const Tensor& x) {
    std::vector<Tensor> as, bs;
    for (const auto& adapter : all.adapters) {
      as.push_back(adapter->a[m]);
      bs.push_back(adapter->b[m]);
    }
    const Tensor inner =
        cadre::linear(x, torch::cat(as)) * weights(m, x).repeat_interleave(kRank, 1);
    return cadre::linear(x, all.base->weights[m]) +
           cadre::linear(inner, torch::cat(bs, 1).contiguous());
  };
}

// ---- What is measured: bits a position on unseen text.

Examples test_examples(const ArmRun& run, const Trained& all, int64_t task) {
  return draw(all.texts.test, task, run.smoke() ? 8 : 24, length_of(run),
              Random(run.seed, {9, static_cast<uint64_t>(task)}));
}

double bits(const Trained& all, const Examples& examples, const Apply& apply) {
  const torch::NoGradGuard no_grad;
  return task_loss(*all.base, examples, apply).item<double>() * std::numbers::log2e;
}

/// Bits of every task, given how the model computes under it.
Measurements measure_tasks(const ArmRun& run,
                           const std::function<double(const Examples&, int64_t task)>& bits_under) {
  const Trained& all = trained(run);
  Measurements result;
  const auto count = static_cast<int64_t>(tasks().size());
  run.steps(count, [&](int64_t task) {
    const double value = bits_under(test_examples(run, all, task), task);
    const bool held_in = task < kHeldIn;
    const auto among = static_cast<double>(held_in ? kHeldIn : count - kHeldIn);
    result.values[tasks()[task].name] = value;
    result.values[held_in ? "held_in" : "held_out"] += value / among;
  });
  return result;
}

using TaskScores = std::function<std::vector<double>(int64_t task)>;

Measurements measure_routed(const ArmRun& run, LocalScores::Kind kind, double gamma,
                            const TaskScores& global) {
  const Trained& all = trained(run);
  Router router{local_scores(all, kind), {}, gamma};
  double right = 0, counted = 0;
  Measurements result = measure_tasks(run, [&](const Examples& examples, int64_t task) {
    router.global = global(task);
    Tally tally{.task = task};
    const auto length = static_cast<size_t>(examples.ids.size(1));
    for (const char marked : examples.marked) {
      tally.counts.insert(tally.counts.end(), length,
                          static_cast<char>(task < kHeldIn && marked == 0));
    }
    const double value = bits(all, examples, mixed(all, [&](int64_t m, const Tensor& x) {
                                return weights_of(router, m, x, tally);
                              }));
    right += tally.right;
    counted += tally.all;
    return value;
  });
  result.values["right"] = right / counted;
  return result;
}

Measurements measure_base(const ArmRun& run) {
  const Trained& all = trained(run);
  return measure_tasks(run, [&](const Examples& examples, int64_t) {
    return bits(all, examples, plain(*all.base));
  });
}

Measurements measure_average(const ArmRun& run) {
  const Trained& all = trained(run);
  return measure_tasks(run, [&](const Examples& examples, int64_t) {
    return bits(all, examples, mixed(all, [](int64_t, const Tensor& x) {
                  return torch::full({x.size(0), kHeldIn}, 1.0 / kHeldIn);
                }));
  });
}

/// Each task's own adapter; for a task without one, the best for these very examples.
Measurements measure_oracle(const ArmRun& run) {
  const Trained& all = trained(run);
  const auto alone = [&](const Examples& examples, int64_t k) {
    return bits(all, examples, [&](int64_t m, const Tensor& x) {
      return cadre::linear(x, all.base->weights[m]) + all.adapters[k]->of(m, x);
    });
  };
  return measure_tasks(run, [&](const Examples& examples, int64_t task) {
    if (task < kHeldIn) return alone(examples, task);
    double best = alone(examples, 0);
    for (int64_t k = 1; k < kHeldIn; ++k) best = std::min(best, alone(examples, k));
    return best;
  });
}

double closest(int64_t task, int version) {
  const auto cosines = global_scores(task, version);
  return *std::max_element(cosines.begin(), cosines.end());
}

/// The rule with a threshold from other users' words: 100 where an adapter's instruction is near.
reshape::TaskWeight automatic_weight() {
  double least_in = 1, most_out = -1;
  for (int64_t task = 0; task < static_cast<int64_t>(tasks().size()); ++task) {
    if (task < kHeldIn) {
      least_in = std::min(least_in, closest(task, 2));
    } else {
      most_out = std::max(most_out, closest(task, 2));
    }
  }
  return {.held_in = 100, .held_out = 3, .threshold = (least_in + most_out) / 2};
}

void measure_rule(Measurements& result) {
  const reshape::TaskWeight rule = automatic_weight();
  double wrong = 0, least_in = 1, most_out = -1;
  for (int64_t task = 0; task < static_cast<int64_t>(tasks().size()); ++task) {
    const double wanted = task < kHeldIn ? rule.held_in : rule.held_out;
    wrong += rule.gamma(global_scores(task, 1)) != wanted;
    double& bound = task < kHeldIn ? least_in : most_out;
    bound = task < kHeldIn ? std::min(bound, closest(task, 1)) : std::max(bound, closest(task, 1));
  }
  result.values["rule_wrong"] = wrong;
  result.values["threshold"] = rule.threshold;
  result.values["least_in"] = least_in;
  result.values["most_out"] = most_out;
}

Measurements measure_glider(const ArmRun& run, double gamma) {
  if (run.sabotaged()) gamma = 0;
  Measurements result = measure_routed(run, LocalScores::Kind::kGate, gamma,
                                       [](int64_t task) { return global_scores(task, 1); });
  measure_rule(result);
  return result;
}

/// Every adapter has the instruction of the next.
Measurements measure_shuffled(const ArmRun& run) {
  return measure_routed(run, LocalScores::Kind::kGate, 100, [](int64_t task) {
    auto scores = global_scores(task, 1);
    std::rotate(scores.begin(), scores.begin() + 1, scores.end());
    return scores;
  });
}

Measurements measure_local(const ArmRun& run, LocalScores::Kind kind) {
  return measure_routed(run, kind, 0, [](int64_t) { return std::vector<double>(kHeldIn); });
}

// ---- What counts.

void accept(Criterion& criterion) {
  const auto ratio = [](const char* value, const char* arm, const char* base) {
    return [=](const At& at) { return at(arm, value) / at(base, value); };
  };
  criterion.every_seed(
      "right adapter first, gamma 100, unmarked examples",
      [](const At& at) { return at("glider-100", "right"); }, at_least(0.95));
  criterion.every_seed(
      "the same, more than PHATGOOSE",
      [](const At& at) { return at("glider-100", "right") - at("phatgoose", "right"); },
      at_least(0.2));
  criterion.on_means("held-in bits, gamma 100 / own adapter",
                     ratio("held_in", "glider-100", "oracle"), at_most(1.05));
  criterion.on_means("held-in bits, shuffled instructions / PHATGOOSE",
                     ratio("held_in", "shuffled", "phatgoose"), more_than(1));
  criterion.every_seed(
      "tasks for which the rule picks the wrong gamma",
      [](const At& at) { return at("glider-100", "rule_wrong"); }, at_most(0));
  if (criterion.smoke()) return;
  criterion.on_means("held-in bits, gamma 100 / PHATGOOSE",
                     ratio("held_in", "glider-100", "phatgoose"), at_most(0.9));
  criterion.on_means("held-out bits, gamma 3 / PHATGOOSE",
                     ratio("held_out", "glider-3", "phatgoose"), at_most(1.05));
}

Arm glider_arm(int gamma) {
  return {fmt::format("glider-{}", gamma),
          fmt::format("local scores + {} x the instruction's", gamma),
          [gamma](const ArmRun& run) { return measure_glider(run, gamma); }};
}

}  // namespace

Recipe glider(const Setting& setting) {
  Recipe recipe = {
      .stub = "gamma is 0: the instruction does not count",
      .arms = {glider_arm(100),
               glider_arm(3),
               {"phatgoose", "trained gates alone",
                [](const ArmRun& run) { return measure_local(run, LocalScores::Kind::kGate); }},
               {"shuffled", "gamma 100, every adapter with the next one's instruction",
                measure_shuffled},
               {"oracle", "the task's own adapter; without one, the best single adapter",
                measure_oracle}},
      .accept = accept};
  if (setting.size == Size::kFull) {
    recipe.arms.insert(recipe.arms.begin() + 1, glider_arm(10));
    recipe.arms.push_back({"arrow", "adapters' first singular vectors", [](const ArmRun& run) {
                             return measure_local(run, LocalScores::Kind::kArrow);
                           }});
    recipe.arms.push_back({"average", "all adapters, an eighth each", measure_average});
    recipe.arms.push_back({"base", "no adapter", measure_base});
  }
  std::vector<std::string> routed;
  for (const Arm& arm : recipe.arms) {
    if (arm.name != "oracle" && arm.name != "average" && arm.name != "base") {
      routed.push_back(arm.name);
    }
  }
  std::vector<Column> per_task;
  for (const Task& task : tasks()) per_task.push_back({task.name, task.name, 3});
  recipe.tables = {
      {.title = "Bits a position",
       .columns = {{"held_in", "tasks with an adapter", 3}, {"held_out", "tasks without", 3}}},
      {.title = "Tokens of unmarked examples whose first adapter is the task's",
       .arms = routed,
       .columns = {{"right", "share", 3}}},
      {.title = "Bits a position by task; the last four have no adapter", .columns = per_task},
      {.title = "The nearest instruction's cosine",
       .arms = {"glider-100"},
       .columns = {{"least_in", "least, with an adapter", 3},
                   {"most_out", "most, without", 3},
                   {"threshold", "threshold", 3}}}};
  return recipe;
}

}  // namespace cadre::recipes
