#pragma once

/// Text in domains made ready for models: a tokenizer, and for each domain token files of its
/// training and its held-out part. Kept in a folder and used again as long as text and options stay
/// the same.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cadre/formats/debian_domains.h"
#include "cadre/formats/tokenizer.h"
#include "tools/common/command_line.h"

namespace cadre {

/// Where a domain's text comes from.
struct DomainSource {
  std::string name;
  std::vector<std::filesystem::path> paths;  ///< one, or those of a Debian domain
  const DebianDomain* debian = nullptr;      ///< null for text of the user's own
  std::filesystem::path root = "/";          ///< below which Debian's files lie
};

struct PreparationOptions {
  std::vector<std::string> domains;         ///< "NAME=PATH"; none = debian_domains()
  std::filesystem::path debian_root = "/";  ///< where those packages are unpacked
  std::string tokenizer;        ///< a tokenizer.json or its folder to use; empty = train one
  int64_t vocabulary = 4096;    ///< size of the tokenizer to train
  int64_t max_domain_mib = 16;  ///< MiB read of each domain at most
  int64_t hold_out_every = 20;  ///< every so many-th block of a domain's text is held out
  int64_t block_kib = 16;       ///< KiB of a block; smaller for a small domain
};

/// --domain, --tokenizer, --vocabulary and so on.
void add_preparation_options(CommandLine& line, PreparationOptions& options);

struct PreparedDomain {
  std::string name, source;
  int64_t bytes = 0, train_tokens = 0, validation_tokens = 0;
  std::filesystem::path train, validation;  ///< token files
};

struct PreparedData {
  std::filesystem::path folder;
  Tokenizer tokenizer;
  std::vector<PreparedDomain> domains;
};

/// Opens what prepare_data() left in `folder`. Throws IoError, FormatError.
PreparedData load_prepared(const std::filesystem::path& folder);

/// What to do with prepared data whose text has changed since: a run under way goes on with what it
/// has.
enum class ChangedText { kPrepareAgain, kKeep };

/// Uses what is in `folder` when the options are the same, else reads the domains, trains the
/// tokenizer and replaces the folder at once. Says on stderr what it does. Throws UsageError: no
/// domain, a name twice, unusable text, a domain whose training or held-out part is smaller than
/// one sequence of `length` tokens, and for kKeep an option that differs.
PreparedData prepare_data(const std::filesystem::path& folder, const PreparationOptions& options,
                          int64_t length, ChangedText changed);

/// Encodes whole domains with a checkpoint's tokenizer, nothing split off, for eval and routes.
PreparedData encode_domains(const std::filesystem::path& folder,
                            const std::vector<std::string>& domains, const Tokenizer& tokenizer,
                            int64_t max_domain_mib);

}  // namespace cadre
