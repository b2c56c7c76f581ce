//! The activation of the feed-forward block, by the names that files have for it.

use bitnet_model::Activation;

use super::unsupported;
use crate::LoadError;

/// Names of the activations that are computed: those of `config.json` and those of GGUF converters.
const NAMES: [(&str, Activation); 9] = [
    ("relu2", Activation::Relu2),
    ("relu^2", Activation::Relu2),
    ("relu_sqr", Activation::Relu2),
    ("relu_squared", Activation::Relu2),
    ("squared_relu", Activation::Relu2),
    ("sqrelu", Activation::Relu2),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("swiglu", Activation::Silu),
];

/// Where a `config.json` may name it; the first one is the usual one.
pub(crate) const HF_KEYS: [&str; 4] = ["hidden_act", "hidden_activation", "activation_function", "mlp_hidden_act"];

/// Where a GGUF file may name it, behind the architecture; the first one is that of llama.cpp.
pub(crate) const GGUF_KEYS: [&str; 3] = ["hidden_activation", "hidden_act", "feed_forward_activation"];

/// The activation of that name.
pub(crate) fn by_name(key: &str, name: &str) -> Result<Activation, LoadError> {
    let lower = name.trim().to_ascii_lowercase();
    let known = NAMES.iter().find(|(n, _)| *n == lower);
    known.map(|k| k.1).ok_or_else(|| unsupported(key, name, "supported are relu2 and silu"))
}

/// The activation that some of these keys name; several that disagree are refused.
pub(crate) fn named<'a>(
    named: impl Iterator<Item = Result<(String, Option<&'a str>), LoadError>>,
) -> Result<Option<Activation>, LoadError> {
    let mut found: Option<(String, Activation)> = None;
    for entry in named {
        let (key, Some(name)) = entry? else { continue };
        let act = by_name(&key, name)?;
        match &found {
            Some((other, before)) if *before != act => {
                let reason = format!("{other:?} says {}; the file contradicts itself", before.name());
                return Err(unsupported(&key, name, &reason));
            }
            Some(_) => {}
            None => found = Some((key, act)),
        }
    }
    Ok(found.map(|f| f.1))
}
