#include "cadre/reshape/neuron_partition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/kernels/gemm.h"

namespace cadre::reshape {
namespace {

void check(int64_t neurons, int64_t experts) {
  if (experts >= 1 && neurons % experts == 0) return;
  throw UsageError("factorize: {} neurons cannot be dealt out evenly to {} experts", neurons,
                   experts);
}

void sort_within(NeuronPartition& partition) {
  const auto size =
      static_cast<int64_t>(partition.order.size()) / std::max<int64_t>(partition.experts, 1);
  for (int64_t e = 0; e < partition.experts; ++e) {
    std::sort(partition.order.begin() + e * size, partition.order.begin() + (e + 1) * size);
  }
}

/// Balanced k-means on rows of length 1: closeness is the inner product with a centre.
class Clusters {
 public:
  Clusters(int64_t n, int64_t width, const float* features, int64_t k)
      : n_(n),
        width_(width),
        k_(k),
        x_(features, features + n * width),
        centres_(static_cast<size_t>(k * width)),
        closeness_(static_cast<size_t>(n * k)),
        cluster_(static_cast<size_t>(n), -1) {
    for (int64_t i = 0; i < n_; ++i) normalize(x_.data() + i * width_);
  }

  void seed(uint64_t seed) {
    Random random(seed, {static_cast<uint64_t>(n_), static_cast<uint64_t>(k_)});
    std::vector<double> distance(static_cast<size_t>(n_), 1);
    for (int64_t c = 0; c < k_; ++c) {
      double left = random.uniform() * std::accumulate(distance.begin(), distance.end(), 0.0);
      int64_t pick = 0;
      while (pick + 1 < n_ && (left -= distance[static_cast<size_t>(pick)]) >= 0) ++pick;
      std::copy_n(x_.data() + pick * width_, width_, centres_.data() + c * width_);
      for (int64_t i = 0; i < n_; ++i) {
        const double far = 2 - 2 * dot(x_.data() + i * width_, centres_.data() + c * width_);
        double& nearest = distance[static_cast<size_t>(i)];
        nearest = c == 0 ? std::max(far, 0.0) : std::min(nearest, std::max(far, 0.0));
      }
    }
  }

  /// Whether anything moved.
  bool round() {
    const std::vector<int32_t> before = cluster_;
    kernels::gemm(kernels::Op::kNone, kernels::Op::kTranspose, n_, k_, width_, 1, x_.data(), width_,
                  centres_.data(), width_, 0, closeness_.data(), k_);
    deal();
    exchange();
    move_centres();
    return cluster_ != before;
  }

  NeuronPartition result() const {
    NeuronPartition result = {.experts = k_};
    for (int64_t c = 0; c < k_; ++c) {
      for (int64_t i = 0; i < n_; ++i) {
        if (cluster_[static_cast<size_t>(i)] == c) result.order.push_back(static_cast<int32_t>(i));
      }
    }
    return result;
  }

 private:
  float close(int64_t i, int64_t c) const { return closeness_[static_cast<size_t>(i * k_ + c)]; }

  double dot(const float* a, const float* b) const {
    double sum = 0;
    for (int64_t j = 0; j < width_; ++j) sum += double{a[j]} * b[j];
    return sum;
  }

  void normalize(float* row) const {
    const double length = std::sqrt(dot(row, row));
    if (length <= 0) return;
    for (int64_t j = 0; j < width_; ++j) row[j] = static_cast<float>(row[j] / length);
  }

  /// Each neuron joins the closest cluster with room, those first that lose most by waiting.
  void deal() {
    std::vector<std::pair<float, int32_t>> order;
    for (int64_t i = 0; i < n_; ++i) {
      float first = -std::numeric_limits<float>::infinity(), second = first;
      for (int64_t c = 0; c < k_; ++c) {
        const float value = close(i, c);
        if (value > first) {
          second = first;
          first = value;
        } else {
          second = std::max(second, value);
        }
      }
      order.emplace_back(k_ == 1 ? 0.0F : second - first, static_cast<int32_t>(i));
    }
    std::sort(order.begin(), order.end());
    std::vector<int64_t> room(static_cast<size_t>(k_), n_ / k_);
    for (const auto& [loss, i] : order) {
      int64_t best = -1;
      for (int64_t c = 0; c < k_; ++c) {
        if (room[static_cast<size_t>(c)] == 0) continue;
        if (best < 0 || close(i, c) > close(i, best)) best = c;
      }
      --room[static_cast<size_t>(best)];
      cluster_[static_cast<size_t>(i)] = static_cast<int32_t>(best);
    }
  }

