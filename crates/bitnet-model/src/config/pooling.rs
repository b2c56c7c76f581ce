//! How the hidden states of a text become one vector.

/// How the hidden states of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The mean over all tokens.
    #[default]
    Mean,
    /// The first token.
    First,
    /// The last token, which has read all others.
    Last,
}

impl Pooling {
    /// All poolings.
    pub const ALL: [Pooling; 3] = [Pooling::Mean, Pooling::First, Pooling::Last];

    /// The name: `mean`, `first`, `last`.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::First => "first",
            Pooling::Last => "last",
        }
    }

    /// The pooling with this name; `cls` is another name for the first token.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = if name == "cls" { "first" } else { name };
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}
