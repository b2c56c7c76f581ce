//! Options whose values have names: parsers that give the library's own types, with a line of help for each name.

#[cfg(feature = "train")]
use bitnet::Directions;
use bitnet::{ActivationBits, ChooseBy, HeadMode, KvType, Pooling, QkLayout};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// A name, its value, and its line in the help.
type Choice<T> = (&'static str, T, &'static str);

fn one_of<T, const N: usize>(choices: [Choice<T>; N]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let names = choices.map(|(name, _, help)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(names).try_map(move |name| {
        let choice = choices.iter().find(|choice| choice.0 == name);
        choice.map(|choice| choice.1).ok_or("unknown value")
    })
}

/// Order of the rows of q and k.
pub(crate) fn qk_layout() -> impl TypedValueParser<Value = QkLayout> {
    one_of([
        ("half", QkLayout::Half, "Order of Hugging Face checkpoints"),
        ("interleaved", QkLayout::Interleaved, "Order that llama.cpp writes for the architecture `llama`"),
    ])
}

/// LM-head strategies.
pub(crate) fn head() -> impl TypedValueParser<Value = HeadMode> {
    one_of([
        ("auto", HeadMode::Auto, "The faster one for this model"),
        ("coarse", HeadMode::Coarse, "Screen all rows with 6-bit weights, then compute only the candidates exactly"),
        ("plain", HeadMode::Plain, "Compute all rows exactly"),
    ])
}

/// Bits of activations.
pub(crate) fn activations() -> impl TypedValueParser<Value = ActivationBits> {
    one_of([
        ("16", ActivationBits::Sixteen, "One scale per token, as models with a scale per group were trained"),
        ("8-group", ActivationBits::EightByGroup, "One scale per group of as many values as weights share one"),
        ("8", ActivationBits::Eight, "One scale per token, as BitNet b1.58 was trained"),
    ])
}

/// Types of the KV cache.
pub(crate) fn kv() -> impl TypedValueParser<Value = KvType> {
    let help = |kv| match kv {
        KvType::F32 => "32-bit floats, exact",
        KvType::F16 => "Half precision",
        KvType::Bf16 => "bfloat16",
        KvType::Q8 => "8 bits, with a scale per token and head",
        KvType::Q4 => "4 bits, with a scale per token and head; the first token in 8",
        _ => "",
    };
    one_of(KvType::ALL.map(|kv| (kv.name(), kv, help(kv))))
}

/// Poolings of token states.
pub(crate) fn pooling() -> impl TypedValueParser<Value = Pooling> {
    let help = |pooling| match pooling {
        Pooling::Mean => "The mean over all tokens",
        Pooling::First => "The first token",
        Pooling::Last => "The last token, which has read all others",
    };
    one_of(Pooling::ALL.map(|pooling| (pooling.name(), pooling, help(pooling))))
}

/// Which words an extractor's words know about.
#[cfg(feature = "train")]
pub(crate) fn directions() -> impl TypedValueParser<Value = Directions> {
    let help = |directions| match directions {
        Directions::Both => "All words of the text",
        Directions::Forward => "The words before it only: to see what reading in both directions is worth",
    };
    one_of(Directions::ALL.map(|directions| (directions.name(), directions, help(directions))))
}

/// Scores of texts.
pub(crate) fn choose_by() -> impl TypedValueParser<Value = ChooseBy> {
    one_of([
        ("total", ChooseBy::Total, "Total log-probability"),
        ("token", ChooseBy::PerToken, "Mean over the tokens"),
        ("byte", ChooseBy::PerByte, "Mean over the bytes"),
    ])
}
