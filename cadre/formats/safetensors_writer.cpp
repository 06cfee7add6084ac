#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/safetensors_layout.h"

namespace cadre {

namespace fs = std::filesystem;

namespace {

int64_t bytes_of(const TensorSpec& tensor) {
  int64_t bytes = size_of(tensor.dtype);
  for (const int64_t size : tensor.shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) {
      throw UsageError("tensor {}: impossible shape [{}]", quote(tensor.name),
                       fmt::join(tensor.shape, ", "));
    }
  }
  return bytes;
}

/// The header's JSON, padded with spaces so that the data begins at a multiple of 8 bytes.
std::string header_json(const std::vector<TensorSpec>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    if (tensor.name == "__metadata__") throw UsageError("a tensor can't be named __metadata__");
    if (header.contains(tensor.name)) {
      throw UsageError("tensor {} is declared twice", quote(tensor.name));
    }
    const int64_t begin = offset;
    if (__builtin_add_overflow(offset, bytes_of(tensor), &offset)) {
      throw UsageError("tensor {}: more bytes than a file can hold", quote(tensor.name));
    }
    header[tensor.name] = {{"dtype", name_of(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, offset}}};
  }
  try {
    std::string text = header.dump();
    text.append((8 - text.size() % 8) % 8, ' ');
    return text;
  } catch (const nlohmann::json::type_error&) {
    throw UsageError("a tensor's name or the metadata is not valid UTF-8");
  }
}

}  // namespace

std::string safetensors_head(const std::vector<TensorSpec>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  const std::string header = header_json(tensors, metadata);
  std::string head(8, '\0');
  for (size_t i = 0; i < 8; ++i) head[i] = static_cast<char>(header.size() >> (8 * i));
  return head + header;
}

std::vector<std::vector<TensorSpec>> cut_shards(std::vector<TensorSpec> tensors,
                                                int64_t shard_bytes) {
  std::vector<std::vector<TensorSpec>> shards(1);
  int64_t room = shard_bytes;
  for (TensorSpec& tensor : tensors) {
    const int64_t bytes = bytes_of(tensor);
    if (bytes > room && !shards.back().empty()) {
      shards.emplace_back();
      room = shard_bytes;
    }
    room -= std::min(bytes, room);
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

std::string shard_name(const std::string& stem, size_t shard, size_t shards) {
  if (shards == 1) return stem + ".safetensors";
  return fmt::format("{}-{:05}-of-{:05}.safetensors", stem, shard + 1, shards);
}

std::string shard_index_json(const std::string& stem,
                             const std::vector<std::vector<TensorSpec>>& shards) {
  nlohmann::json weight_map = nlohmann::json::object();
  int64_t total = 0;
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    for (const TensorSpec& tensor : shards[shard]) {
      weight_map[tensor.name] = shard_name(stem, shard, shards.size());
      total += bytes_of(tensor);
    }
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}},
                                        {"weight_map", weight_map}};
  return index.dump(2) + "\n";
}

struct SafetensorsWriter::State {
  AtomicFile file;
  fs::path path;
  std::vector<TensorSpec> tensors;
  size_t next = 0;
};

SafetensorsWriter::SafetensorsWriter(const fs::path& path, const std::vector<TensorSpec>& tensors,
                                     const std::map<std::string, std::string>& metadata) {
  const std::string head = safetensors_head(tensors, metadata);
  state_.reset(new State{.file = AtomicFile(path), .path = path, .tensors = tensors});
  state_->file.write(head);
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  State& state = *state_;
  if (state.next == state.tensors.size() || state.tensors[state.next].name != name) {
    throw Error("{}: tensor {} is written out of the declared order", state.path.string(),
                quote(name));
  }
  const int64_t expected = bytes_of(state.tensors[state.next]);
  if (static_cast<int64_t>(bytes.size()) != expected) {
    throw Error("{}: tensor {} has {} bytes, declared are {}", state.path.string(), quote(name),
                bytes.size(), expected);
  }
  state.file.write(bytes);
  ++state.next;
}

void SafetensorsWriter::commit() {
  if (state_->next != state_->tensors.size()) {
    throw Error("{}: tensor {} is not written", state_->path.string(),
                quote(state_->tensors[state_->next].name));
  }
  state_->file.commit();
}

struct ShardedWriter::State {
  fs::path folder;
  std::vector<std::vector<TensorSpec>> plan;             ///< the tensors of each shard
  std::vector<std::unique_ptr<SafetensorsWriter>> open;  ///< shards begun; they appear at commit
  size_t written = 0;                                    ///< tensors written into the last begun

  void begin_shard() {
    const size_t shard = open.size();
    open.push_back(std::make_unique<SafetensorsWriter>(
        folder / shard_name("model", shard, plan.size()), plan[shard],
        std::map<std::string, std::string>{{"format", "pt"}}));
    written = 0;
  }
};

ShardedWriter::ShardedWriter(const fs::path& folder, std::vector<TensorSpec> tensors,
                             int64_t shard_bytes)
    : state_(std::make_unique<State>()) {
  header_json(tensors, {});  // complains about names that repeat across shards
  state_->folder = folder;
  state_->plan = cut_shards(std::move(tensors), shard_bytes);
  state_->begin_shard();
}

ShardedWriter::~ShardedWriter() = default;

void ShardedWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  State& state = *state_;
  if (state.written == state.plan[state.open.size() - 1].size() &&
      state.open.size() < state.plan.size()) {
    state.begin_shard();
  }
  state.open.back()->write(name, bytes);
  ++state.written;
}

void ShardedWriter::commit() {
  const State& state = *state_;
  if (state.open.size() < state.plan.size()) {
    throw Error("{}: tensor {} is not written", state.folder.string(),
                quote(state.plan[state.open.size()].front().name));
  }
  for (const auto& shard : state.open) shard->commit();
  const fs::path index = state.folder / "model.safetensors.index.json";
  std::error_code ignored;
  if (state.plan.size() == 1) {
    fs::remove(index, ignored);
  } else {
    write_file(index, shard_index_json("model", state.plan));
    fs::remove(state.folder / "model.safetensors", ignored);
  }
}

}  // namespace cadre
