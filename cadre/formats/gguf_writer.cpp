#include "cadre/formats/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <set>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/formats/json.h"

namespace cadre {
namespace {

constexpr uint32_t kVersion = 3;
constexpr int64_t kDefaultAlignment = 32, kMaxAlignment = 1 << 20;
constexpr size_t kMaxKey = 65535;
constexpr const char* kAlignmentKey = "general.alignment";

template <typename T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void append_text(std::string& out, std::string_view text) {
  append(out, static_cast<uint64_t>(text.size()));
  out += text;
}

int64_t padded(int64_t size, int64_t alignment) {
  return (size + alignment - 1) / alignment * alignment;
}

void check_names(const std::vector<GgufTensorSpec>& tensors) {
  std::set<std::string_view> names;
  for (const GgufTensorSpec& tensor : tensors)
    if (tensor.name.empty() || !names.insert(tensor.name).second)
      throw UsageError("GGUF: tensor {} has no name, or one that is taken", quote(tensor.name));
}

}  // namespace

int64_t tensor_bytes(const GgufTensorSpec& tensor) {
  const GgufTensorType* type = find_gguf_tensor_type(tensor.type);
  if (type == nullptr)
    throw UsageError("GGUF: tensor {} has the unknown type {}", quote(tensor.name), tensor.type);
  if (tensor.dims.empty() || tensor.dims.size() > 4)
    throw UsageError("GGUF: tensor {} has {} dimensions, must have 1 to 4", quote(tensor.name),
                     tensor.dims.size());
  int64_t elements = 1, bytes = 0;
  for (const int64_t dim : tensor.dims)
    if (dim < 0 || __builtin_mul_overflow(elements, dim, &elements))
      throw UsageError("GGUF: the dimensions of tensor {} overflow", quote(tensor.name));
  if (tensor.dims[0] % type->elements != 0)
    throw UsageError("GGUF: tensor {} of type {} has rows of {}, which is no multiple of {}",
                     quote(tensor.name), type->name, tensor.dims[0], type->elements);
  if (__builtin_mul_overflow(elements / type->elements, type->bytes, &bytes))
    throw UsageError("GGUF: the dimensions of tensor {} overflow", quote(tensor.name));
  return bytes;
}

void GgufKeys::begin(const std::string& key, GgufType type) {
  if (key.empty() || key.size() > kMaxKey)
    throw UsageError("GGUF: a key must have 1 to {} bytes", kMaxKey);
  if (contains(key)) throw UsageError("GGUF: key {} is there twice", quote(key));
  entries_.push_back({key, type, ""});
}

void GgufKeys::put(std::string_view text) { append_text(entries_.back().bytes, text); }

void GgufKeys::add(const std::string& key, std::string_view text) {
  begin(key, GgufType::kString);
  put(text);
}

void GgufKeys::add(const std::string& key, const std::vector<std::string>& texts) {
  begin(key, GgufType::kArray);
  put(static_cast<uint32_t>(GgufType::kString));
  put(static_cast<uint64_t>(texts.size()));
  for (const std::string& text : texts) put(std::string_view(text));
}

void GgufKeys::add(const std::string& key, const GgufRawValue& value) {
  begin(key, value.type);
  entries_.back().bytes.assign(reinterpret_cast<const char*>(value.bytes.data()),
                               value.bytes.size());
}

bool GgufKeys::contains(const std::string& key) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const Entry& entry) { return entry.key == key; });
}

void GgufKeys::remove(const std::string& key) {
  std::erase_if(entries_, [&](const Entry& entry) { return entry.key == key; });
}

struct GgufWriter::State {
  AtomicFile file;
  std::vector<GgufTensorSpec> tensors;
  int64_t alignment = kDefaultAlignment;
  size_t due = 0;       // the tensor that takes the next bytes
  int64_t written = 0;  // of it

  State(const std::filesystem::path& path, std::vector<GgufTensorSpec> specs)
      : file(path), tensors(std::move(specs)) {}

