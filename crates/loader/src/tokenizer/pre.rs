//! The split patterns of known pre-tokenizers, and their names in GGUF files.
//!
//! The names are those of llama.cpp's `tokenizer.ggml.pre`; if llama.cpp uses an equivalent pattern, the pattern is
//! that of the model's own tokenizer.json.

/// The pattern of Llama 3, also of its relatives.
#[rustfmt::skip]
pub(super) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The pattern of GPT-2, the default of `ByteLevel` pre-tokenizers.
#[rustfmt::skip]
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// The pattern of Qwen 2: as Llama 3 with single digits.
#[rustfmt::skip]
pub(super) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 3.5: as Qwen 2, marks belonging to letters.
#[rustfmt::skip]
pub(super) const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o: words begin where lower case becomes upper case.
#[rustfmt::skip]
pub(super) const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's Tekken: as GPT-4o without contractions and with single digits.
#[rustfmt::skip]
pub(super) const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// DeepSeek 3.
#[rustfmt::skip]
pub(super) const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
/// Spark 2.5: as DeepSeek 3 with single line breaks.
#[rustfmt::skip]
pub(super) const SPARK: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"##;
/// The cased letters that DeepSeek lists.
#[rustfmt::skip]
pub(super) const LETTERS: &str = r"\s?[A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}]+";
/// The punctuation that DeepSeek lists.
#[rustfmt::skip]
pub(super) const MARKS: &str = r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+";
/// Ideographs and Hangul, as DeepSeek lists them.
#[rustfmt::skip]
pub(super) const HAN_HANGUL: &str = r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+";
/// Ideographs and kana.
#[rustfmt::skip]
pub(super) const HAN_KANA: &str = r"[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+";
/// BLOOM.
#[rustfmt::skip]
pub(super) const BLOOM: &str = r" ?[^(\s|.,!?\u{2026}\u{3002}\u{FF0C}\u{3001}\u{964}\u{6D4}\u{60C})]+";
/// Kimi K2: like GPT-4o, with separate ideographs.
#[rustfmt::skip]
pub(super) const KIMI: &str = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Bailing.
#[rustfmt::skip]
pub(super) const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
/// Seed-Coder.
#[rustfmt::skip]
pub(super) const SEED: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2 without the English contractions.
#[rustfmt::skip]
pub(super) const UFAKZEKA: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// EXAONE of the mixture kind: a word is a run of words.
#[rustfmt::skip]
pub(super) const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";
/// MiniCPM 5.
#[rustfmt::skip]
pub(super) const MINICPM: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Jais 2: runs of white space in powers of two.
#[rustfmt::skip]
pub(super) const JAIS2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";
/// Youtu: scripts without spaces are separate.
#[rustfmt::skip]
pub(super) const YOUTU_SCRIPTS: &str = r"[\u{AC00}-\u{D7A3}\u{3131}-\u{318E}]+|[\u{FF01}\u{2026}\u{201C}\u{201D}\u{2018}\u{2019}\u{2014}\u{FF1A}\u{FF1B}\u{FF0C}\u{3001}-\u{303F}\u{FE30}-\u{FE4F}]+|[\u{3105}-\u{312F}]+|[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+";
/// Youtu: as GPT-4o with single digits.
#[rustfmt::skip]
pub(super) const YOUTU: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Tiny Aya: digits in groups of three from the right.
#[rustfmt::skip]
pub(super) const THOUSANDS: &str = r"\d{1,3}(?=(?:\d{3})*\b)";
/// AFMoE: as [`THOUSANDS`], of all numbers.
#[rustfmt::skip]
pub(super) const AFMOE_DIGITS: &str = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))";
/// AFMoE: scripts without spaces between words.
#[rustfmt::skip]
pub(super) const AFMOE_SCRIPTS: &str = r"[\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{F900}-\u{FAFF}\u{3040}-\u{309F}\u{30A0}-\u{30FF}\u{FF65}-\u{FF9F}\u{2F00}-\u{2FDF}\u{E40}-\u{E7F}\u{E80}-\u{EFF}\u{1780}-\u{17FF}\u{1000}-\u{109F}\u{AA60}-\u{AA7F}\u{A9E0}-\u{A9FF}\u{AC00}-\u{D7AF}\u{1100}-\u{11FF}]+";
/// Three digits of ASCII.
const DIGITS_3: &str = "[0-9][0-9][0-9]";
/// A digit.
const DIGIT: &str = r"\p{N}";
/// Up to three digits.
const DIGITS_1_3: &str = r"\p{N}{1,3}";

/// A pre-tokenizer that GGUF files name.
pub(super) struct Pre {
    names: &'static [&'static str],
    pub(super) patterns: &'static [&'static str],
    /// A whole word that is a token is taken as it is.
    pub(super) ignore_merges: bool,
    /// Texts are normalised to NFC first.
    pub(super) nfc: bool,
}

const fn plain(names: &'static [&'static str], patterns: &'static [&'static str]) -> Pre {
    Pre { names, patterns, ignore_merges: false, nfc: false }
}

const fn whole_words(names: &'static [&'static str], patterns: &'static [&'static str]) -> Pre {
    Pre { names, patterns, ignore_merges: true, nfc: false }
}

