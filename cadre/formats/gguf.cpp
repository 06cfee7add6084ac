#include "cadre/formats/gguf.h"

#include <algorithm>
#include <bit>

#include "cadre/formats/json.h"

namespace cadre {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read on little-endian machines");

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int kMaxDepth = 4;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kDefaultAlignment = 32;

constexpr GgufTensorType kTensorTypes[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},  {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},   {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
};

/// Bytes of a value of fixed size, 0 for strings and arrays.
uint64_t size_of(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    default:
      return 0;
  }
}

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

GgufValue load_number(GgufType type, const std::byte* from) {
  switch (type) {
    case GgufType::kU8:
      return uint64_t{load<uint8_t>(from)};
    case GgufType::kI8:
      return int64_t{load<int8_t>(from)};
    case GgufType::kU16:
      return uint64_t{load<uint16_t>(from)};
    case GgufType::kI16:
      return int64_t{load<int16_t>(from)};
    case GgufType::kU32:
      return uint64_t{load<uint32_t>(from)};
    case GgufType::kI32:
      return int64_t{load<int32_t>(from)};
    case GgufType::kU64:
      return load<uint64_t>(from);
    case GgufType::kI64:
      return load<int64_t>(from);
    case GgufType::kF32:
      return double{load<float>(from)};
    case GgufType::kF64:
      return load<double>(from);
    case GgufType::kBool:
      return load<uint8_t>(from) != 0;
    default:
      throw Error("GGUF type {} is no number", static_cast<uint32_t>(type));
  }
}

std::optional<int64_t> to_integer(const GgufValue& value) {
  if (const auto* natural = std::get_if<uint64_t>(&value))
    return *natural <= INT64_MAX ? std::optional(static_cast<int64_t>(*natural)) : std::nullopt;
  if (const auto* integer = std::get_if<int64_t>(&value)) return *integer;
  return std::nullopt;
}

/// Walks the header; refuses to step past the end.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& where)
      : bytes_(bytes), where_(where) {}

  uint64_t position() const { return at_; }
  uint64_t left() const { return bytes_.size() - at_; }

  std::span<const std::byte> take(uint64_t size, const std::string& what) {
    if (size > left())
      throw FormatError("{}: {} needs {} bytes at offset {}, but the file ends at {}", where_, what,
                        size, at_, bytes_.size());
    const auto part = bytes_.subspan(at_, size);
    at_ += size;
    return part;
  }

  template <typename T>
  T number(const std::string& what) {
    return load<T>(take(sizeof(T), what).data());
  }

  std::string_view text(const std::string& what) {
    const auto size = number<uint64_t>(what);
    const auto part = take(size, what);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }

  /// A number of things that take at least `least` bytes each.
  uint64_t count(uint64_t least, const std::string& what) {
    const auto value = number<uint64_t>(what);
    if (value > left() / least)
      throw FormatError("{}: {} is {}, but only {} bytes follow", where_, what, value, left());
    return value;
  }

  GgufType type(const std::string& what) {
    const auto id = number<uint32_t>(what);
    if (id > static_cast<uint32_t>(GgufType::kF64))
      throw FormatError("{}: {} has the unknown type {}", where_, what, id);
    return static_cast<GgufType>(id);
  }

  std::span<const std::byte> since(uint64_t begin) const {
    return bytes_.subspan(begin, at_ - begin);
  }

  GgufValue value(GgufType type, const std::string& what) {
    if (type == GgufType::kString) return text(what);
    if (type == GgufType::kArray) return array(what, 1);
    return load_number(type, take(size_of(type), what).data());
  }

 private:
  GgufArray array(const std::string& what, int depth) {
    if (depth > kMaxDepth)
      throw FormatError("{}: {} nests arrays deeper than {}", where_, what, kMaxDepth);
    GgufArray result;
    result.type = type(what);
    const uint64_t fixed = size_of(result.type);
    const uint64_t least = fixed ? fixed : result.type == GgufType::kString ? 8 : 12;
    result.size = count(least, what);
    if (fixed) {
      result.numbers = take(result.size * fixed, what);
    } else if (result.type == GgufType::kString) {
      result.strings.reserve(result.size);
      for (uint64_t i = 0; i < result.size; ++i) result.strings.push_back(text(what));
    } else {
      for (uint64_t i = 0; i < result.size; ++i) result.arrays.push_back(array(what, depth + 1));
    }
    return result;
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
  uint64_t at_ = 0;
};

