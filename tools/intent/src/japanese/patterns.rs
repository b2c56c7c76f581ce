//! Patterns of questions; `{}` is the topic.

use std::collections::BTreeSet;

use crate::templates::Templates;

/// Patterns to learn from and patterns that are only asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Patterns {
    pub(super) learned: Vec<String>,
    pub(super) held_out: Vec<String>,
    /// To choose by, while a model is made: in neither of the others.
    pub(super) kept: Vec<String>,
}

/// Patterns that are composed, at most.
const COMPOSED: usize = 16_000;

impl Patterns {
    /// Those that were written one by one.
    pub(super) fn written() -> Self {
        let held_out = HELD_OUT.iter().map(|h| h.0);
        Self { learned: owned(WRITTEN.iter().copied()), held_out: owned(held_out), kept: Vec::new() }
    }

    /// Those and what frames compose; and more that are held out.
    ///
    /// # Panics
    /// Never: a test reads the frames.
    pub(super) fn composed() -> Self {
        let mut all = Self::written();
        all.held_out.extend(owned(HELD_OUT_TOO.iter().map(|h| h.0)));
        all.kept = owned(KEPT.iter().copied());
        let known: BTreeSet<String> = all.learned.iter().cloned().collect();
        let frames = frames().draw(COMPOSED, 1).into_iter().map(|made| made.said.text().replace(TOPIC, "{}"));
        all.learned.extend(frames.filter(|pattern| !known.contains(pattern)));
        all
    }
}

fn owned<'a>(all: impl Iterator<Item = &'a str>) -> Vec<String> {
    all.map(str::to_owned).collect()
}

/// Stands for the topic while patterns are composed.
const TOPIC: &str = "〇";

/// Stands for another word, drawn like topics.
pub(super) const OTHER: char = '◇';

fn frames() -> Templates {
    // The frames are part of the program; a test reads them.
    Templates::parse(include_str!("patterns.txt")).unwrap_or_default()
}

/// Those that were written one by one.
const WRITTEN: &[&str] = &[
    "{}って知ってる?",
    "{}って知ってる？",
    "{}って知ってますか？",
    "{}って何？",
    "{}って何ですか?",
    "{}とは何ですか？",
    "{}とは？",
    "{}とは何か教えて",
    "{}とはどういう意味ですか",
    "{}について教えて",
    "{}について教えてください。",
    "{}について説明して",
    "{}について詳しく知りたい",
    "{}についてどう思う？",
    "{}のことを教えて",
    "{}のことなんだけど、どう思う?",
    "{}のこと知ってる?",
    "{}の話をして",
    "{}の意味を教えてください",
    "{}の読み方は？",
    "{}の特徴は何ですか？",
    "{}の歴史を簡単に教えて",
    "{}は好き?",
    "{}は好きですか？",
    "{}は面白い？",
    "{}はどこにありますか？",
    "{}はいつからあるの?",
    "{}はどんなもの？",
    "{}は有名ですか",
    "{}はなぜ人気なの？",
    "{}が気になる",
    "{}が好きなんだけど",
    "{}がわからない",
    "{}がよくわからないので教えて",
    "{}を知っていますか？",
    "{}を教えて",
    "{}を説明してください。",
    "{}を調べて",
    "{}を検索して",
    "{}を読んだことある？",
    "{}を見たことがありますか?",
    "{}に興味があります",
    "{}に詳しい人いる？",
    "{}に関する情報がほしい",
    "{}というのは何？",
    "{}という言葉を聞いたけど、何のこと？",
    "{}といえば何を思い出す?",
    "{}って何だっけ",
    "{}って有名なの？",
    "{}って面白いの?",
    "{}ってどんな感じ？",
    "{}ってどういうものなんですか？",
    "ねえ、{}って知ってる？",
    "ねえ{}のこと教えて",
    "すみません、{}について教えてください",
    "あの、{}って何ですか？",
    "ところで{}は知ってる?",
    "昨日{}の話を聞いたんだけど、知ってる？",
    "最近{}が流行ってるらしいね",
    "友達が{}を勧めてくれた",
    "今度{}を見に行こうと思う",
    "もしかして{}をご存じですか？",
    "教えて、{}って何",
    "質問です。{}とは何でしょうか。",
    "「{}」とは何ですか？",
    "「{}」について教えて",
    "『{}』を読みたい",
    "『{}』って知ってる？",
    "{}、知ってる?",
    "{}?",
    "{}のおすすめは？",
    "{}と聞いて何を想像しますか",
    "{}のこともっと知りたいな",
    "私は{}が大好きです。あなたは？",
];