/// The default if the file names none.
pub(super) const ASSUMED: &str = "llama-bpe";

const PRES: &[Pre] = &[
    whole_words(
        &[
            ASSUMED,
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon_e",
            "falcon-e",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        &[LLAMA3],
    ),
    plain(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3]),
    plain(
        &[
            "gpt-2",
            "gpt2",
            "mpt",
            "olmo",
            "phi-2",
            "jais",
            "trillion",
            "granite-docling",
            "gigachat",
            "exaone4",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
        ],
        &[GPT2],
    ),
    Pre { names: &["qwen2"], patterns: &[QWEN2], ignore_merges: false, nfc: true },
    Pre { names: &["qwen35"], patterns: &[QWEN35], ignore_merges: false, nfc: true },
    plain(
        &["deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"],
        &[QWEN2],
    ),
    plain(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "minerva", "mellum2"],
        &[DIGIT, GPT2],
    ),
    plain(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    whole_words(&["granite-embed-multi-97m"], &[GPT4O]),
    whole_words(&["tekken"], &[TEKKEN]),
    plain(&["deepseek-llm"], &[r"[\r\n]", LETTERS, MARKS, r"\s+$", HAN_HANGUL, r"\p{N}+"]),
    plain(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN_HANGUL, DIGIT]),
    plain(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], &[DIGITS_1_3, HAN_KANA, DEEPSEEK3]),
    plain(&["afmoe"], &[AFMOE_DIGITS, AFMOE_SCRIPTS, DEEPSEEK3]),
    plain(&["spark2_5"], &[DIGITS_1_3, HAN_KANA, SPARK, DIGIT]),
    plain(&["poro-chat", "bloom", "gpt3-finnish"], &[BLOOM]),
    plain(&["viking"], &[BLOOM, DIGIT]),
    plain(
        &["chameleon"],
        &[
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ],
    ),
    plain(&["kimi-k2"], &[KIMI]),
    plain(&["superbpe"], &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"]),
    plain(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    plain(&["seed-coder"], &[SEED]),
    plain(&["ufakzeka"], &[UFAKZEKA]),
    plain(&["exaone-moe"], &[EXAONE_MOE]),
    plain(&["laguna"], &[r"[^\n]+|[\n]+", QWEN2]),
    plain(&["jais-2"], &[JAIS2]),
    plain(&["tiny_aya", "cohere2moe"], &[THOUSANDS, GPT4O]),
    whole_words(&["youtu"], &[YOUTU_SCRIPTS, YOUTU]),
    whole_words(&["minicpm5"], &[DIGITS_1_3, MINICPM]),
    plain(&["falcon"], &[r"[\p{P}$+<=>^~|`]+", GPT2, DIGITS_3]),
    plain(&["default"], &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", DIGITS_3]),
];

/// The pre-tokenizer of a name.
pub(super) fn by_name(name: &str) -> Option<&'static Pre> {
    PRES.iter().find(|pre| pre.names.contains(&name))
}

/// Whether a pattern is one of this table, which the engine without look-around runs in linear time.
pub(super) fn is_known(pattern: &str) -> bool {
    PRES.iter().any(|pre| pre.patterns.contains(&pattern))
}

#[cfg(test)]
mod tests {
    use super::super::pattern::Patterns;
    use super::super::split::{Splitter, split_all};
    use super::*;

    /// `testdata/scripts/case_pre.py`: the words of the `tokenizers` package of Python with the same patterns.
    #[test]
    fn known_pre_tokenizers_cut_as_the_tokenizers_package() {
        let file = std::fs::read(test_support::testdata("tokenizer/pre_cases.json")).expect("cases");
        let cases: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
        let texts = cases["texts"].as_array().expect("texts");
        let mut checked = 0;
        let mut wrong = Vec::new();
        for (name, pieces) in cases["pieces"].as_object().expect("pieces") {
            let pre = by_name(name).expect(name);
            let mut patterns = Patterns::default();
            let known = |pattern: &&str| Splitter::known(pattern, &mut patterns).expect("pattern");
            let linear: Vec<Splitter> = pre.patterns.iter().map(known).collect();
            let counted = |pattern: &&str| {
                let code = super::super::backtrack::Backtrack::new(pattern, &mut Patterns::default());
                Splitter::Counted(code.expect("pattern"))
            };
            let counted: Vec<Splitter> = pre.patterns.iter().map(counted).collect();
            for (text, expected) in texts.iter().zip(pieces.as_array().expect("list")) {
                let text = text.as_str().expect("text");
                let expected: Vec<&str> =
                    expected.as_array().expect("list").iter().filter_map(|p| p.as_str()).collect();
                for splitters in [&linear, &counted] {
                    let mut got = Vec::new();
                    let mut keep = |piece| {
                        got.push(piece);
                        Ok(())
                    };
                    split_all(splitters, text, &mut 10_000_000, &mut keep).expect("split");
                    if got != expected {
                        wrong.push(format!("{name}: {text:?}: {got:?}, expected {expected:?}"));
                    }
                }
                checked += 1;
            }
        }
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
        assert!(checked > 1500, "{checked}");
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = PRES.iter().flat_map(|pre| pre.names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(count > 75, "{count}");
    }
}
