//! From a text to words with byte ranges.

use std::ops::Range;

use super::config::MAX_WORDS;

/// Kinds of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WordKind {
    /// Letters and digits of a script that puts spaces between words.
    Letters,
    /// One character of a script that does not: Han, Hiragana, Katakana, Bopomofo, Yi, Thai, Lao, Khmer, Myanmar,
    /// Tibetan.
    Character,
    /// One sign that is neither a letter nor a digit.
    Sign,
}

/// A word: a piece of the text that is tagged as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its position in the text, in bytes; both ends are on borders of characters.
    pub range: Range<usize>,
    /// Its kind.
    pub kind: WordKind,
}

/// Effect of a character on the words around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Ends a word and belongs to no word: white space, control characters, marks of direction and of width zero.
    Space,
    /// Goes on with a word of letters, or begins one.
    Letter,
    /// A separate word, with the marks that follow.
    Character,
    /// Belongs to the character before it.
    Mark,
    /// Joins letters on both sides, or begins `'s`.
    Apostrophe,
    /// A separate word, with the marks that follow.
    Sign,
}

fn class(c: char) -> Class {
    if c.is_ascii() {
        return match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => Class::Letter,
            '\'' => Class::Apostrophe,
            '\0'..=' ' | '\x7f' => Class::Space,
            _ => Class::Sign,
        };
    }
    match c {
        // The no-break, zero-width and direction characters that `is_whitespace` does not name.
        '\u{61C}' | '\u{180E}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' => Class::Space,
        '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' => Class::Space,
        '\u{2019}' | '\u{2BC}' | '\u{FF07}' => Class::Apostrophe,
        _ if is_mark(c) => Class::Mark,
        _ if is_unspaced(c) => Class::Character,
        _ if c.is_whitespace() || c.is_control() => Class::Space,
        _ if c.is_alphanumeric() => Class::Letter,
        _ => Class::Sign,
    }
}

/// Combining marks, joiners, the soft hyphen and variation selectors: never words alone. The list is part of the
/// format of extractors, so it does not change with the version of Unicode.
pub(super) fn is_mark(c: char) -> bool {
    matches!(
        c,
        '\u{AD}' | '\u{300}'..='\u{36F}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5BD}' | '\u{5BF}'
            | '\u{5C1}'..='\u{5C2}' | '\u{5C4}'..='\u{5C5}' | '\u{5C7}' | '\u{610}'..='\u{61A}'
            | '\u{64B}'..='\u{65F}' | '\u{670}' | '\u{6D6}'..='\u{6DC}' | '\u{6DF}'..='\u{6E4}'
            | '\u{6E7}'..='\u{6E8}' | '\u{6EA}'..='\u{6ED}' | '\u{900}'..='\u{903}' | '\u{93A}'..='\u{93C}'
            | '\u{93E}'..='\u{94F}' | '\u{951}'..='\u{957}' | '\u{962}'..='\u{963}' | '\u{981}'..='\u{983}'
            | '\u{9BC}' | '\u{9BE}'..='\u{9CD}' | '\u{A01}'..='\u{A03}' | '\u{A3C}'..='\u{A4D}'
            | '\u{A70}'..='\u{A71}' | '\u{A81}'..='\u{A83}' | '\u{ABC}' | '\u{ABE}'..='\u{ACD}'
            | '\u{B01}'..='\u{B03}' | '\u{B3C}' | '\u{B3E}'..='\u{B57}' | '\u{B82}' | '\u{BBE}'..='\u{BCD}'
            | '\u{C00}'..='\u{C04}' | '\u{C3C}' | '\u{C3E}'..='\u{C56}' | '\u{C81}'..='\u{C83}' | '\u{CBC}'
            | '\u{CBE}'..='\u{CD6}' | '\u{D00}'..='\u{D03}' | '\u{D3B}'..='\u{D3C}' | '\u{D3E}'..='\u{D4D}'
            | '\u{DCA}'..='\u{DDF}' | '\u{E31}' | '\u{E34}'..='\u{E3A}' | '\u{E47}'..='\u{E4E}' | '\u{EB1}'
            | '\u{EB4}'..='\u{EBC}' | '\u{EC8}'..='\u{ECE}' | '\u{F18}'..='\u{F19}' | '\u{F35}' | '\u{F37}'
            | '\u{F39}' | '\u{F3E}'..='\u{F3F}' | '\u{F71}'..='\u{F84}' | '\u{F8D}'..='\u{FBC}'
            | '\u{102B}'..='\u{103E}' | '\u{1056}'..='\u{1059}' | '\u{17B4}'..='\u{17D3}' | '\u{1AB0}'..='\u{1AFF}'
            | '\u{1DC0}'..='\u{1DFF}' | '\u{200C}'..='\u{200D}' | '\u{20D0}'..='\u{20FF}' | '\u{3099}'..='\u{309A}'
            | '\u{FE00}'..='\u{FE0F}' | '\u{FE20}'..='\u{FE2F}' | '\u{FF9E}'..='\u{FF9F}'
            | '\u{1F3FB}'..='\u{1F3FF}' | '\u{E0020}'..='\u{E007F}' | '\u{E0100}'..='\u{E01EF}'
    )
}