  void pad(int64_t size) {
    const std::string zeros(static_cast<size_t>(padded(size, alignment) - size), '\0');
    if (!zeros.empty()) file.write(zeros);
  }

  /// Steps over tensors that have all their bytes, among them those that hold none.
  void settle() {
    while (due < tensors.size() && written == tensor_bytes(tensors[due])) {
      pad(written);
      ++due;
      written = 0;
    }
  }
};

/// Keys and tensor table.
struct GgufHead {
  std::string text;
  int64_t alignment = kDefaultAlignment;
  int64_t tensor_bytes = 0;  ///< with the gaps between them

  GgufHead(const GgufKeys& keys, const std::vector<GgufTensorSpec>& tensors) {
    check_names(tensors);
    text = "GGUF";
    append(text, kVersion);
    append(text, static_cast<uint64_t>(tensors.size()));
    append(text, static_cast<uint64_t>(keys.entries_.size()));
    for (const GgufKeys::Entry& entry : keys.entries_) {
      append_text(text, entry.key);
      append(text, static_cast<uint32_t>(entry.type));
      text += entry.bytes;
      if (entry.key != kAlignmentKey) continue;
      uint32_t stated = 0;
      if (entry.type == GgufType::kU32) std::memcpy(&stated, entry.bytes.data(), sizeof(stated));
      if (!std::has_single_bit(stated) || stated > kMaxAlignment)
        throw UsageError("GGUF: {} must be a power of two up to 2^20, as a u32", kAlignmentKey);
      alignment = stated;
    }
    for (const GgufTensorSpec& tensor : tensors) {
      const int64_t bytes = cadre::tensor_bytes(tensor);
      append_text(text, tensor.name);
      append(text, static_cast<uint32_t>(tensor.dims.size()));
      for (const int64_t dim : tensor.dims) append(text, dim);
      append(text, tensor.type);
      append(text, tensor_bytes);
      if (__builtin_add_overflow(tensor_bytes, padded(bytes, alignment), &tensor_bytes))
        throw UsageError("GGUF: the tensors' sizes overflow");
    }
  }
};

int64_t gguf_bytes(const GgufKeys& keys, const std::vector<GgufTensorSpec>& tensors) {
  const GgufHead head(keys, tensors);
  return padded(static_cast<int64_t>(head.text.size()), head.alignment) + head.tensor_bytes;
}

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufKeys& keys,
                       std::vector<GgufTensorSpec> tensors) {
  const GgufHead head(keys, tensors);
  state_ = std::make_unique<State>(path, std::move(tensors));
  state_->alignment = head.alignment;
  state_->file.write(head.text);
  state_->pad(static_cast<int64_t>(head.text.size()));
  state_->settle();
}

GgufWriter::~GgufWriter() = default;

void GgufWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  State& state = *state_;
  if (state.due == state.tensors.size() || state.tensors[state.due].name != name) {
    throw Error("GGUF: tensor {} is not due, {} is", quote(name),
                state.due == state.tensors.size() ? "none" : quote(state.tensors[state.due].name));
  }
  const int64_t total = tensor_bytes(state.tensors[state.due]);
  if (static_cast<int64_t>(bytes.size()) > total - state.written) {
    throw Error("GGUF: tensor {} gets {} bytes, has room for {}", quote(name),
                state.written + static_cast<int64_t>(bytes.size()), total);
  }
  state.file.write(bytes);
  state.written += static_cast<int64_t>(bytes.size());
  state.settle();
}

void GgufWriter::commit() {
  if (state_->due != state_->tensors.size()) {
    const GgufTensorSpec& tensor = state_->tensors[state_->due];
    throw Error("GGUF: tensor {} has {} of its {} bytes", quote(tensor.name), state_->written,
                tensor_bytes(tensor));
  }
  state_->file.commit();
}

}  // namespace cadre
