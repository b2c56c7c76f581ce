//! The extractor: bits that do not depend on the instruction set, texts of any kind, consistent answers.

use bitnet_model::encoder::{
    Directions, EncoderMixer, Extractor, ExtractorConfig, ExtractorWeights, MAX_WORDS, OosRule, OosScore, Scratch,
    TaskConfig, tag_may_follow,
};
use bitnet_model::{Activation, ModelError};
use ternary_kernels::Isa;

fn names(of: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{of}{i}")).collect()
}

/// Two tasks, widths that are not multiples of a vector of 64, heads of 24.
fn config() -> ExtractorConfig {
    let mut music = TaskConfig::new("music", names("intent", 5), names("slot", 3));
    music.intent_slots = Some(vec![vec![0, 1, 2], vec![0], vec![], vec![1, 2], vec![2]]);
    music.temperature = 1.5;
    ExtractorConfig {
        buckets: 500,
        hidden_size: 96,
        num_layers: 2,
        num_heads: 4,
        intermediate_size: 160,
        ..ExtractorConfig::new(vec![music, TaskConfig::new("topic", names("topic", 17), vec![])])
    }
}

fn weights() -> ExtractorWeights {
    ExtractorWeights::synthetic(config(), 11).unwrap()
}

/// An extractor whose layers have these mixers.
fn mixed(mixers: &[EncoderMixer]) -> ExtractorWeights {
    mixed_of(config(), mixers)
}

fn mixed_of(config: ExtractorConfig, mixers: &[EncoderMixer]) -> ExtractorWeights {
    ExtractorWeights::synthetic(ExtractorConfig { mixers: mixers.to_vec(), ..config }, 11).unwrap()
}

const TEXTS: [&str; 6] = [
    "play sme jazz by miles davis",
    "Add Recalled to Life to This Is Alejandro Fernández, please!",
    "青空文庫って知ってる?",
    "stop",
    "",
    "what's the weather like in Saint-Étienne at 5pm on the 2nd of May 2026 if it isn't raining too much over there?",
];

/// All bits of the results for a text, folded into one number.
fn fingerprint(extractor: &Extractor, scratch: &mut Scratch, text: &str) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    let mut add = |bits: u32| hash = (hash ^ u64::from(bits)).wrapping_mul(0x100_0000_01B3);
    for task in 0..extractor.config().tasks.len() {
        let found = extractor.extract_into(task, text, scratch).unwrap();
        found.logits.iter().chain(found.emissions).for_each(|v| add(v.to_bits()));
        [found.confidence, found.score].iter().for_each(|v| add(v.to_bits()));
        found.tags.iter().for_each(|t| add(u32::from(*t)));
        add(found.intent as u32);
    }
    extractor.embed_into(text, scratch).unwrap().iter().for_each(|v| add(v.to_bits()));
    hash
}

#[test]
fn bits_are_the_same_on_all_instruction_sets_and_for_ever() {
    for isa in Isa::available() {
        let extractor = Extractor::for_isa(weights(), isa).unwrap();
        let mut scratch = extractor.scratch();
        let found = TEXTS.map(|text| fingerprint(&extractor, &mut scratch, text));
        assert_eq!(found, GOLDEN, "{isa:?} {found:#018x?}");
    }
}

/// From `bits_are_the_same_on_all_instruction_sets_and_for_ever` itself; `testdata/extractor` has numbers of other
/// software.
const GOLDEN: [u64; 6] = [
    0x47c1_2f90_b63a_744a,
    0xa8b8_abe0_1189_549c,
    0x0e9d_0ff3_e698_0124,
    0x9279_11e0_7756_485e,
    0x132c_4051_941e_f934,
    0x9428_dd40_8e91_ef9a,
];

/// Without pairs of words, and without `'s` in the text, words have the features of form 1, and the layers have given
/// these bits ever since.
#[test]
fn layers_of_attention_keep_their_bits() {
    let config = ExtractorConfig { reach: 0, ..config() };
    let extractor = Extractor::new(ExtractorWeights::synthetic(config, 11).unwrap()).unwrap();
    let mut scratch = extractor.scratch();
    let found = [0, 1, 2, 3].map(|i| fingerprint(&extractor, &mut scratch, TEXTS[i]));
    let before = [0x17d7_2546_f2b9_d310, 0x0af3_a21f_8744_d142, 0xa65f_4f1e_87bd_6824, 0x2deb_6e7e_828b_4aa7];
    assert_eq!(found, before, "{found:#018x?}");
}

