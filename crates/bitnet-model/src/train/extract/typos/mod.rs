//! Typing errors, the same for the same seed: extractors learn with them, and their tests use them.

mod english;
mod japanese;

pub use english::english;
pub use japanese::japanese;

use super::Marked;
use crate::train::Random;

/// Makes the errors of people who type this script: [`japanese`] where a character is kana or Han, [`english`]
/// with `rate` otherwise. Scripts whose keys are not known get the errors that need none: letters left out, typed twice
/// or swapped.
pub fn of_any_script(text: &mut Marked, rate: f64, random: &mut Random) {
    if text.chars.is_empty() {
        return;
    }
    if text.chars.iter().any(|c| is_cjk(*c)) {
        japanese(text, random);
    } else {
        english(text, rate, random);
    }
}

/// Kana, Han, and the ideographic space between.
fn is_cjk(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9d}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_gets_errors_and_nothing_panics() {
        for text in
            ["weather in Oslo", "погода в Осло", "青空文庫って知ってる?", "ｶﾅ", "a", "", "!?", "مرحبا بكم", "🙂"]
        {
            let mut changed = false;
            for seed in 0..50 {
                let mut m = Marked::new(text, Vec::new());
                of_any_script(&mut m, 0.5, &mut Random::new(seed, "typos"));
                changed |= m.text() != text;
            }
            // Words of fewer than three letters are left alone.
            assert_eq!(changed, text.chars().filter(|c| c.is_alphabetic()).count() > 1, "{text}");
        }
    }
}
