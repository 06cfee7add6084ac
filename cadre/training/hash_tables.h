#pragma once

#include "cadre/data/token_batches.h"
#include "cadre/training/language_model.h"

namespace cadre {

/// Gives a new model's hash routers tables that share the training text equally among experts: ids
/// count as often as they occur, domains as much as they are drawn. Models without such routers
/// stay as they are. Reads all training tokens once (about a second per 500 million).
void balance_hash_tables(LanguageModel& model, const TokenBatches& data);

}  // namespace cadre