/// The same of recurrent layers.
#[test]
fn bits_of_recurrent_layers_are_the_same_on_all_instruction_sets_and_for_ever() {
    use EncoderMixer::{Attention, GatedDelta, TttLinear};
    let all = [[TttLinear, TttLinear], [GatedDelta, GatedDelta], [GatedDelta, Attention]];
    let of = |isa: Isa| {
        all.map(|mixers| {
            let extractor = Extractor::for_isa(mixed(&mixers), isa).unwrap();
            let mut scratch = extractor.scratch();
            [0, 2, 5].map(|i| fingerprint(&extractor, &mut scratch, TEXTS[i]))
        })
    };
    for isa in Isa::available() {
        let found = of(isa);
        assert_eq!(found, of(Isa::Scalar), "{isa:?}");
        assert_eq!(found[0], GOLDEN_RECURRENT[0], "{isa:?} {found:#018x?}");
    }
    // Attention, said or not, is the same model.
    let said = Extractor::new(mixed(&[Attention, Attention])).unwrap();
    assert_eq!(fingerprint(&said, &mut said.scratch(), TEXTS[0]), GOLDEN[0]);
}

/// From the test itself; `testdata/extractor_recurrent` has numbers of other software.
const GOLDEN_RECURRENT: [[u64; 3]; 1] = [[0x58fb_079e_f820_8216, 0x690b_d439_cb64_b38d, 0xec10_8169_af5b_32ce]];

/// Recurrences know no positions but those they count themselves, so a text from its end, read by an extractor whose
/// directions have changed places, has the results of its words in the opposite order, bit by bit.
#[test]
fn directions_mirror_each_other() {
    use EncoderMixer::{GatedDelta, TttLinear};
    let words: Vec<&str> = "play some jazz by miles davis and then add a song of queen to my very own list of all \
        that one may hear on a rainy day in may"
        .split(' ')
        .collect();
    // Pairs of words know which one is the first.
    let config = || ExtractorConfig { reach: 0, ..config() };
    for mixers in [[TttLinear, TttLinear], [GatedDelta, GatedDelta], [TttLinear, GatedDelta]] {
        let forward = Extractor::new(mixed_of(config(), &mixers)).unwrap();
        let mut weights = mixed_of(config(), &mixers);
        weights.layers.iter_mut().for_each(|layer| layer.directions.reverse());
        let backward = Extractor::new(weights).unwrap();
        for n in [1, 2, 16, words.len()] {
            let tags = forward.config().tasks[0].tags();
            let read = |extractor: &Extractor, text: &str| -> Vec<Vec<u32>> {
                let mut scratch = extractor.scratch();
                let found = extractor.extract_into(0, text, &mut scratch).unwrap();
                found.emissions.chunks_exact(tags).map(|row| row.iter().map(|v| v.to_bits()).collect()).collect()
            };
            let turned: Vec<&str> = words[..n].iter().rev().copied().collect();
            let mut mirrored = read(&backward, &turned.join(" "));
            mirrored.reverse();
            let straight = read(&forward, &words[..n].join(" "));
            assert_eq!((straight.len(), &straight), (n, &mirrored), "{mixers:?}, {n} words");
            assert!(n < 3 || read(&forward, &turned.join(" ")) != mirrored, "directions have parameters of their own");
        }
    }
}