/// Those that are only asked, each with a piece of its own that is in no learned pattern.
const HELD_OUT: &[(&str, &str)] = &[
    ("{}って聞いたことある?", "聞いたことある"),
    ("{}って誰が作ったの？", "誰が"),
    ("{}ってなんなの", "なんなの"),
    ("{}とはいったい何でしょう？", "いったい"),
    ("{}について何か知ってる？", "について何か"),
    ("{}について調べてくれる?", "調べてくれ"),
    ("{}の説明をお願いします", "の説明を"),
    ("{}の魅力を語って", "魅力"),
    ("{}はご存じ？", "はご存じ"),
    ("{}はどうやって始まったの？", "始まった"),
    ("{}が何なのか教えて", "何なの"),
    ("{}が話題になってるけど何?", "話題"),
    ("{}を簡単に説明して", "簡単に説明"),
    ("{}を初めて聞いた", "初めて"),
    ("{}に関して質問があります", "質問があります"),
    ("{}というものを知りたい", "というもの"),
    ("ちょっと聞きたいんだけど、{}って何？", "聞きたいんだけど"),
    ("ねえねえ、{}知ってる？", "ねえねえ"),
    ("先生、{}について教えてください", "先生"),
    ("今日は{}の話をしよう", "をしよう"),
    ("「{}」の意味は？", "の意味は"),
    ("『{}』の感想を聞かせて", "感想"),
];

/// Neither learned nor reported: what is chosen while a model is made is chosen by these.
const KEPT: &[&str] = &[
    "{}って要するに何？",
    "{}についてざっと把握したい",
    "ばあや、{}について教えておくれ",
    "{}の全体像をつかみたい",
    "{}を知らない人に伝えるなら？",
    "{}はどの辺にあるのかしら",
    "{}の正体をこっそり教えて",
    "{}に心当たりはありますか",
    "{}と検索したら出る？",
    "今夜のおかずは{}にしようかな",
    "電車の中で{}って広告を見た",
    "{}をググったけど見つからない",
    "{}、ご存じないですか",
    "{}っておすすめできる？",
    "{}っぽいものを集めています",
    "〈{}〉とは何ぞや",
    "君の好きな{}の話でもどうぞ",
    "コーチ、{}のコツは？",
    "{}ときたら次は？",
    "{}こそ最高だと思わない？",
    "{}をめぐる争いを解説して",
    "{}さえあれば幸せ",
    "いつの間にか{}が増えた気がする",
    "{}抜きでは成り立たない",
    "{}派？それとも反対？",
    "{}におけるポイントは？",
    "例えば{}なら説明できる？",
    "{}関連のおすすめある？",
    "社会の宿題で{}が出た",
    "{}なしで暮らせる？",
];

/// Held out since there are frames: ways to ask that none of them has, each with its own piece. They were written down
/// before anything was trained with the frames, and none was changed or left out afterwards.
const HELD_OUT_TOO: &[(&str, &str)] = &[
    ("{}ってさ、結局どういうこと？", "結局"),
    ("おじいちゃん、{}って昔からあったの？", "おじいちゃん"),
    ("{}を一言で言うと？", "一言"),
    ("{}ってどこで買えるの？", "買える"),
    ("テレビで{}を見かけたんだけど、あれは何？", "テレビ"),
    ("{}と言われてもピンとこない", "ピンと"),
    ("{}の正式な呼び方を知りたいです", "正式"),
    ("{}にまつわる話を聞かせてください", "まつわる"),
    ("{}ってまだあるの？", "まだ"),
    ("もしよければ{}のことを話してくれませんか", "もしよければ"),
    ("{}、あれって結構すごいよね？", "あれって"),
    ("授業で{}が出てきたんですが、何のことでしょう", "授業"),
    ("君は{}に行ったことがあるかい？", "君は"),
    ("{}の良さがいまいち分からないんだよね", "いまいち"),
    ("何でもいいから{}の豆知識をください", "豆知識"),
    ("検索しても出てこないんだけど{}って実在するの？", "実在"),
    ("《{}》ってどう読むの？", "《"),
    ("{}なるものが存在すると聞きました", "なるもの"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_well_formed_and_hold_no_piece_of_what_is_held_out() {
        let all = Patterns::composed();
        assert!(all.learned.len() > COMPOSED && all.held_out.len() == 40, "{}", all.learned.len());
        let every = || all.learned.iter().chain(&all.held_out).chain(&all.kept);
        assert_eq!(every().collect::<BTreeSet<_>>().len(), all.learned.len() + 70);
        for pattern in every() {
            assert_eq!(pattern.matches("{}").count(), 1, "{pattern}");
            assert!(!pattern.contains(['@', '(', ')', '|', '〇', '[']), "{pattern}");
        }
        for (pattern, own) in HELD_OUT.iter().chain(HELD_OUT_TOO) {
            assert!(pattern.contains(own), "{pattern}");
            for other in all.learned.iter().chain(&all.kept) {
                assert!(!other.contains(own), "{own} of {pattern} is in {other}");
            }
        }
    }
}
