/// ComPEFT: a fine-tuning residual as the signs of its largest entries and one magnitude.
///
/// Read from top to bottom: the data and its three transformed versions, the classifier and its
/// fine-tuning, what is compressed how, merging, the recipe.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>

#include "cadre/base/random.h"
#include "cadre/data/labelled.h"
#include "cadre/nn/linear.h"
#include "cadre/reshape/delta_file.h"
#include "recipes/harness/digits_net.h"
#include "recipes/harness/small_moe.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

using reshape::TernaryOptions;
using torch::Tensor;
using Magnitude = TernaryOptions::Magnitude;

// ---- The data: Fashion-MNIST; a smoke run draws noisy images of ten random patterns instead.

struct Images {
  int64_t side;
  LabelledRows train, validation, test;
};

LabelledRows patterns(const Tensor& centres, int64_t rows, Random& random) {
  const int64_t classes = centres.size(0), pixels = centres.size(1);
  Tensor x = torch::empty({rows, pixels}), y = torch::empty({rows}, torch::kInt64);
  for (int64_t i = 0; i < rows; ++i) {
    y[i] = i % classes;
    auto* pixel = x[i].data_ptr<float>();
    const auto* centre = centres[i % classes].data_ptr<float>();
    for (int64_t j = 0; j < pixels; ++j) pixel[j] = centre[j] + 0.3F * random.normal();
  }
  return {.x = x, .y = y, .classes = classes};
}

/// Pixels around their mean, in standard deviations of all of them. What all pixels have in common
/// would reach every hidden unit through the sum of its quantised weights.
void standardise(Images& images) {
  const double mean = images.train.x.mean().item<double>();
  const double deviation = images.train.x.std().item<double>();
  for (LabelledRows* rows : {&images.train, &images.validation, &images.test}) {
    rows->x = (rows->x - mean) / deviation;
  }
}

Images load_images(const ArmRun& run) {
  if (run.smoke()) {
    Random random(run.seed);
    Tensor centres = torch::empty({10, 64});
    for (int64_t i = 0; i < centres.numel(); ++i) {
      centres.data_ptr<float>()[i] = random.uniform();
    }
    Images images{.side = 8};
    images.train = patterns(centres, 2000, random);
    images.validation = patterns(centres, 500, random);
    images.test = patterns(centres, 2000, random);
    standardise(images);
    return images;
  }
  const TrainAndTest all = load_fashion_mnist(run.data);
  const Tensor rows = torch::arange(all.test.size());
  Images images{.side = 28};
  images.train = all.train.at(shuffled(all.train.size(), run.seed, 0).slice(0, 0, 20000));
  images.validation = all.test.at(rows.slice(0, 0, 2000));
  images.test = all.test.at(rows.slice(0, 2000));
  standardise(images);
  return images;
}

const std::vector<std::string> kTasks = {"rotate", "negative", "flip"};

Tensor transform(const Tensor& x, int64_t task, int64_t side) {
  const Tensor images = x.view({-1, side, side});
  switch (task) {
    case 0:
      return images.rot90(1, {1, 2}).reshape(x.sizes());
    case 1:  // about the mean grey, which is 0
      return -x;
    default:
      return images.flip({1}).reshape(x.sizes());
  }
}

// ---- The classifier: three linear layers; its parameters are one list of tensors.

using Weights = std::vector<Tensor>;  // weight [out, in], bias [out], three times

Tensor logits(const Weights& w, const Tensor& x) {
  const Tensor h = torch::relu(linear(x, w[0], w[1]));
  return linear(torch::relu(linear(h, w[2], w[3])), w[4], w[5]);
}

struct Parameters : torch::nn::Module {
  explicit Parameters(const Weights& tensors) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      list.push_back(register_parameter(fmt::format("p{}", i), tensors[i].detach().clone()));
    }
  }
  Weights list;
};

Weights initial_weights(int64_t side) {
  const std::array<int64_t, 4> widths = {side * side, 256, 256, 10};
  Weights weights;
  for (size_t i = 0; i < 3; ++i) {
    const double bound = 1 / std::sqrt(static_cast<double>(widths[i]));
    weights.push_back(torch::empty({widths[i + 1], widths[i]}).uniform_(-bound, bound));
    weights.push_back(torch::empty({widths[i + 1]}).uniform_(-bound, bound));
  }
  return weights;
}