/// Read forward, a word has the same bits whatever follows it, on every instruction set; read in both directions it has
/// not.
#[test]
fn read_forward_a_word_knows_nothing_of_what_follows() {
    use EncoderMixer::{Attention, GatedDelta, TttLinear};
    let text =
        "play some jazz by miles davis, then 青空 and a song of queen or add all that one may hear on a rainy day!";
    let emissions = |extractor: &Extractor, text: &str| -> Vec<u32> {
        let mut scratch = extractor.scratch();
        let found = extractor.extract_into(0, text, &mut scratch).unwrap();
        found.emissions.iter().map(|v| v.to_bits()).collect()
    };
    for mixers in [[Attention, Attention], [TttLinear, TttLinear], [GatedDelta, Attention]] {
        let of = |directions, isa| {
            let mut config = ExtractorConfig { directions, reach: 2, ..config() };
            // The intent depends on the whole text.
            config.tasks[0].intent_slots = None;
            Extractor::for_isa(mixed_of(config, &mixers), isa).unwrap()
        };
        let whole = emissions(&of(Directions::Forward, Isa::Scalar), text);
        for isa in Isa::available() {
            let (forward, both) = (of(Directions::Forward, isa), of(Directions::Both, isa));
            assert_eq!(emissions(&forward, text), whole, "{mixers:?} {isa:?}");
            for (end, _) in text.match_indices(' ').chain([(text.len(), "")]) {
                let (part, other) = (emissions(&forward, &text[..end]), emissions(&both, &text[..end]));
                assert_eq!(part, whole[..part.len()], "{mixers:?} {isa:?} {:?}", &text[..end]);
                assert!(end == text.len() || other != emissions(&both, text)[..other.len()], "{mixers:?} {isa:?}");
            }
        }
        let mut kept = mixed_of(ExtractorConfig { directions: Directions::Forward, ..config() }, &mixers);
        kept.config.directions = Directions::Both;
        let recurrent = mixers.iter().any(|m| m.is_recurrent());
        let refused = Extractor::new(kept).map_err(|e| e.to_string());
        assert_eq!(refused.is_err_and(|e| e.contains("blk.0.backward")), recurrent);
    }
}

#[test]
fn buffers_hold_nothing_of_earlier_texts() {
    for mixers in [EncoderMixer::Attention, EncoderMixer::TttLinear, EncoderMixer::GatedDelta] {
        nothing_remains(Extractor::new(mixed(&[mixers; 2])).unwrap());
    }
    // Buffers of another extractor serve, too.
    let [a, b] =
        [[EncoderMixer::TttLinear; 2], [EncoderMixer::GatedDelta; 2]].map(|m| Extractor::new(mixed(&m)).unwrap());
    let mut scratch = a.scratch();
    fingerprint(&a, &mut scratch, TEXTS[1]);
    assert_eq!(fingerprint(&b, &mut scratch, TEXTS[0]), fingerprint(&b, &mut b.scratch(), TEXTS[0]));
}

fn nothing_remains(extractor: Extractor) {
    let fresh = TEXTS.map(|text| fingerprint(&extractor, &mut extractor.scratch(), text));
    let mut scratch = extractor.scratch();
    let long = "more words than the buffers have room for at first ".repeat(20);
    for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 5, 0, 4, 1, 3]] {
        fingerprint(&extractor, &mut scratch, &long);
        for i in order {
            assert_eq!(fingerprint(&extractor, &mut scratch, TEXTS[i]), fresh[i], "{:?}", TEXTS[i]);
        }
    }
}

#[test]
fn every_text_has_an_answer_that_holds_together() {
    let extractor = Extractor::new(weights()).unwrap();
    let mut scratch = extractor.scratch();
    let right_to_left = "נגן מוזיקה של שלמה ארצי \u{202B}עכשיו\u{202C} שغل موسيقى";
    let texts = [
        "".to_owned(),
        " \n\t\u{3000}".to_owned(),
        "\0\0\0".to_owned(),
        "a\0b\u{7f}c".to_owned(),
        "👩\u{200D}👩\u{200D}👧🏽🎵❤\u{FE0F}".to_owned(),
        right_to_left.to_owned(),
        "e\u{301}\u{301}\u{301} \u{301}".to_owned(),
        "\u{FDFA}\u{1F1E6}\u{1F1E8}\u{E0041}".to_owned(),
        "word ".repeat(1000),
        "寿司".repeat(1000),
        "x".repeat(10 << 20),
        "a b ".repeat(5 << 19),
        " ".repeat(10 << 20),
    ];
    for text in &texts {
        let words = {
            let mut words = Vec::new();
            bitnet_model::encoder::split_words(text, &mut words);
            words.len()
        };
        for task in 0..2 {
            let task_config = extractor.config().tasks[task].clone();
            let found = extractor.extract_into(task, text, &mut scratch).unwrap();
            let shown: String = text.chars().take(20).collect();
            assert!(found.intent < task_config.intents.len() && (0.0..=1.0).contains(&found.confidence), "{shown:?}");
            assert_eq!(found.cut, words == MAX_WORDS, "{shown:?}");
            assert_eq!(found.out_of_scope, words == 0, "{shown:?}");
            assert_eq!(found.tags.len(), if task == 0 { words } else { 0 });
            for (t, tag) in found.tags.iter().enumerate() {
                let before = t.checked_sub(1).map(|p| usize::from(found.tags[p]));
                assert!(tag_may_follow(before, usize::from(*tag)), "{shown:?}");
            }
            let allowed = task_config.intent_slots.as_ref().map(|lists| lists[found.intent].clone());
            for span in found.spans {
                assert!(text.get(span.range.clone()).is_some_and(|value| !value.trim().is_empty()), "{shown:?}");
                assert!(allowed.as_ref().is_none_or(|slots| slots.contains(&span.slot)), "{shown:?}");
            }
        }
    }
}

