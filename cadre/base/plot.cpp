#include "cadre/base/plot.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string_view>
#include <system_error>

#include "cadre/base/error.h"
#include "cadre/base/text.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;

// In gnuplot's single quotes nothing is special but the quote itself: no escapes, no backquotes
// that run commands, no macros.
std::string quoted(const std::string& label) {
  std::string text = "'";
  for (const char c : one_line(label)) {
    if (c == '\'') text += '\'';
    text += c;
  }
  return text + "'";
}

std::string number(double value) {
  return std::isfinite(value) ? fmt::format("{:.9g}", value) : "NaN";
}

// A directory beside the picture, so that the finished file can be renamed into place.
class WorkDirectory {
 public:
  explicit WorkDirectory(const fs::path& picture) {
    const fs::path parent = picture.has_parent_path() ? picture.parent_path() : fs::path(".");
    std::string name = (parent / ".plot-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw IoError("{}: cannot write a picture here: {}", picture.string(), std::strerror(errno));
    }
    path_ = name;
  }
  ~WorkDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  WorkDirectory(const WorkDirectory&) = delete;
  WorkDirectory& operator=(const WorkDirectory&) = delete;

  fs::path operator/(const char* name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string last_line(const fs::path& file) {
  std::ifstream stream(file);
  std::string last;
  for (std::string line; std::getline(stream, line);) {
    if (line.find_first_not_of(" ^") != std::string::npos) last = line;
  }
  return last.empty() ? "no message" : one_line(last);
}

// Runs gnuplot inside the directory on its script; returns the exit status, throws when it cannot
// be started.
int run_gnuplot(const WorkDirectory& directory) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, directory.path().c_str());
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "messages", O_WRONLY | O_CREAT, 0600);
  std::string arguments[] = {"gnuplot", "--default-settings", "script"};
  char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data(), nullptr};
  pid_t child = 0;
  const int error = posix_spawnp(&child, "gnuplot", &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) {
    throw IoError("pictures need the gnuplot program: install the package gnuplot-nox");
  }
  if (error != 0) throw IoError("gnuplot cannot be started: {}", std::strerror(error));
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw IoError("lost track of gnuplot: {}", std::strerror(errno));
  }
  return status;
}

std::string terminal_command(const fs::path& path, int width, int height) {
  const std::string ending = path.extension().string();
  std::string_view terminal;
  if (ending == ".svg") terminal = "svg noenhanced background 'white' font 'sans,14'";
  if (ending == ".png") terminal = "pngcairo noenhanced background 'white' font 'sans,11'";
  if (terminal.empty()) {
    throw UsageError("{}: a picture's name must end in .svg or .png", path.string());
  }
  return fmt::format("set encoding utf8\nset terminal {} size {},{}\nset output 'picture'\n",
                     terminal, width, height);
}

void draw(const std::string& script, const fs::path& path) {
  const WorkDirectory directory(path);
  {
    std::ofstream file(directory / "script", std::ios::binary);
    file << script;
    file.close();
    if (!file) throw IoError("{}: cannot write: {}", path.string(), std::strerror(errno));
  }
  const int status = run_gnuplot(directory);
  if (status != 0) {
    throw IoError("{}: gnuplot failed: {}", path.string(), last_line(directory / "messages"));
  }
  std::error_code error;
  fs::rename(directory / "picture", path, error);
  if (error) throw IoError("{}: cannot write: {}", path.string(), error.message());
}

bool drawable(double value, Scale scale) {
  return std::isfinite(value) && (scale == Scale::kLinear || value > 0);
}

void check(const LineChart& chart) {
  bool any = false;
  for (const Series& series : chart.series) {
    if (series.x.size() != series.y.size()) {
      throw UsageError("chart '{}': series '{}' has {} x and {} y values", chart.title, series.name,
                       series.x.size(), series.y.size());
    }
    for (size_t i = 0; i < series.x.size(); ++i) {
      any = any || (drawable(series.x[i], chart.x_scale) && drawable(series.y[i], chart.y_scale));
    }
  }
  if (!any) throw UsageError("chart '{}' has nothing to draw", chart.title);
}

std::string labels(const std::string& title, const std::string& x, const std::string& y) {
  return fmt::format("set title {}\nset xlabel {}\nset ylabel {}\n", quoted(title), quoted(x),
                     quoted(y));
}

// "set xtics ('a' 0, 'b' 1)", at most `most` of them, evenly thinned out.
std::string tics(char axis, const std::vector<std::string>& names, size_t most) {
  const size_t step = (names.size() + most - 1) / most;
  std::string text = fmt::format("set {}tics (", axis);
  for (size_t i = 0; i < names.size(); i += step) {
    text += fmt::format("{}{} {}", i > 0 ? ", " : "", quoted(names[i]), i);
  }
  return text + ")\n";
}

}  // namespace

void write_plot(const LineChart& chart, const fs::path& path) {
  check(chart);
  std::string script = terminal_command(path, 900, 560);
  script += labels(chart.title, chart.x_label, chart.y_label);
  script += "set grid lt 1 lc rgb '#e4e4e4'\nset key top right\nset border 3\nset tics nomirror\n";
  if (chart.x_scale == Scale::kLogarithmic) script += "set logscale x\n";
  if (chart.y_scale == Scale::kLogarithmic) script += "set logscale y\n";
  std::string plots;
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const Series& series = chart.series[i];
    if (series.x.empty()) continue;
    script += fmt::format("$data{} << END\n", i);
    for (size_t k = 0; k < series.x.size(); ++k) {
      script += number(series.x[k]) + " " + number(series.y[k]) + "\n";
    }
    script += "END\n";
    // A single point has no line to show.
    const std::string_view style = series.x.size() == 1 ? "points pt 7" : "lines lw 2";
    plots += fmt::format("{}$data{} using 1:2 with {} title {}", plots.empty() ? "" : ", ", i,
                         style, quoted(series.name));
  }
  draw(script + "plot " + plots + "\n", path);
}

void write_plot(const HeatMap& map, const fs::path& path) {
  check(map);
  const auto rows = static_cast<int>(map.row_labels.size());
  const auto columns = static_cast<int>(map.column_labels.size());
  const auto fit = [](int cells, int room) { return std::min(std::max(cells, 240), room); };
  std::string script =
      terminal_command(path, 260 + fit(columns * 28, 1600), 160 + fit(rows * 28, 1600));
  script += labels(map.title, map.x_label, map.y_label);
  script += tics('x', map.column_labels, 64) + tics('y', map.row_labels, 64);
  if (columns > 16) script += "set xtics rotate by -90\n";
  const Shades shades(map);
  // gnuplot warns about an empty range; any other will do when all values are equal.
  const double high = shades.high > shades.low ? shades.high : shades.low + 1;
  script += fmt::format("set cbrange [{}:{}]\n", number(shades.low), number(high));
  script += fmt::format("set xrange [-0.5:{}.5]\nset yrange [{}.5:-0.5]\n", columns - 1, rows - 1);
  // Viridis: steady in lightness, legible without colour vision and in print.
  script +=
      "set palette defined (0 '#440154', 1 '#3b528b', 2 '#21918c', 3 '#5ec962', 4 '#fde725')\n"
      "unset key\nset tics scale 0\n$data << END\n";
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      script += fmt::format("{} {} {}\n", column, row, number(map.values[row * columns + column]));
    }
  }
  draw(script + "END\nplot $data using 1:2:3 with image pixels\n", path);
}

}  // namespace cadre
