#pragma once

/// The one list of what `cadre` can do: `cadre --help`, the man page and the completion are made of
/// it.

#include <array>
#include <string>
#include <string_view>

namespace cadre {

struct Verb {
  std::string_view name;
  std::string_view help;  ///< one line
};

inline constexpr std::array kVerbs = {
    Verb{"quickstart", "train an expert model beside its dense twin, show who does what, generate"},
    Verb{"train", "train or fine-tune one language model on text in domains"},
    Verb{"eval", "measure a checkpoint's validation loss on each domain"},
    Verb{"generate", "continue a prompt"},
    Verb{"inspect", "show a checkpoint's architecture, parameters and tensors"},
    Verb{"run", "continue a prompt or chat, within the memory you give"},
    Verb{"compose", "put several models behind one router, from labelled prompts"},
    Verb{"bench", "measure how fast a model reads and writes here"},
    Verb{"plan", "show what a model needs and what a memory budget gives it"},
    Verb{"pack", "store a GGUF model so that its experts are read without repacking"},
    Verb{"replay", "compare cache policies on recorded routes"},
    Verb{"train-predictor", "train a small network that forecasts a model's routes"},
    Verb{"perplexity", "measure how well a model predicts a text"},
    Verb{"tune", "show what a model's routing knobs cost and save on a text"},
    Verb{"list", "show what can be chosen by name: routers, objectives"},
    Verb{"routes", "show which experts work on which domain"},
    Verb{"recipe", "run a published system beside its baselines, with a verdict"},
    Verb{"data", "show and fetch the data sets that recipes read"},
    Verb{"convert", "turn a checkpoint folder into a GGUF file, or one into a folder"},
    Verb{"delta", "store what fine-tuning changed in under a bit a parameter, and add it back"},
    Verb{"lora", "merge, extract and combine low-rank adapters"},
    Verb{"reshape", "make a checkpoint of checkpoints by a plan of steps, in little memory"},
    Verb{"merge", "make one model of several, by mergekit's methods and files"},
    Verb{"quantize", "store a model's weights in fewer bits, as a GGUF file"},
    Verb{"upcycle", "make an expert model of dense ones"},
    Verb{"factorize", "cut a dense model's feed-forward layers into experts"},
    Verb{"calibrate", "collect what a model does on texts, for merging and pruning"},
    Verb{"merge-experts", "merge a model's experts into fewer, guided by its router"},
    Verb{"prune", "drop the experts that matter least"},
    Verb{"compress",
         "store experts as low rank plus a few whole rows, or a model in so many bytes"},
    Verb{"tokenizer", "train a byte-level BPE tokenizer, encode and decode"},
};

/// The verb of that name. Throws UsageError that names the nearest one.
const Verb& verb_named(std::string_view name);

}  // namespace cadre