/// Letters of scripts that put no spaces between words. The list is part of the format of extractors.
fn is_unspaced(c: char) -> bool {
    matches!(
        c,
        '\u{E01}'..='\u{E30}' | '\u{E32}'..='\u{E33}' | '\u{E40}'..='\u{E46}' | '\u{E81}'..='\u{EB0}'
            | '\u{EB2}'..='\u{EB3}' | '\u{EBD}'..='\u{EC6}' | '\u{EDC}'..='\u{EDF}' | '\u{F00}'
            | '\u{F40}'..='\u{F6C}' | '\u{F88}'..='\u{F8C}' | '\u{1000}'..='\u{102A}' | '\u{103F}'
            | '\u{1050}'..='\u{1055}' | '\u{1780}'..='\u{17B3}' | '\u{2E80}'..='\u{2FDF}' | '\u{3005}'..='\u{3007}'
            | '\u{3021}'..='\u{3029}' | '\u{3031}'..='\u{3035}' | '\u{3038}'..='\u{303C}' | '\u{3041}'..='\u{3096}'
            | '\u{309D}'..='\u{309F}' | '\u{30A1}'..='\u{30FA}' | '\u{30FC}'..='\u{30FF}' | '\u{3105}'..='\u{312F}'
            | '\u{31A0}'..='\u{31BF}' | '\u{31F0}'..='\u{31FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{A4CF}'
            | '\u{F900}'..='\u{FAFF}' | '\u{FF66}'..='\u{FF9D}' | '\u{1B000}'..='\u{1B16F}'
            | '\u{20000}'..='\u{3FFFF}'
    )
}

/// Cuts `text` into at most [`MAX_WORDS`] words, in their order, and puts them into `words`, which is emptied before.
/// Returns whether there are more, which were left out.
///
/// - Letters and digits side by side are one word, with the marks on them and with single apostrophes between them
///   (`don't`). Only `'s` at the end is a word of its own (`Ann` `'s`): what is owned begins after it, and a
///   slot ends before it.
/// - In scripts without spaces (Han, Hiragana, Katakana, Thai ...) every character is a word, with its marks.
/// - Every other character that is neither white space nor a control character nor of width zero is a word, with its
///   marks.
///
/// Time grows with the length of the text, memory does not.
///
/// ```
/// use bitnet_model::encoder::split_words;
/// let mut words = Vec::new();
/// let text = "don't stop: 青空!";
/// assert!(!split_words(text, &mut words));
/// let words: Vec<&str> = words.iter().map(|w| &text[w.range.clone()]).collect();
/// assert_eq!(words, ["don't", "stop", ":", "青", "空", "!"]);
/// ```
pub fn split_words(text: &str, words: &mut Vec<Word>) -> bool {
    words.clear();
    // Whether the next letter, or the next mark, goes on with the last word.
    let (mut letter_joins, mut mark_joins) = (false, false);
    let mut chars = text.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        let mut end = start + c.len_utf8();
        let mut goes_on = true;
        let kind = match class(c) {
            Class::Space => {
                (letter_joins, mark_joins) = (false, false);
                continue;
            }
            Class::Letter if letter_joins => {
                extend(words, end);
                continue;
            }
            Class::Mark if mark_joins => {
                extend(words, end);
                continue;
            }
            Class::Apostrophe if letter_joins && is_possessive(chars.clone().map(|(_, c)| c)) => {
                end += chars.next().map_or(0, |(_, s)| s.len_utf8());
                goes_on = false;
                WordKind::Letters
            }
            // Between two letters; the letter that follows then joins the word, and the apostrophe with it.
            Class::Apostrophe
                if letter_joins && chars.peek().is_some_and(|(_, next)| class(*next) == Class::Letter) =>
            {
                continue;
            }
            Class::Letter => WordKind::Letters,
            Class::Character => WordKind::Character,
            Class::Apostrophe | Class::Sign | Class::Mark => WordKind::Sign,
        };
        if words.len() == MAX_WORDS {
            return true;
        }
        words.push(Word { range: start..end, kind });
        (letter_joins, mark_joins) = (goes_on && kind == WordKind::Letters, true);
    }
    false
}

