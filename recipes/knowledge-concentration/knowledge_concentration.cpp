/// Knowledge Concentration: many teachers, each for its own part of the labels, in one student.
///
/// Read from top to bottom: the classes and their noisy samples, the teachers, the students, how
/// they are measured, the recipe.

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "cadre/base/random.h"
#include "cadre/nn/structured_head.h"
#include "cadre/objectives/distillation.h"
#include "recipes/harness/small_moe.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

using torch::Tensor;

// ---- The classes: verticals of similar classes, and labels of which half are wrong.

struct Sizes {
  int64_t verticals, classes, teacher_steps, student_steps;
  int64_t all() const { return verticals * classes; }
};

Sizes sizes(const ArmRun& run) {
  if (run.smoke())
    return {.verticals = 3, .classes = 8, .teacher_steps = 200, .student_steps = 300};
  return {.verticals = 8, .classes = 32, .teacher_steps = 500, .student_steps = 1200};
}

constexpr int64_t kInputs = 64, kSamples = 20, kTestSamples = 10, kBatch = 128;
constexpr double kSpread = 0.55, kWarp = 1.5, kNoise = 0.5;

struct Rows {
  Tensor x, y;  // [n, 64], [n] class ids over all verticals
};

struct World {
  Rows train, test;
};

World make_world(const ArmRun& run) {
  const Sizes size = sizes(run);
  torch::manual_seed(run.seed);
  const double gain = kWarp / std::sqrt(static_cast<double>(kInputs));
  const Tensor a = gain * torch::randn({kInputs, kInputs});
  const Tensor b = gain * torch::randn({kInputs, kInputs});
  const Tensor centres = torch::randn({size.verticals, 1, kInputs}) +
                         kSpread * torch::randn({size.verticals, size.classes, kInputs});
  const auto sample = [&](int64_t count) {
    const Tensor z = centres.view({size.all(), 1, kInputs}) +
                     kSpread * torch::randn({size.all(), count, kInputs});
    return Rows{.x = torch::tanh(z.view({-1, kInputs}).mm(a)).mm(b),
                .y = torch::arange(size.all()).repeat_interleave(count)};
  };
  World world{.train = sample(kSamples), .test = sample(kTestSamples)};
  const Tensor mean = world.train.x.mean(0), deviation = world.train.x.std(0);
  for (Rows* rows : {&world.train, &world.test}) rows->x = (rows->x - mean) / deviation;
  // A wrong label is of the same vertical, as on the web.
  const Tensor& y = world.train.y;
  const Tensor other = y.floor_divide(size.classes) * size.classes +
                       torch::randint(size.classes, y.sizes(), torch::kInt64);
  world.train.y = torch::where(torch::rand(y.sizes()) < kNoise, other, y);
  return world;
}

Tensor batch_rows(const ArmRun& run, uint64_t use, int64_t step, int64_t rows) {
  Random random(run.seed, {use, static_cast<uint64_t>(step)});
  Tensor picked = torch::empty({kBatch}, torch::kInt64);
  for (int64_t i = 0; i < kBatch; ++i) {
    picked.data_ptr<int64_t>()[i] = static_cast<int64_t>(random.below(rows));
  }
  return picked;
}

// ---- Teachers: a small network a vertical, on its samples and labels alone.

using Net = torch::nn::Sequential;

Net teacher_net(int64_t classes) {
  torch::nn::Linear last(64, classes);
  torch::nn::init::constant_(last->bias, -3);
  return Net(torch::nn::Linear(kInputs, 128), torch::nn::ReLU(), torch::nn::Linear(128, 64),
             torch::nn::ReLU(), last);
}

FitOptions training(int64_t steps) { return {.steps = steps, .lr = 3e-3}; }

struct Taught {
  World world;
  std::vector<Net> teachers;
};

/// Arms of one seed share it.
const Taught& taught(const ArmRun& run) {
  static std::map<uint64_t, Taught> kept;
  if (const auto found = kept.find(run.seed); found != kept.end()) return found->second;
  const Sizes size = sizes(run);
  Taught all{.world = make_world(run)};
  const int64_t rows = size.classes * kSamples;
  for (int64_t v = 0; v < size.verticals; ++v) {
    Net net = teacher_net(size.classes);
    const Tensor x = all.world.train.x.narrow(0, v * rows, rows);
    const Tensor labels =
        torch::one_hot(all.world.train.y.narrow(0, v * rows, rows) - v * size.classes, size.classes)
            .to(torch::kFloat32);
    fit(run, *net, training(size.teacher_steps), [&](int64_t step) {
      const Tensor picked = batch_rows(run, 100 + v, step, rows);
      return sigmoid_cross_entropy(net->forward(x.index_select(0, picked)),
                                   labels.index_select(0, picked));
    });
    all.teachers.push_back(net);
  }
  return kept.emplace(run.seed, std::move(all)).first->second;
}

