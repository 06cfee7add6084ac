#pragma once

/// What a byte-level tokenizer knows about text: valid UTF-8, canonical composition, and the
/// alphabet that writes every byte as one printable letter ("Ġ" is the space).

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cadre::bpe {

/// Length of the longest prefix that is valid UTF-8.
size_t valid_utf8_prefix(std::string_view text);

/// The code point at the end of `text` (not empty).
char32_t last_code_point(std::string_view text);

/// False only when the text may change under NFC; a cheap test that holds for most real text.
bool surely_nfc(std::string_view valid);
/// Unicode's canonical composition of valid UTF-8. n log n even for hostile runs of combining
/// marks.
std::string nfc(std::string_view valid);

/// GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up.
std::string_view letter_of(uint8_t byte);
/// The bytes in the order of their letters' code points: the order of ids in trained vocabularies.
const uint8_t* bytes_in_letter_order();

std::string to_letters(std::string_view bytes);
/// Back to bytes; a token that is not written in the alphabet stands for its own text.
std::string from_letters(std::string_view letters);

}  // namespace cadre::bpe
