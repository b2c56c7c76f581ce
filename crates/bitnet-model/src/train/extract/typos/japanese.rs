//! Errors of people who type Japanese, the same for the same seed.

use crate::train::Random;

use crate::train::extract::Marked;

/// Kana that are taken for each other: by sound, by size, by voicing.
const CONFUSED: &[(char, char)] = &[
    ('は', 'わ'),
    ('を', 'お'),
    ('へ', 'え'),
    ('ず', 'づ'),
    ('じ', 'ぢ'),
    ('つ', 'っ'),
    ('や', 'ゃ'),
    ('ゆ', 'ゅ'),
    ('よ', 'ょ'),
    ('い', 'ぃ'),
    ('か', 'が'),
    ('き', 'ぎ'),
    ('く', 'ぐ'),
    ('て', 'で'),
    ('と', 'ど'),
    ('し', 'じ'),
    ('た', 'だ'),
    ('ひ', 'び'),
    ('ヴ', 'ブ'),
    ('ツ', 'ッ'),
    ('ヤ', 'ャ'),
    ('ユ', 'ュ'),
    ('ヨ', 'ョ'),
    ('シ', 'ツ'),
    ('ソ', 'ン'),
    ('カ', 'ガ'),
    ('ト', 'ド'),
    ('ハ', 'バ'),
    ('バ', 'パ'),
    ('ー', '一'),
    ('ン', 'ソ'),
];
/// Signs in their two widths, and the keys that are hit instead.
const WIDTHS: &[(char, char)] =
    &[('?', '？'), ('!', '！'), ('、', ','), ('。', '.'), ('。', '、'), ('「', '｢'), ('」', '｣')];

/// Makes one or two errors: a character is left out or typed twice, two change places, kana or the width of a sign are
/// mistaken, a letter of the keyboard is left over.
pub fn japanese(text: &mut Marked, random: &mut Random) {
    let before = text.chars.clone();
    let errors = 1 + usize::from(random.unit() < 0.3);
    for _ in 0..errors {
        one(text, random);
    }
    // Two errors may undo each other.
    while text.chars == before {
        one(text, random);
    }
}

fn one(text: &mut Marked, random: &mut Random) {
    // Every fourth error is one of kana or width, if there is any to mistake.
    if random.below(4) == 0 {
        let places: Vec<(usize, char)> =
            text.chars.iter().enumerate().flat_map(|(i, c)| others(*c).map(move |other| (i, other))).collect();
        if !places.is_empty() {
            let (at, other) = places[random.below(places.len() as u64) as usize];
            return text.replace(at..at + 1, &[other]);
        }
    }
    let at = random.below(text.chars.len().max(1) as u64) as usize;
    let Some(&c) = text.chars.get(at) else { return text.replace(0..0, &['?']) };
    match random.below(4) {
        0 if text.chars.get(at + 1).is_some_and(|next| *next != c) && text.is_within_one(&(at..at + 2)) => {
            text.chars.swap(at, at + 1);
        }
        1 => text.replace(at..at + 1, &[c, c]),
        2 => {
            let key = char::from(b"krstnhmyw"[random.below(9) as usize]);
            // After the last character of a topic it is not part of the topic.
            text.replace(at + 1..at + 1, &[key]);
        }
        // A topic of one character stays.
        _ if text.spans.iter().any(|s| s.len() == 1 && s.contains(&at)) => text.replace(at..at + 1, &[c, c]),
        _ => text.replace(at..at + 1, &[]),
    }
}

/// Characters that a character may be mistaken for.
fn others(c: char) -> impl Iterator<Item = char> {
    let pairs = CONFUSED.iter().chain(WIDTHS);
    pairs.filter_map(move |(a, b)| if *a == c { Some(*b) } else { (*b == c).then_some(*a) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(seed: u64) -> Marked {
        let mut m = Marked::new("青空文庫って知ってる?", vec![0..4]);
        japanese(&mut m, &mut Random::new(seed, "typos"));
        m
    }

    #[test]
    fn errors_are_the_same_for_the_same_seed_and_never_none() {
        let mut topics = std::collections::BTreeSet::new();
        let mut texts = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let m = typed(seed);
            assert_eq!(m, typed(seed));
            assert_ne!(m.text(), "青空文庫って知ってる?");
            assert!(m.text().contains(&m.value(0)) && !m.value(0).is_empty());
            topics.insert(m.value(0));
            texts.insert(m.text());
        }
        assert!(topics.contains("青空文庫"), "most errors are outside the topic");
        for text in
            ["青空文庫って知ってる？", "青空文庫つて知ってる?", "青空文庫って知ってる", "青空文庫って知ってるる?"]
        {
            assert!(texts.contains(text), "{text}");
        }
    }

    #[test]
    fn short_topics_do_not_vanish() {
        for seed in 0..300 {
            let mut m = Marked::new("火とは？", vec![0..1]);
            japanese(&mut m, &mut Random::new(seed, "typos"));
            assert!(!m.value(0).is_empty(), "{}", m.text());
        }
    }
}