// ---- What a student is told about every sample: its label, or what a teacher says.

enum class Targets { kHard, kTeacher, kWrongTeacher };

Tensor targets_of(const Taught& all, const Sizes& size, Targets targets) {
  if (targets == Targets::kHard) {
    return torch::one_hot(all.world.train.y, size.all()).to(torch::kFloat32);
  }
  const torch::NoGradGuard no_grad;
  const int64_t rows = size.classes * kSamples, shift = targets == Targets::kTeacher ? 0 : 1;
  std::vector<Tensor> parts;
  for (int64_t v = 0; v < size.verticals; ++v) {
    const int64_t teacher = (v + shift) % size.verticals;
    Net net = all.teachers[teacher];
    const Tensor logits = net->forward(all.world.train.x.narrow(0, v * rows, rows));
    parts.push_back(teacher_targets(logits, teacher * size.classes, size.all(), 10));
  }
  return torch::cat(parts);
}

// ---- Students: 64 units that all classes see, or 64 of each vertical's own.

enum class Head { kShared, kStructured };
enum class Pace { kNone, kSelf };

struct Student : torch::nn::Module {
  Student(const Sizes& size, Head head_kind, Pace pace)
      : first(register_module("first", torch::nn::Linear(kInputs, 128))) {
    const std::vector<int64_t> classes(size.verticals, size.classes);
    head = register_module(
        "head", StructuredHead(StructuredHeadOptions{.in = 128,
                                                     .hidden = 64,
                                                     .shared = head_kind == Head::kShared ? 64 : 0,
                                                     .classes = classes,
                                                     .bias = pace == Pace::kSelf ? -0.3 : -3.0}));
    if (pace == Pace::kSelf) scale = register_module("scale", SelfPacedScale(classes));
  }
  Tensor forward(const Tensor& x) {
    const Tensor logits = head->forward(torch::relu(first->forward(x)));
    return scale.is_empty() ? logits : scale->forward(logits);
  }
  torch::nn::Linear first;
  StructuredHead head{nullptr};
  SelfPacedScale scale{nullptr};
};

// ---- Measures: average precision of each class among its vertical's samples, and the top label.

double average_precision(const Tensor& scores, const Tensor& right) {
  const Tensor hits = right.index_select(0, scores.argsort(0, true)).to(torch::kFloat64);
  const Tensor rank = torch::arange(1, hits.size(0) + 1, torch::kFloat64);
  return ((hits.cumsum(0) / rank * hits).sum() / hits.sum()).item<double>();
}

using Scores = std::function<Tensor(int64_t vertical, const Tensor& x)>;  // [n, classes]

double mean_average_precision(const World& world, const Sizes& size, const Scores& scores) {
  const torch::NoGradGuard no_grad;
  const int64_t rows = size.classes * kTestSamples;
  double sum = 0;
  for (int64_t v = 0; v < size.verticals; ++v) {
    const Tensor y = world.test.y.narrow(0, v * rows, rows);
    const Tensor s = scores(v, world.test.x.narrow(0, v * rows, rows));
    for (int64_t c = 0; c < size.classes; ++c) {
      sum += average_precision(s.select(1, c), y == v * size.classes + c);
    }
  }
  return 100 * sum / static_cast<double>(size.all());
}

struct StudentPlan {
  Head head;
  Targets targets;
  Pace pace = Pace::kNone;
};

Measurements measure_student(const ArmRun& run, const StudentPlan& plan) {
  const Taught& all = taught(run);
  const Sizes size = sizes(run);
  const bool stub = run.sabotaged() && plan.targets == Targets::kTeacher;
  const Tensor targets = targets_of(all, size, stub ? Targets::kHard : plan.targets);
  torch::manual_seed(run.seed);
  Student student(size, plan.head, plan.pace);
  Measurements result;
  result.curves["loss"] = fit(run, student, training(size.student_steps), [&](int64_t step) {
    const Tensor picked = batch_rows(run, 1, step, targets.size(0));
    return sigmoid_cross_entropy(student.forward(all.world.train.x.index_select(0, picked)),
                                 targets.index_select(0, picked));
  });
  const torch::NoGradGuard no_grad;
  result.values["map"] =
      mean_average_precision(all.world, size, [&](int64_t vertical, const Tensor& x) {
        return student.forward(x).narrow(1, vertical * size.classes, size.classes);
      });
  const Tensor top = student.forward(all.world.test.x).argmax(1);
  result.values["top1"] = 100 * (top == all.world.test.y).to(torch::kFloat64).mean().item<double>();
  for (const Tensor& p : student.parameters()) {
    result.values["parameters"] += static_cast<double>(p.numel());
  }
  if (!student.scale.is_empty()) {
    result.values["scale"] = student.scale->log_scale.exp().mean().item<double>();
  }
  return result;
}