/// Whether what follows an apostrophe is an `s` that ends the word.
fn is_possessive(mut after: impl Iterator<Item = char>) -> bool {
    let s = after.next();
    matches!(s, Some('s' | 'S')) && !after.next().is_some_and(|c| matches!(class(c), Class::Letter | Class::Mark))
}

fn extend(words: &mut [Word], end: usize) {
    if let Some(word) = words.last_mut() {
        word.range.end = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        assert!(!split_words(text, &mut words));
        words.into_iter().map(|w| &text[w.range]).collect()
    }

    #[test]
    fn words_of_many_scripts() {
        assert_eq!(words("play Sgt. Pepper's 2nd-best"), ["play", "Sgt", ".", "Pepper", "'s", "2nd", "-", "best"]);
        assert_eq!(
            words("It\u{2019}s BOB'S, boys' o'clock"),
            ["It", "\u{2019}s", "BOB", "'S", ",", "boys", "'", "o'clock"]
        );
        // Neither a longer end nor an apostrophe without a word before it.
        assert_eq!(words("a'so 's a's\u{301} a's's"), ["a'so", "'", "s", "a's\u{301}", "a", "'s", "'", "s"]);
        assert_eq!(
            words("'rock' o''clock the '90s'"),
            ["'", "rock", "'", "o", "'", "'", "clock", "the", "'", "90s", "'"]
        );
        assert_eq!(words("l\u{2019}été e\u{301}te\u{301}"), ["l\u{2019}été", "e\u{301}te\u{301}"]);
        assert_eq!(words("東京のﾎﾞｰﾙ か\u{3099}"), ["東", "京", "の", "ﾎﾞ", "ｰ", "ﾙ", "か\u{3099}"]);
        assert_eq!(words("서울 날씨 שָׁלוֹם नमस्ते"), ["서울", "날씨", "שָׁלוֹם", "नमस्ते"]);
        assert_eq!(words("ที่นี่"), ["ที่", "นี่"]);
        assert_eq!(words("👍🏽❤\u{FE0F}!?"), ["👍🏽", "❤\u{FE0F}", "!", "?"]);
        assert_eq!(words("iPhone13を買う"), ["iPhone13", "を", "買", "う"]);
    }

    #[test]
    fn texts_without_words_have_none() {
        for text in ["", " \t\r\n", "\0\u{1}\u{7f}", "\u{3000}\u{A0}\u{200B}\u{FEFF}\u{202E}"] {
            assert!(words(text).is_empty(), "{text:?}");
        }
        // A mark without a character before it is a word by itself, so that nothing that can be seen is lost.
        assert_eq!(words(" \u{301}a"), ["\u{301}", "a"]);
        assert_eq!(words("a\0b"), ["a", "b"]);
    }

    #[test]
    fn more_words_than_are_read_are_cut() {
        let mut words = Vec::new();
        let text = "a ".repeat(MAX_WORDS);
        assert!(!split_words(&text, &mut words));
        assert_eq!(words.len(), MAX_WORDS);
        assert!(split_words(&(text.clone() + "b"), &mut words));
        assert_eq!(words.len(), MAX_WORDS);
        // One long word is not many.
        assert!(!split_words(&"a".repeat(1 << 20), &mut words));
        assert_eq!((words.len(), words[0].range.clone()), (1, 0..1 << 20));
        // The last word that is read may go on.
        assert!(!split_words(&(text + "\u{301}\u{3000}"), &mut words) || words.len() == MAX_WORDS);
    }
}
