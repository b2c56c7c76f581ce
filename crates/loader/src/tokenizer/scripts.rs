//! Which script a character is of, for the `UnicodeScripts` pre-tokenizer.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// A script; `None` for characters of any script.
pub(super) type Script = Option<u8>;

/// The scripts that the `tokenizers` library distinguishes, which are those of SentencePiece.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "Han", "Adlam", "Ahom", "Anatolian_Hieroglyphs", "Arabic", "Armenian", "Avestan", "Balinese", "Bamum", "Bassa_Vah",
    "Batak", "Bengali", "Bhaiksuki", "Bopomofo", "Brahmi", "Braille", "Buginese", "Buhid", "Canadian_Aboriginal", "Carian",
    "Caucasian_Albanian", "Chakma", "Cham", "Cherokee", "Common", "Coptic", "Cuneiform", "Cypriot", "Cyrillic", "Deseret",
    "Devanagari", "Duployan", "Egyptian_Hieroglyphs", "Elbasan", "Ethiopic", "Georgian", "Glagolitic", "Gothic", "Grantha",
    "Greek", "Gujarati", "Gurmukhi", "Hangul", "Hanunoo", "Hatran", "Hebrew", "Hiragana", "Imperial_Aramaic", "Inherited",
    "Inscriptional_Pahlavi", "Inscriptional_Parthian", "Javanese", "Kaithi", "Kannada", "Katakana", "Kayah_Li", "Kharoshthi",
    "Khmer", "Khojki", "Khudawadi", "Lao", "Latin", "Lepcha", "Limbu", "Linear_A", "Linear_B", "Lisu", "Lycian", "Lydian",
    "Mahajani", "Malayalam", "Mandaic", "Manichaean", "Marchen", "Meetei_Mayek", "Mende_Kikakui", "Meroitic_Cursive",
    "Meroitic_Hieroglyphs", "Miao", "Modi", "Mongolian", "Mro", "Multani", "Myanmar", "Nabataean", "New_Tai_Lue", "Newa",
    "Nko", "Ogham", "Ol_Chiki", "Old_Hungarian", "Old_Italic", "Old_North_Arabian", "Old_Permic", "Old_Persian",
    "Old_South_Arabian", "Old_Turkic", "Oriya", "Osage", "Osmanya", "Pahawh_Hmong", "Palmyrene", "Pau_Cin_Hau", "Phags_Pa",
    "Phoenician", "Psalter_Pahlavi", "Rejang", "Runic", "Samaritan", "Saurashtra", "Sharada", "Shavian", "Siddham",
    "SignWriting", "Sinhala", "Sora_Sompeng", "Sundanese", "Syloti_Nagri", "Syriac", "Tagalog", "Tagbanwa", "Tai_Le",
    "Tai_Tham", "Tai_Viet", "Takri", "Tamil", "Tangut", "Telugu", "Thaana", "Thai", "Tibetan", "Tifinagh", "Tirhuta",
    "Ugaritic", "Vai", "Warang_Citi", "Yi",
];

static RANGES: LazyLock<Vec<(char, char, u8)>> = LazyLock::new(|| {
    let mut ranges = Vec::new();
    for (name, number) in NAMES.iter().zip(0u8..) {
        let parsed = regex_syntax::parse(&format!(r"\p{{Script={name}}}"));
        if let Ok(HirKind::Class(Class::Unicode(class))) = parsed.as_ref().map(regex_syntax::hir::Hir::kind) {
            ranges.extend(class.ranges().iter().map(|range| (range.start(), range.end(), number)));
        }
    }
    ranges.sort_unstable();
    ranges
});

fn raw(c: char) -> Script {
    let at = RANGES.partition_point(|(_, high, _)| *high < c);
    RANGES.get(at).filter(|(low, _, _)| *low <= c).map(|(_, _, number)| *number)
}

/// The script of a character, kana counting as ideographs and the space as any script.
pub(super) fn script(c: char) -> Script {
    static HIRAGANA: LazyLock<Script> = LazyLock::new(|| raw('\u{3042}'));
    static KATAKANA: LazyLock<Script> = LazyLock::new(|| raw('\u{30A2}'));
    match c {
        ' ' => None,
        '\u{30FC}' => Some(0),
        c => raw(c).map(|script| if Some(script) == *HIRAGANA || Some(script) == *KATAKANA { 0 } else { script }),
    }
}