/// Bytes of a tensor of these dimensions; throws when they overflow or do not fill whole blocks.
uint64_t bytes_of(const GgufTensor& tensor, const std::string& where) {
  int64_t elements = 1;
  for (const int64_t dim : tensor.dims)
    if (dim < 0 || __builtin_mul_overflow(elements, dim, &elements))
      throw FormatError("{}: the dimensions of tensor {} overflow", where, quote(tensor.name));
  const int64_t row = tensor.dims.empty() ? 1 : tensor.dims[0];
  if (row % tensor.type.elements != 0)
    throw FormatError("{}: tensor {} of type {} has rows of {}, which is no multiple of {}", where,
                      quote(tensor.name), tensor.type.name, row, tensor.type.elements);
  int64_t bytes;
  if (__builtin_mul_overflow(elements / tensor.type.elements, tensor.type.bytes, &bytes))
    throw FormatError("{}: the dimensions of tensor {} overflow", where, quote(tensor.name));
  return static_cast<uint64_t>(bytes);
}

GgufTensor read_tensor(Cursor& cursor, const std::string& where) {
  GgufTensor tensor;
  tensor.name = cursor.text("a tensor's name");
  const std::string what = "tensor " + quote(tensor.name);
  const auto dims = cursor.number<uint32_t>(what);
  if (dims > kMaxDims)
    throw FormatError("{}: {} has {} dimensions, more than {}", where, what, dims, kMaxDims);
  for (uint32_t i = 0; i < dims; ++i) tensor.dims.push_back(cursor.number<int64_t>(what));
  const auto id = cursor.number<uint32_t>(what);
  const GgufTensorType* type = find_gguf_tensor_type(id);
  if (type == nullptr) throw FormatError("{}: {} has the unknown type {}", where, what, id);
  tensor.type = *type;
  tensor.offset = cursor.number<uint64_t>(what);
  return tensor;
}

}  // namespace

const GgufTensorType* find_gguf_tensor_type(uint32_t id) {
  for (const GgufTensorType& type : kTensorTypes)
    if (type.id == id) return &type;
  return nullptr;
}

const GgufTensorType* find_gguf_tensor_type(std::string_view name) {
  const auto upper = [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; };
  std::string wanted(name);
  std::transform(wanted.begin(), wanted.end(), wanted.begin(), upper);
  for (const GgufTensorType& type : kTensorTypes)
    if (type.name == wanted) return &type;
  return nullptr;
}

GgufReader::GgufReader(const std::filesystem::path& path) : file_(path), where_(path.string()) {
  read(file_->bytes());
}

GgufReader::GgufReader(std::span<const std::byte> bytes, const std::string& where) : where_(where) {
  read(bytes);
}