#[test]
fn what_is_out_of_scope_is_said_by_the_rule_of_the_task() {
    let text = TEXTS[0];
    let found = |score: OosScore, threshold: f32| {
        let mut weights = weights();
        weights.config.tasks[0].oos = Some(OosRule { score, threshold });
        let extractor = Extractor::new(weights).unwrap();
        let mut scratch = extractor.scratch();
        let found = extractor.extract_into(0, text, &mut scratch).unwrap();
        (found.score, found.out_of_scope, found.confidence, found.logits.to_vec())
    };
    let (_, _, confidence, logits) = found(OosScore::Energy, 0.0);
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|z| (f64::from(*z) / 1.5).exp()).sum();
    for (score, expected) in
        [(OosScore::Energy, (1.5 * sum.ln()) as f32), (OosScore::MaxLogit, max), (OosScore::MaxProbability, confidence)]
    {
        let (got, ..) = found(score, 0.0);
        // A few roundings of f32: softmax, logarithm, sum and product.
        assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{score:?}: {got} {expected}");
        assert!(!found(score, got).1 && found(score, got + 1e-3).1, "{score:?}");
    }
    assert!((f64::from(confidence) - (f64::from(max) / 1.5).exp() / sum).abs() < 1e-6);
}

#[test]
fn squared_relu_is_another_model() {
    let mut other = weights();
    other.config.activation = Activation::Relu2;
    let (a, b) = (Extractor::new(weights()).unwrap(), Extractor::new(other).unwrap());
    assert_ne!(fingerprint(&a, &mut a.scratch(), TEXTS[0]), fingerprint(&b, &mut b.scratch(), TEXTS[0]));
}

#[test]
fn tasks_are_found_by_their_names() {
    let config = config();
    assert_eq!((config.task(None).unwrap(), config.task(Some("topic")).unwrap()), (0, 1));
    let error = config.task(Some("weather")).unwrap_err().to_string();
    assert!(error.contains("weather") && error.contains("music, topic"), "{error}");
}