/// What a list of trained tensors does to the classifier's weights.
using Build = std::function<Weights(const Weights& trained)>;

struct Training {
  int64_t steps;
  double lr;
  uint64_t draw;  ///< which batches
};

Weights train(const ArmRun& run, const Images& images, int64_t task, const Weights& start,
              const Build& build, const Training& training) {
  Parameters parameters(start);
  const FitOptions options = {.steps = training.steps, .lr = training.lr, .final_lr = training.lr};
  fit(run, parameters, options, [&](int64_t step) {
    Random random(run.seed, {training.draw, static_cast<uint64_t>(step)});
    Tensor rows = torch::empty({128}, torch::kInt64);
    for (int64_t i = 0; i < 128; ++i)
      rows[i] = static_cast<int64_t>(random.below(images.train.size()));
    const LabelledRows batch = images.train.at(rows);
    const Tensor x = task < 0 ? batch.x : transform(batch.x, task, images.side);
    return torch::cross_entropy_loss(logits(build(parameters.list), x), batch.y);
  });
  Weights trained;
  for (const Tensor& tensor : parameters.list) trained.push_back(tensor.detach());
  return trained;
}

const Build kAsTheyAre = [](const Weights& trained) { return trained; };

/// LoRA on all three layers: W + 2 B A, trained as (A, B) three times.
Build lora_on(const Weights& base) {
  return [base](const Weights& ab) {
    Weights weights = base;
    for (size_t i = 0; i < 3; ++i) weights[2 * i] = base[2 * i] + 2 * ab[2 * i + 1].mm(ab[2 * i]);
    return weights;
  };
}

Weights initial_lora(const Weights& base) {
  Weights ab;
  for (size_t i = 0; i < 3; ++i) {
    const int64_t out = base[2 * i].size(0), in = base[2 * i].size(1);
    const double bound = 1 / std::sqrt(static_cast<double>(in));  // Kaiming, a = sqrt(5)
    ab.push_back(torch::empty({8, in}).uniform_(-bound, bound));
    ab.push_back(torch::zeros({out, 8}));
  }
  return ab;
}

/// Everything that is trained with one seed; arms only compress it.
struct Trained {
  Images images;
  Weights base;
  std::vector<Weights> full;  ///< a task each
  Weights lora_start;
  std::vector<Weights> lora;
};

/// Arms of one seed share it.
const Trained& trained(const ArmRun& run) {
  static std::map<uint64_t, Trained> kept;
  if (const auto found = kept.find(run.seed); found != kept.end()) return found->second;
  torch::manual_seed(run.seed);
  Trained all{.images = load_images(run)};
  const int64_t base_steps = run.smoke() ? 200 : 1200, steps = run.smoke() ? 200 : 600;
  all.base = train(run, all.images, -1, initial_weights(all.images.side), kAsTheyAre,
                   {.steps = base_steps, .lr = 1e-3, .draw = 0});
  all.lora_start = initial_lora(all.base);
  for (uint64_t task = 0; task < kTasks.size(); ++task) {
    const auto index = static_cast<int64_t>(task);
    all.full.push_back(train(run, all.images, index, all.base, kAsTheyAre,
                             {.steps = steps, .lr = 1e-3, .draw = 1 + task}));
    if (run.smoke()) continue;
    all.lora.push_back(train(run, all.images, index, all.lora_start, lora_on(all.base),
                             {.steps = steps, .lr = 2e-3, .draw = 1 + task}));
  }
  return kept.emplace(run.seed, std::move(all)).first->second;
}

// ---- Compression: of all tensors of a list as one vector.

Tensor flat(const Weights& weights) {
  std::vector<Tensor> parts;
  for (const Tensor& w : weights) parts.push_back(w.reshape({-1}));
  return torch::cat(parts);
}

Weights unflat(const Tensor& vector, const Weights& like) {
  Weights weights;
  int64_t first = 0;
  for (const Tensor& w : like) {
    weights.push_back(vector.slice(0, first, first + w.numel()).view(w.sizes()));
    first += w.numel();
  }
  return weights;
}

Tensor ternary_of(const Tensor& tau, const TernaryOptions& options) {
  const auto size = static_cast<size_t>(tau.numel());
  const auto ternary = reshape::ternarize({tau.data_ptr<float>(), size}, options);
  Tensor result = torch::empty_like(tau);
  reshape::expand(ternary.plus.data(), ternary.minus.data(), ternary.scale,
                  {result.data_ptr<float>(), size});
  return result;
}