void GgufReader::read(std::span<const std::byte> bytes) {
  Cursor cursor(bytes, where_);
  if (cursor.number<uint32_t>("the magic") != kMagic)
    throw FormatError("{}: not a GGUF file (it does not begin with \"GGUF\")", where_);
  version_ = cursor.number<uint32_t>("the version");
  if (version_ != 2 && version_ != 3)
    throw FormatError("{}: GGUF version {} is not supported (2 and 3 are, little-endian)", where_,
                      version_);
  const auto tensors = cursor.count(24, "the number of tensors");
  const auto keys = cursor.count(13, "the number of keys");
  for (uint64_t i = 0; i < keys; ++i) {
    const std::string key(cursor.text("a key"));
    const std::string what = "key " + quote(key);
    const GgufType type = cursor.type(what);
    const uint64_t begin = cursor.position();
    if (!metadata_.emplace(key, cursor.value(type, what)).second)
      throw FormatError("{}: {} is there twice", where_, what);
    raw_metadata_.emplace(key, GgufRawValue{type, cursor.since(begin)});
  }
  for (uint64_t i = 0; i < tensors; ++i) {
    tensors_.push_back(read_tensor(cursor, where_));
    if (!tensor_index_.emplace(tensors_.back().name, i).second)
      throw FormatError("{}: tensor {} is there twice", where_, quote(tensors_.back().name));
  }
  const std::string alignment_key = "general.alignment";
  const auto alignment =
      contains(alignment_key) ? static_cast<uint64_t>(integer(alignment_key)) : kDefaultAlignment;
  if (!std::has_single_bit(alignment) || alignment > (1 << 20))
    throw FormatError("{}: {} is {}, not a power of two up to 2^20", where_, alignment_key,
                      alignment);
  const uint64_t data = (cursor.position() + alignment - 1) / alignment * alignment;
  for (GgufTensor& tensor : tensors_) {
    const uint64_t size = bytes_of(tensor, where_);
    if (tensor.offset % alignment != 0)
      throw FormatError("{}: tensor {} begins at {}, no multiple of {}", where_, quote(tensor.name),
                        tensor.offset, alignment);
    if (data > bytes.size() || tensor.offset > bytes.size() - data ||
        size > bytes.size() - data - tensor.offset)
      throw FormatError("{}: tensor {} ({} bytes at {}) runs past the end", where_,
                        quote(tensor.name), size, tensor.offset);
    tensor.bytes = bytes.subspan(data + tensor.offset, size);
  }
}

const GgufValue& GgufReader::value(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) throw FormatError("{}: key {} is missing", where_, quote(key));
  return found->second;
}

int64_t GgufReader::integer(const std::string& key) const {
  const auto result = to_integer(value(key));
  if (!result) throw FormatError("{}: key {} is no 64-bit integer", where_, quote(key));
  return *result;
}

double GgufReader::number(const std::string& key) const {
  if (const auto* result = std::get_if<double>(&value(key))) return *result;
  return static_cast<double>(integer(key));
}

bool GgufReader::flag(const std::string& key) const {
  if (const auto* result = std::get_if<bool>(&value(key))) return *result;
  throw FormatError("{}: key {} is no truth value", where_, quote(key));
}

std::string_view GgufReader::text(const std::string& key) const {
  if (const auto* result = std::get_if<std::string_view>(&value(key))) return *result;
  throw FormatError("{}: key {} is no string", where_, quote(key));
}

const std::vector<std::string_view>& GgufReader::strings(const std::string& key) const {
  const auto* array = std::get_if<GgufArray>(&value(key));
  if (array != nullptr && array->type == GgufType::kString) return array->strings;
  throw FormatError("{}: key {} is no array of strings", where_, quote(key));
}

std::vector<int64_t> GgufReader::integers(const std::string& key) const {
  const auto* array = std::get_if<GgufArray>(&value(key));
  const uint64_t width = array == nullptr ? 0 : size_of(array->type);
  std::vector<int64_t> result;
  for (uint64_t i = 0; width != 0 && i < array->size; ++i) {
    const auto integer = to_integer(load_number(array->type, array->numbers.data() + i * width));
    if (!integer) break;
    result.push_back(*integer);
  }
  if (width == 0 || result.size() != array->size)
    throw FormatError("{}: key {} is no array of 64-bit integers", where_, quote(key));
  return result;
}

std::vector<float> GgufReader::numbers(const std::string& key) const {
  const auto* array = std::get_if<GgufArray>(&value(key));
  const bool fits =
      array != nullptr && (array->type == GgufType::kF32 || array->type == GgufType::kF64);
  if (!fits) throw FormatError("{}: key {} is no array of numbers", where_, quote(key));
  const uint64_t width = size_of(array->type);
  std::vector<float> result;
  result.reserve(array->size);
  for (uint64_t i = 0; i < array->size; ++i) {
    const GgufValue number = load_number(array->type, array->numbers.data() + i * width);
    result.push_back(static_cast<float>(std::get<double>(number)));
  }
  return result;
}

const GgufTensor* GgufReader::find_tensor(const std::string& name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace cadre
