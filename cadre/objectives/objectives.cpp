#include "cadre/objectives/objectives.h"

#include <array>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/objectives/balance_forms.h"
#include "cadre/objectives/router_losses.h"

namespace cadre {
namespace {

constexpr std::array kObjectives = {
    ObjectiveEntry{"balance", 0.01, "experts get equal shares of the pairs",
                   "Fedus et al., Switch Transformers, 2022; DeepSeekMoE, 2024",
                   [](const Routing& routing, const RouteInput& input) {
                     return expert_balance(routing, input);
                   }},
    ObjectiveEntry{"balance_per_sequence", 1e-4, "the same within each sequence",
                   "DeepSeek-V3 Technical Report, 2024",
                   [](const Routing& routing, const RouteInput& input) {
                     return expert_balance(routing, input, BalanceScope::kSequence);
                   }},
    ObjectiveEntry{
        "balance_per_token", 0.01, "the same, harder where tokens take more experts",
        "Huang et al., Harder Tasks Need More Experts, 2024",
        [](const Routing& routing, const RouteInput&) { return balance_per_token(routing); }},
    ObjectiveEntry{
        "balance_pooled_nulls", 1e-3, "true experts alike, null experts together their share",
        "Zeng et al., AdaMoE, 2024",
        [](const Routing& routing, const RouteInput&) { return balance_pooled_nulls(routing); }},
    ObjectiveEntry{
        "balance_gshard", 0.01, "equal shares of the tokens' first choices",
        "Lepikhin et al., GShard, 2021",
        [](const Routing& routing, const RouteInput&) { return balance_gshard(routing); }},
    ObjectiveEntry{
        "importance", 0.005, "equal sums of probability",
        "Shazeer et al., Outrageously Large Neural Networks, 2017; V-MoE, 2021",
        [](const Routing& routing, const RouteInput&) { return importance_loss(routing); }},
    ObjectiveEntry{"load", 0.005, "equal chances of being chosen when the noise is drawn again",
                   "Riquelme et al., V-MoE, 2021",
                   [](const Routing& routing, const RouteInput&) {
                     return load_loss(routing, 1.0 / static_cast<double>(routing.experts));
                   }},
    ObjectiveEntry{
        "z_loss", 0.001, "small logits", "Zoph et al., ST-MoE, 2022",
        [](const Routing& routing, const RouteInput&) { return router_z_loss(routing); }},
    ObjectiveEntry{
        "router_entropy", 1e-4, "probabilities that decide",
        "Huang et al., Harder Tasks Need More Experts, 2024",
        [](const Routing& routing, const RouteInput&) { return router_entropy(routing); }},
};

}  // namespace

std::span<const ObjectiveEntry> objectives_list() { return kObjectives; }

RoutingObjective make_objective(std::string_view name, double coefficient) {
  std::vector<std::string> names;
  for (const ObjectiveEntry& entry : kObjectives) {
    if (entry.name == name) return {std::string(name), coefficient, entry.evaluate};
    names.emplace_back(entry.name);
  }
  throw UsageError("unknown objective '{}'{} (cadre list objectives shows them)", one_line(name),
                   did_you_mean(name, names));
}

}  // namespace cadre