enum class Method { kTuned, kAlphaOne, kPruned, kStc };

/// The compressed residual at one alpha.
Tensor compressed(const Tensor& tau, Method method, double density, double alpha) {
  TernaryOptions options = {.density = density, .alpha = alpha};
  if (method == Method::kStc) options.magnitude = Magnitude::kMeanKept;
  const Tensor ternary = ternary_of(tau, options);
  return method == Method::kPruned ? torch::where(ternary != 0, tau, ternary) : ternary;
}

std::vector<double> alphas(Method method, const ArmRun& run) {
  if (method != Method::kTuned || run.sabotaged()) return {1};
  return {0.5, 1, 2, 3, 4, 5, 6, 8, 10};
}

/// A task seen from the trained list: which classifier start + residual is.
struct Residual {
  const Images& images;
  int64_t task;
  const Weights& start;  ///< theta_0
  Build build;
  Tensor tau;

  double score(const Tensor& residual, const LabelledRows& rows) const {
    const torch::NoGradGuard no_grad;
    const Weights weights = build(unflat(flat(start) + residual, start));
    return accuracy(logits(weights, transform(rows.x, task, images.side)), rows.y);
  }
};

struct Compressed {
  double accuracy, alpha;
};

/// The first part of the test images chooses alpha, the rest is reported.
Compressed compress(const ArmRun& run, const Residual& residual, Method method, double density) {
  double best = -1, chosen = 1;
  for (const double alpha : alphas(method, run)) {
    const double score = residual.score(compressed(residual.tau, method, density, alpha),
                                        residual.images.validation);
    if (score > best) std::tie(best, chosen) = std::pair(score, alpha);
  }
  const Tensor final = compressed(residual.tau, method, density, chosen);
  return {residual.score(final, residual.images.test), chosen};
}

Residual full_residual(const Trained& all, int64_t task) {
  return {.images = all.images,
          .task = task,
          .start = all.base,
          .build = kAsTheyAre,
          .tau = flat(all.full[task]) - flat(all.base)};
}

std::vector<double> densities(const ArmRun& run) {
  if (run.smoke()) return {0.2};
  return {0.05, 0.1, 0.2, 0.3, 0.5};
}

std::string percent(double density) { return fmt::format("{:.0f}", 100 * density); }

/// Bits an entry on disk: header, index, checksums and all.
double file_bytes(const Tensor& tau, double density) {
  namespace fs = std::filesystem;
  const fs::path file =
      fs::temp_directory_path() / fmt::format("cadre-compeft-{}.cdelta", ::getpid());
  reshape::DeltaHeader header{.tensors = {{.name = "tau", .shape = {tau.numel()}}},
                              .options = {.density = density}};
  reshape::write_delta(file, header, [&](int64_t first, std::span<float> values) {
    std::copy_n(tau.data_ptr<float>() + first, values.size(), values.begin());
  });
  const auto bytes = static_cast<double>(fs::file_size(file));
  fs::remove(file);
  return bytes;
}

Measurements measure_method(const ArmRun& run, Method method) {
  const Trained& all = trained(run);
  Measurements result;
  const auto tasks = static_cast<double>(kTasks.size());
  for (const double density : densities(run)) {
    for (size_t task = 0; task < kTasks.size(); ++task) {
      const Residual residual = full_residual(all, static_cast<int64_t>(task));
      const Compressed found = compress(run, residual, method, density);
      result.values["accuracy/" + percent(density)] += found.accuracy / tasks;
      result.values["alpha/" + percent(density)] += found.alpha / tasks;
      result.values[fmt::format("{}/{}", kTasks[task], percent(density))] = found.accuracy;
    }
    Curve& curve = result.curves["accuracy"];
    curve.x.push_back(100 * density);
    curve.y.push_back(result.values["accuracy/" + percent(density)]);
    if (method != Method::kTuned) continue;
    const Tensor tau = full_residual(all, 0).tau;
    const double bytes = file_bytes(tau, density);
    result.values["bits/" + percent(density)] = 8 * bytes / static_cast<double>(tau.numel());
    result.values["kilobytes/" + percent(density)] = bytes / 1000;
  }
  if (method == Method::kTuned) {
    result.values["parameters"] = static_cast<double>(full_residual(all, 0).tau.numel());
  }
  return result;
}