Measurements measure_teachers(const ArmRun& run) {
  const Taught& all = taught(run);
  Measurements result;
  result.values["map"] =
      mean_average_precision(all.world, sizes(run), [&](int64_t vertical, const Tensor& x) {
        Net net = all.teachers[vertical];
        return net->forward(x);
      });
  for (const Net& net : all.teachers) {
    for (const Tensor& p : net->parameters()) {
      result.values["parameters"] += static_cast<double>(p.numel());
    }
  }
  return result;
}

// ---- What counts.

void gain(Criterion& criterion, const std::string& what, const std::string& arm,
          const std::string& over, const Bound& bound) {
  criterion.on_means(
      "mAP " + what, [arm, over](const At& at) { return at(arm, "map") - at(over, "map"); }, bound);
}

void accept(Criterion& criterion) {
  if (criterion.smoke()) {
    gain(criterion, "fc-kd over fc-hard", "fc-kd", "fc-hard", at_least(0.5));
    gain(criterion, "the wrong teacher below hard labels", "wrong", "sc-hard", at_most(-10));
    return;
  }
  gain(criterion, "fc-kd over fc-hard", "fc-kd", "fc-hard", at_least(1.5));
  gain(criterion, "sc-kd over sc-hard", "sc-kd", "sc-hard", at_least(1.2));
  gain(criterion, "sc-kd-s over sc-kd", "sc-kd-s", "sc-kd", at_least(1));
  gain(criterion, "sc-kd-s over fc-hard", "sc-kd-s", "fc-hard", at_least(2.5));
  gain(criterion, "the wrong teacher below hard labels", "wrong", "sc-hard", at_most(-10));
}

Arm student_arm(const std::string& name, const std::string& help, const StudentPlan& plan) {
  return {.name = name, .help = help, .measure = [plan](const ArmRun& run) {
            return measure_student(run, plan);
          }};
}

}  // namespace

Recipe knowledge_concentration(const Setting& setting) {
  using enum Targets;
  Recipe recipe = {
      .stub = "students read the labels, not their teachers",
      .arms = {{.name = "teachers", .help = "a network a vertical", .measure = measure_teachers},
               student_arm("fc-hard", "shared head, labels", {Head::kShared, kHard}),
               student_arm("fc-kd", "shared head, teachers", {Head::kShared, kTeacher}),
               student_arm("sc-hard", "structured head, labels", {Head::kStructured, kHard}),
               student_arm("sc-kd", "structured head, teachers", {Head::kStructured, kTeacher}),
               student_arm("sc-kd-s", "structured head, teachers, self-paced: the full method",
                           {Head::kStructured, kTeacher, Pace::kSelf}),
               student_arm("wrong", "structured head, another vertical's teacher",
                           {Head::kStructured, kWrongTeacher})},
      .tables = {{.title = "Clean test samples, %",
                  .columns = {{"map", "mAP within verticals", 1},
                              {"top1", "top-1 over all classes", 1},
                              {"parameters", "parameters", 0}}}},
      .accept = accept};
  if (setting.size == Size::kSmoke) return recipe;
  recipe.arms.push_back(student_arm("sc-hard-s", "structured head, labels, self-paced",
                                    {Head::kStructured, kHard, Pace::kSelf}));
  recipe.tables.push_back({.title = "Scale of the logits after training (5.7 before)",
                           .arms = {"sc-kd-s", "sc-hard-s"},
                           .columns = {{"scale", "mean over verticals", 1}}});
  recipe.pictures = [](const Results& results) {
    return std::vector<Picture>{
        {"loss.svg",
         LineChart{.title = "loss of the students",
                   .x_label = "step",
                   .y_label = "loss",
                   .series = results.series({"fc-hard", "fc-kd", "sc-kd", "sc-kd-s"}, "loss")}}};
  };
  return recipe;
}

}  // namespace cadre::recipes