#[test]
fn bad_configurations_and_weights_are_refused_and_named() {
    type Change = fn(&mut ExtractorConfig);
    let changes: [(Change, &str); 24] = [
        (|c| c.buckets = 0, "buckets"),
        (|c| c.hidden_size = 40, "hidden_size"),
        (|c| c.hidden_size = usize::MAX, "hidden_size"),
        (|c| c.num_layers = 0, "num_layers"),
        (|c| c.num_layers = 1000, "num_layers"),
        (|c| c.num_heads = 0, "num_heads"),
        (|c| c.num_heads = 96, "num_heads"),
        (|c| c.num_heads = 5, "num_heads"),
        (|c| c.mixers = vec![EncoderMixer::Attention; 3], "mixer"),
        (|c| c.intermediate_size = 100_000, "intermediate_size"),
        (|c| c.activation = Activation::GeluTanh, "activation"),
        (|c| c.rope_theta = f32::NAN, "rope_theta"),
        (|c| c.norm_eps = 0.0, "norm_eps"),
        (|c| c.tasks.clear(), "tasks"),
        (|c| c.tasks[1].name = "music".into(), "tasks.name"),
        (|c| c.tasks[0].name = "a/b".into(), "tasks.name"),
        (|c| c.tasks[0].intents.clear(), "tasks.intents"),
        (|c| c.tasks[0].intents[1] = "intent0".into(), "tasks.intents"),
        (|c| c.tasks[0].slots[1] = "a\nb".into(), "tasks.slots"),
        (|c| c.tasks[0].intent_slots = Some(vec![vec![3]; 5]), "tasks.intent_slots"),
        (|c| c.tasks[0].oos = Some(OosRule { score: OosScore::Energy, threshold: f32::NAN }), "tasks.oos"),
        (|c| c.tasks[0].once = vec![3], "tasks.once"),
        (|c| c.tasks[0].once = vec![1, 0], "tasks.once"),
        (|c| c.tasks[0].temperature = 0.0, "tasks.temperature"),
    ];
    for (change, field) in changes {
        let mut weights = weights();
        change(&mut weights.config);
        match Extractor::new(weights) {
            Err(ModelError::Config { field: found, .. }) => assert!(found.starts_with(field), "{found} {field}"),
            other => panic!("{field}: {:?}", other.err()),
        }
    }
    type Damage = fn(&mut ExtractorWeights);
    let damages: [(Damage, &str); 9] = [
        (|w| w.layers[1].attn_norm[3] = f32::NAN, "blk.1.attn_norm.weight"),
        (|w| w.final_norm.truncate(5), "output_norm.weight"),
        (|w| w.tasks[0].intent_bias[0] = f32::INFINITY, "task.music.intent.bias"),
        (|w| w.tasks[0].transitions.truncate(7), "task.music.transitions"),
        (|w| w.tasks[1].tags_bias.push(0.0), "task.topic.tags.bias"),
        (|w| w.layers[0].down = w.layers[0].q.clone(), "down"),
        (|w| drop(w.layers.pop()), "layers"),
        (|w| w.layers[1].k = None, "k_proj"),
        (|w| w.layers[1].directions[1].push(0.0), "blk.1.backward"),
    ];
    for (damage, name) in damages {
        let mut weights = weights();
        damage(&mut weights);
        let error = Extractor::new(weights).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn weights_of_another_mixer_are_refused() {
    use EncoderMixer::{Attention, GatedDelta, TttLinear};
    for (mixers, other, name) in [
        (Attention, TttLinear, "k_proj"),
        (TttLinear, Attention, "k_proj"),
        (GatedDelta, Attention, "g_proj"),
        (TttLinear, GatedDelta, "k_proj"),
    ] {
        let mut weights = mixed(&[mixers; 2]);
        weights.config.mixers = vec![other; 2];
        let error = Extractor::new(weights).unwrap_err().to_string();
        assert!(error.contains(name), "{mixers:?} as {other:?}: {error}");
    }
    let mut weights = mixed(&[TttLinear; 2]);
    weights.layers[0].directions[0][7] = f32::NAN;
    let error = Extractor::new(weights).unwrap_err().to_string();
    assert!(error.contains("blk.0.forward.ttt_w1.weight"), "{error}");
    let mut weights = mixed(&[GatedDelta; 2]);
    weights.layers[1].directions[1].pop();
    let error = Extractor::new(weights).unwrap_err().to_string();
    assert!(error.contains("blk.1.backward"), "{error}");
}

#[test]
fn weights_that_overflow_are_an_error_and_no_answer() {
    let mut overflow = weights();
    overflow.final_norm.fill(f32::MAX);
    let extractor = Extractor::new(overflow).unwrap();
    let result = extractor.extract_into(0, TEXTS[0], &mut extractor.scratch()).map(|f| f.intent);
    assert!(matches!(result, Err(ModelError::Diverged { .. })), "{result:?}");
    let mut overflow = weights();
    overflow.layers[0].attn_norm.fill(f32::MAX);
    overflow.layers[0].ffn_norm.fill(f32::MAX);
    let extractor = Extractor::new(overflow).unwrap();
    assert!(extractor.extract_into(0, TEXTS[0], &mut extractor.scratch()).is_err());
}