// ---- References: the fine-tuned classifiers, and the base on the tasks.

Measurements measure_reference(const ArmRun& run, double share_of_tau) {
  const Trained& all = trained(run);
  Measurements result;
  for (size_t task = 0; task < kTasks.size(); ++task) {
    const Residual residual = full_residual(all, static_cast<int64_t>(task));
    const double score = residual.score(share_of_tau * residual.tau, all.images.test);
    result.values[kTasks[task]] = score;
    result.values["accuracy"] += score / static_cast<double>(kTasks.size());
  }
  return result;
}

// ---- Adapters: theta_0 = 0, as in the published code, or the adapter's true start.

Measurements measure_lora(const ArmRun& run, const std::string& start) {
  const Trained& all = trained(run);
  Weights zeros;
  for (const Tensor& tensor : all.lora_start) zeros.push_back(torch::zeros_like(tensor));
  const Weights& origin = start == "zero" ? zeros : all.lora_start;
  Measurements result;
  const auto tasks = static_cast<double>(kTasks.size());
  for (size_t task = 0; task < kTasks.size(); ++task) {
    const Residual residual = {.images = all.images,
                               .task = static_cast<int64_t>(task),
                               .start = origin,
                               .build = lora_on(all.base),
                               .tau = flat(all.lora[task]) - flat(origin)};
    result.values["tuned"] += residual.score(residual.tau, all.images.test) / tasks;
    for (const double density : densities(run)) {
      result.values["accuracy/" + percent(density)] +=
          compress(run, residual, Method::kTuned, density).accuracy / tasks;
    }
  }
  return result;
}

// ---- Merging three residuals into one classifier, with one weight tuned.

Tensor ties(const std::vector<Tensor>& taus) {
  const Tensor all = torch::stack(taus), sum = all.sum(0, true);
  const Tensor agree = (all * sum > 0).to(torch::kFloat32);
  return (all * agree).sum(0) / agree.sum(0).clamp_min(1);
}

Measurements measure_merge(const ArmRun& run, bool compress_first) {
  const Trained& all = trained(run);
  std::vector<Tensor> taus;
  for (size_t task = 0; task < kTasks.size(); ++task) {
    const Residual residual = full_residual(all, static_cast<int64_t>(task));
    const double alpha = compress(run, residual, Method::kTuned, 0.2).alpha;
    taus.push_back(compress_first ? compressed(residual.tau, Method::kTuned, 0.2, alpha)
                                  : residual.tau);
  }
  const auto mean_score = [&](const Tensor& merged, const LabelledRows& rows) {
    double sum = 0;
    for (size_t task = 0; task < taus.size(); ++task) {
      sum += full_residual(all, static_cast<int64_t>(task)).score(merged, rows);
    }
    return sum / static_cast<double>(taus.size());
  };
  Measurements result;
  for (const auto& [name, merged] :
       {std::pair("sum", torch::stack(taus).sum(0)), std::pair("ties", ties(taus))}) {
    double best = -1, weight = 0;
    for (const double w : {0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0}) {
      const double score = mean_score(w * merged, all.images.validation);
      if (score > best) std::tie(best, weight) = std::pair(score, w);
    }
    result.values[name] = mean_score(weight * merged, all.images.test);
  }
  return result;
}

// ---- What counts.

double gain(const At& at, const std::string& over) {
  return at("compeft", "accuracy/20") - at(over, "accuracy/20");
}

void accept(Criterion& criterion) {
  const bool smoke = criterion.smoke();
  criterion.on_means(
      "accuracy at k = 20 %, compeft / fine-tuned",
      [](const At& at) { return at("compeft", "accuracy/20") / at("fine-tuned", "accuracy"); },
      at_least(smoke ? 0.85 : 0.94));
  for (const char* other : {"pruned", "stc"}) {
    criterion.on_means(
        fmt::format("points at k = 20 % over {}", other),
        [other](const At& at) { return gain(at, other); }, at_least(smoke ? 2 : 8));
  }
  criterion.every_seed(
      "bytes at k = 20 % beyond 0.95 bit a parameter and 1 kB",
      [](const At& at) {
        return 1000 * at("compeft", "kilobytes/20") - 0.95 / 8 * at("compeft", "parameters") - 1000;
      },
      at_most(0));
  if (smoke) return;
  criterion.on_means(
      "points at k = 20 % of adapters from their start over from zero",
      [](const At& at) { return at("lora-start", "accuracy/20") - at("lora-zero", "accuracy/20"); },
      at_least(4));
}

