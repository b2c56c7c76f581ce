//! The text around the text of a row.

use std::str::FromStr;

use crate::MapError;

/// The text around each row's text, which stands at `{text}`.
///
/// ```
/// use bitnet_arrow::Template;
/// let template: Template = "Review: {text}\nIt is".parse()?;
/// assert_eq!(template.fill("I like it."), "Review: I like it.\nIt is");
/// assert!("no place".parse::<Template>().is_err());
/// # Ok::<(), bitnet_arrow::MapError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    before: String,
    after: String,
}

/// The place of the text.
const TEXT: &str = "{text}";

impl Template {
    /// The text with what stands around it.
    pub fn fill(&self, text: &str) -> String {
        [&self.before, text, &self.after].concat()
    }
    /// The part before the text.
    pub fn before(&self) -> &str {
        &self.before
    }
    /// The part after the text.
    pub fn after(&self) -> &str {
        &self.after
    }
}

impl FromStr for Template {
    type Err = MapError;

    fn from_str(template: &str) -> Result<Self, MapError> {
        match template.split_once(TEXT) {
            Some((before, after)) if !after.contains(TEXT) => {
                Ok(Self { before: before.to_owned(), after: after.to_owned() })
            }
            _ => Err(MapError::Template { template: template.to_owned() }),
        }
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{TEXT}{}", self.before, self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_the_text_is_needed_once() {
        let template: Template = "a {text} b".parse().unwrap();
        assert_eq!((template.before(), template.after(), template.to_string()), ("a ", " b", "a {text} b".into()));
        // A text may hold the mark itself.
        assert_eq!(template.fill("{text}"), "a {text} b");
        assert_eq!(Template::default().to_string().parse::<Template>().unwrap(), Template::default());
        for bad in ["", "a", "{text} {text}", "{ text }"] {
            assert!(matches!(bad.parse::<Template>(), Err(MapError::Template { .. })), "{bad}");
        }
    }
}
