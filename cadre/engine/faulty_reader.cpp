#include "cadre/engine/faulty_reader.h"

#include <algorithm>
#include <cerrno>

namespace cadre::engine {

void FaultyReader::start(std::span<const FileRead> reads) {
  for (const FileRead& read : reads) {
    Random random(faults_.seed, {count_++});
    Fate fate = {.read = read,
                 .error = random.uniform() < faults_.error,
                 .flip = random.uniform() < faults_.flip,
                 .delay = random.uniform() < faults_.delay,
                 .bytes = read.bytes};
    if (faults_.fail_file_after >= 0 && static_cast<int64_t>(count_) > faults_.fail_file_after)
      fate.error = true;
    if (random.uniform() < faults_.short_read)
      fate.bytes = 1 + static_cast<int64_t>(random.below(read.bytes));
    fates_.push_back(fate);
  }
  reader_->start(reads);
}

void FaultyReader::meet_fate(FileReadResult& result, const Fate& fate) {
  if (fate.error) {
    ++errors_;
    result.got = -EIO;
  }
  result.got = std::min(result.got, fate.bytes);
  if (!fate.flip || result.got <= 0) return;
  Random random(faults_.seed, {count_, result.tag});
  fate.read.to[random.below(result.got)] ^= std::byte{1} << random.below(8);
}

void FaultyReader::collect(Wait wait, std::vector<FileReadResult>& results) {
  std::vector<FileReadResult> arrived;
  reader_->collect(held_.empty() ? wait : Wait::kNo, arrived);
  results.insert(results.end(), held_.begin(), held_.end());
  held_.clear();
  for (FileReadResult& result : arrived) {
    const auto fate = std::find_if(fates_.begin(), fates_.end(),
                                   [&](const Fate& f) { return f.read.tag == result.tag; });
    meet_fate(result, *fate);
    (fate->delay ? held_ : results).push_back(result);
    fates_.erase(fate);
  }
}

}  // namespace cadre::engine