std::vector<Picture> pictures(const Results& results) {
  if (results.setting().size == Size::kSmoke) return {};
  return {{"accuracy.svg", LineChart{.title = "accuracy of compressed residuals",
                                     .x_label = "entries kept, %",
                                     .y_label = "accuracy, %",
                                     .series = results.series(
                                         {"compeft", "alpha-1", "pruned", "stc"}, "accuracy")}}};
}

Arm method_arm(const std::string& name, const std::string& help, Method method) {
  return {.name = name, .help = help, .measure = [method](const ArmRun& run) {
            return measure_method(run, method);
          }};
}

std::vector<Column> density_columns(const std::string& value, int digits) {
  std::vector<Column> columns;
  for (const char* k : {"5", "10", "20", "30", "50"}) {
    columns.push_back({fmt::format("{}/{}", value, k), fmt::format("k = {} %", k), digits});
  }
  return columns;
}

}  // namespace

Recipe compeft(const Setting& setting) {
  Recipe recipe = {
      .stub = "alpha stays 1: the scale is not tuned",
      .arms = {method_arm("compeft", "ternary, alpha tuned", Method::kTuned),
               method_arm("alpha-1", "ternary, alpha = 1", Method::kAlphaOne),
               method_arm("pruned", "the largest entries with their values", Method::kPruned),
               method_arm("stc", "ternary, mean magnitude of those kept", Method::kStc),
               {.name = "fine-tuned",
                .help = "the whole residual",
                .measure = [](const ArmRun& run) { return measure_reference(run, 1); }},
               {.name = "base",
                .help = "no residual",
                .measure = [](const ArmRun& run) { return measure_reference(run, 0); }}},
      .tables = {{.title = "Accuracy on the transformed tasks, %, mean of three",
                  .arms = {"compeft", "alpha-1", "pruned", "stc"},
                  .columns = density_columns("accuracy", 1)},
                 {.title = "References, accuracy in %",
                  .arms = {"fine-tuned", "base"},
                  .columns = {{"accuracy", "mean", 1},
                              {"rotate", "rotate", 1},
                              {"negative", "negative", 1},
                              {"flip", "flip", 1}}},
                 {.title = "Bits a parameter on disk",
                  .arms = {"compeft"},
                  .columns = density_columns("bits", 3)}},
      .accept = accept,
      .pictures = pictures};
  if (setting.size == Size::kSmoke) {
    recipe.tables = {{.title = "Accuracy at k = 20 %",
                      .arms = {"compeft", "alpha-1", "pruned", "stc"},
                      .columns = {{"accuracy/20", "accuracy", 1}}}};
    return recipe;
  }
  recipe.arms.push_back({.name = "lora-start",
                         .help = "adapters, residual from their true start",
                         .measure = [](const ArmRun& run) { return measure_lora(run, "start"); }});
  recipe.arms.push_back({.name = "lora-zero",
                         .help = "adapters, residual from zero",
                         .measure = [](const ArmRun& run) { return measure_lora(run, "zero"); }});
  recipe.arms.push_back({.name = "merge-ternary",
                         .help = "three ternary residuals (k = 20 %) in one classifier",
                         .measure = [](const ArmRun& run) { return measure_merge(run, true); }});
  recipe.arms.push_back({.name = "merge-dense",
                         .help = "three whole residuals in one classifier",
                         .measure = [](const ArmRun& run) { return measure_merge(run, false); }});
  recipe.tables.push_back({.title = "The scale chosen, mean of three tasks",
                           .arms = {"compeft"},
                           .columns = density_columns("alpha", 1)});
  std::vector<Column> lora = density_columns("accuracy", 1);
  lora.insert(lora.begin(), {"tuned", "not compressed", 1});
  recipe.tables.push_back({.title = "Adapters of rank 8, accuracy in %",
                           .arms = {"lora-start", "lora-zero"},
                           .columns = lora});
  recipe.tables.push_back({.title = "One classifier for the three tasks, accuracy in % (no gate)",
                           .arms = {"merge-ternary", "merge-dense"},
                           .columns = {{"sum", "sum", 1}, {"ties", "TIES", 1}}});
  return recipe;
}

}  // namespace cadre::recipes
