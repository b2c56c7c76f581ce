//! Titles: works of Aozora Bunko, and words that people asked about.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::IntentError;
use crate::utterance::read_text;

/// Characters of a topic.
const LENGTHS: std::ops::RangeInclusive<usize> = 2..=14;
/// Words that ask, and no topics.
const NO_TOPICS: &[&str] = &[
    "以下",
    "次",
    "何",
    "何故",
    "理由",
    "方法",
    "名前",
    "場合",
    "文章",
    "質問",
    "回答",
    "内容",
    "情報",
    "一番",
    "違",
    "教",
    "自分",
    "人物",
    "種類",
    "最初",
    "最後",
    "最大",
    "最高",
    "世界",
    "日本",
    "一覧",
    "段落",
    "要約",
    "抽出",
    "分類",
    "下記",
    "特定",
    "使用",
    "作成",
    "提供",
    "参照",
    "与",
    "箇条書",
    "中",
    "的",
    "何年",
    "何人",
    "何歳",
    "何時",
    "何回",
];

#[derive(Deserialize)]
struct Line {
    instruction: String,
}

/// All topics, each once, in the order of their characters.
///
/// # Errors
/// Files that are not there or have another form.
pub(super) fn read(folder: &Path) -> Result<Vec<String>, IntentError> {
    let mut topics: BTreeMap<String, usize> = BTreeMap::new();
    let works = folder.join("aozora_works.tsv");
    let text = read_text(&works)?;
    for line in text.lines().skip(1) {
        let title = line.split('\t').nth(1);
        let title =
            title.ok_or_else(|| IntentError::unreadable(works.display().to_string(), "a line without a title"))?;
        *topics.entry(without_readings(title)).or_default() += 1;
    }
    let asked = folder.join("databricks-dolly-15k-ja.jsonl");
    for (i, line) in read_text(&asked)?.lines().enumerate() {
        let bad = |e: serde_json::Error| IntentError::unreadable(format!("{}, line {}", asked.display(), i + 1), e);
        let line: Line = serde_json::from_str(line).map_err(bad)?;
        for word in words(&line.instruction) {
            *topics.entry(word).or_default() += 1;
        }
    }
    Ok(topics.into_keys().filter(|t| is_topic(t)).collect())
}

/// A title without the readings 《...》 and the marks of their beginnings.
fn without_readings(title: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        match c {
            '《' => inside = true,
            '》' => inside = false,
            '｜' => {}
            _ => return !inside,
        }
        false
    };
    title.chars().filter(keep).collect()
}

/// Runs of kanji or of katakana, and text in brackets.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut run, mut kind) = (String::new(), Kind::Other);
    for c in text.chars().chain([' ']) {
        let next = Kind::of(c);
        if next != kind {
            let whole = std::mem::take(&mut run);
            words.extend((kind != Kind::Other).then_some(whole));
        }
        kind = next;
        run.push(c);
    }
    for (open, close) in [('「', '」'), ('『', '』')] {
        let inside = text.split(open).skip(1).filter_map(|rest| rest.split_once(close));
        words.extend(inside.map(|(word, _)| word.to_owned()));
    }
    words
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kanji,
    Katakana,
    Other,
}

impl Kind {
    fn of(c: char) -> Self {
        match c {
            '\u{4e00}'..='\u{9fff}' | '々' => Kind::Kanji,
            '\u{30a1}'..='\u{30fa}' | 'ー' | '・' => Kind::Katakana,
            _ => Kind::Other,
        }
    }
}

fn is_topic(word: &str) -> bool {
    let length = word.chars().count();
    let katakana = word.chars().all(|c| Kind::of(c) == Kind::Katakana);
    let fine =
        |c: char| Kind::of(c) != Kind::Other || ('\u{3041}'..='\u{3096}').contains(&c) || c.is_ascii_alphanumeric();
    LENGTHS.contains(&length)
        && (!katakana || length >= 3)
        && word.chars().all(fine)
        && word.chars().any(|c| Kind::of(c) != Kind::Other)
        && !word.starts_with(['ー', '・', '々'])
        && !word.ends_with('・')
        && !NO_TOPICS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_lose_their_readings() {
        assert_eq!(without_readings("貝《かい》の火"), "貝の火");
        assert_eq!(without_readings("｜野《の》ばら"), "野ばら");
    }

    #[test]
    fn words_are_runs_and_what_stands_in_brackets() {
        let found = words("「注文の多い料理店」とハンバーガー、夏目漱石は?");
        assert_eq!(found, ["注文", "多", "料理店", "ハンバーガー", "夏目漱石", "注文の多い料理店"]);
        let topics: Vec<&String> = found.iter().filter(|w| is_topic(w)).collect();
        assert_eq!(topics, ["注文", "料理店", "ハンバーガー", "夏目漱石", "注文の多い料理店"]);
        for no in ["ペン?", "ab", "って", "以下", "・テスト", "アイ", "長い長い長い長い長い長い題名です"]
        {
            assert!(!is_topic(no), "{no}");
        }
    }
}