  /// For every two clusters, exchanges the pairs that gain most together until none gains.
  void exchange() {
    for (int32_t a = 0; a < k_; ++a) {
      for (int32_t b = a + 1; b < k_; ++b) exchange_between(a, b);
    }
  }

  void exchange_between(int32_t a, int32_t b) {
    std::vector<std::pair<float, int32_t>> from_a, from_b;  // (loss by moving, neuron)
    for (int64_t i = 0; i < n_; ++i) {
      const int32_t c = cluster_[static_cast<size_t>(i)];
      if (c == a) from_a.emplace_back(close(i, a) - close(i, b), static_cast<int32_t>(i));
      if (c == b) from_b.emplace_back(close(i, b) - close(i, a), static_cast<int32_t>(i));
    }
    std::sort(from_a.begin(), from_a.end());
    std::sort(from_b.begin(), from_b.end());
    for (size_t i = 0; i < from_a.size() && from_a[i].first + from_b[i].first < 0; ++i) {
      cluster_[static_cast<size_t>(from_a[i].second)] = b;
      cluster_[static_cast<size_t>(from_b[i].second)] = a;
    }
  }

  void move_centres() {
    std::fill(centres_.begin(), centres_.end(), 0.0F);
    for (int64_t i = 0; i < n_; ++i) {
      float* centre = centres_.data() + cluster_[static_cast<size_t>(i)] * width_;
      for (int64_t j = 0; j < width_; ++j) centre[j] += x_[static_cast<size_t>(i * width_ + j)];
    }
    for (int64_t c = 0; c < k_; ++c) normalize(centres_.data() + c * width_);
  }

  int64_t n_, width_, k_;
  std::vector<float> x_, centres_, closeness_;  ///< [n, width], [k, width], [n, k]
  std::vector<int32_t> cluster_;
};

}  // namespace

NeuronPartition partition_contiguous(int64_t neurons, int64_t experts) {
  check(neurons, experts);
  NeuronPartition partition = {.experts = experts};
  partition.order.resize(static_cast<size_t>(neurons));
  std::iota(partition.order.begin(), partition.order.end(), 0);
  return partition;
}

NeuronPartition partition_random(int64_t neurons, int64_t experts, uint64_t seed) {
  NeuronPartition partition = partition_contiguous(neurons, experts);
  Random random(seed, {static_cast<uint64_t>(neurons)});
  std::shuffle(partition.order.begin(), partition.order.end(), random);
  sort_within(partition);
  return partition;
}

NeuronPartition partition_kmeans(int64_t neurons, int64_t width, const float* features,
                                 int64_t experts, uint64_t seed, int64_t rounds) {
  check(neurons, experts);
  Clusters clusters(neurons, width, features, experts);
  clusters.seed(seed);
  for (int64_t round = 0; round < rounds && clusters.round(); ++round) {
  }
  return clusters.result();
}

DomainMasks mask_by_activity(int64_t domains, int64_t neurons, const double* activity,
                             double rate) {
  if (!(rate > 0 && rate <= 1)) {
    throw UsageError("factorize: the rate of neurons kept is {}, must be in (0, 1]", rate);
  }
  const auto kept = static_cast<int64_t>(rate * static_cast<double>(neurons));
  std::vector<int64_t> keepers(static_cast<size_t>(neurons), 0);
  DomainMasks masks;
  for (int64_t d = 0; d < domains; ++d) {
    std::vector<int32_t> order(static_cast<size_t>(neurons));
    std::iota(order.begin(), order.end(), 0);
    const double* row = activity + d * neurons;
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return row[a] > row[b]; });
    order.resize(static_cast<size_t>(kept));
    std::sort(order.begin(), order.end());
    for (const int32_t neuron : order) ++keepers[static_cast<size_t>(neuron)];
    masks.specific.push_back(std::move(order));
  }
  const auto is_shared = [&](int32_t i) { return keepers[static_cast<size_t>(i)] == domains; };
  for (int32_t i = 0; i < neurons; ++i) {
    if (is_shared(i)) masks.shared.push_back(i);
  }
  for (auto& mask : masks.specific) std::erase_if(mask, is_shared);
  return masks;
}

}  // namespace cadre::reshape
