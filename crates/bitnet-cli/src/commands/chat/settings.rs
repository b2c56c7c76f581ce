//! The settings that `/set` shows and changes.

use std::fmt;
use std::str::FromStr;

use bitnet::{SamplingOptions, Speculation};

/// The options of the conversation.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) sampling: SamplingOptions,
    pub(super) max_tokens: Option<usize>,
    pub(super) stop: Vec<String>,
    pub(super) ignore_eos: bool,
    /// Speculative decoding.
    pub(super) speculation: Speculation,
}

const NAMES: &str =
    "temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, seed, max_tokens, stop";

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} cannot be {value:?}"))
}

impl Settings {
    /// Applies `NAME VALUE`, or `NAME=VALUE`; returns the new setting.
    ///
    /// # Errors
    /// One line for the user: an unknown name, a value out of its range.
    pub(super) fn set(&mut self, text: &str) -> Result<String, String> {
        let (name, value) = text.split_once(|c: char| c == '=' || c.is_whitespace()).unwrap_or((text, ""));
        let (name, value) = (name.trim().replace('-', "_"), value.trim().trim_start_matches('=').trim());
        let mut s = self.sampling.clone();
        match name.as_str() {
            "temperature" => s.temperature = number(&name, value)?,
            "top_k" => s.top_k = number(&name, value)?,
            "top_p" => s.top_p = number(&name, value)?,
            "min_p" => s.min_p = number(&name, value)?,
            "repeat_penalty" => s.repeat_penalty = number(&name, value)?,
            "presence_penalty" => s.presence_penalty = number(&name, value)?,
            "frequency_penalty" => s.frequency_penalty = number(&name, value)?,
            "seed" => s.seed = number(&name, value)?,
            "max_tokens" if matches!(value, "" | "none") => self.max_tokens = None,
            "max_tokens" => self.max_tokens = Some(number(&name, value)?),
            "stop" if value.is_empty() => self.stop.clear(),
            "stop" => self.stop = vec![value.to_owned()],
            _ => return Err(format!("unknown option {name:?}; options: {NAMES}")),
        }
        s.validate().map_err(|e| e.to_string())?;
        self.sampling = s;
        Ok(match value {
            "" => format!("{name} is off"),
            value => format!("{name} is {value}"),
        })
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.sampling;
        let max = self.max_tokens.map_or("none".to_owned(), |n| n.to_string());
        writeln!(f, "  temperature        {}", s.temperature)?;
        writeln!(f, "  top_k              {}", s.top_k)?;
        writeln!(f, "  top_p              {}", s.top_p)?;
        writeln!(f, "  min_p              {}", s.min_p)?;
        writeln!(f, "  repeat_penalty     {}", s.repeat_penalty)?;
        writeln!(f, "  presence_penalty   {}", s.presence_penalty)?;
        writeln!(f, "  frequency_penalty  {}", s.frequency_penalty)?;
        writeln!(f, "  seed               {}", s.seed)?;
        writeln!(f, "  max_tokens         {max}")?;
        write!(f, "  stop               {:?}", self.stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_set_or_refused_as_a_whole() {
        let sampling = SamplingOptions::default();
        let mut s =
            Settings { sampling, max_tokens: None, stop: Vec::new(), ignore_eos: false, speculation: Speculation::Off };
        assert_eq!(s.set("temperature 0.25").unwrap(), "temperature is 0.25");
        assert_eq!(s.set("top-k = 5").unwrap(), "top_k is 5");
        s.set("max_tokens 9").unwrap();
        s.set("stop the end").unwrap();
        assert_eq!((s.sampling.temperature, s.sampling.top_k, s.max_tokens), (0.25, 5, Some(9)));
        assert_eq!(s.stop, ["the end"]);
        for bad in ["temperature", "temperature hot", "temperature -1", "top_p 2", "colour red", "max_tokens -1"] {
            assert!(s.set(bad).is_err(), "{bad}");
        }
        assert_eq!(s.sampling.temperature, 0.25);
        s.set("max_tokens none").unwrap();
        s.set("stop").unwrap();
        assert!(s.max_tokens.is_none() && s.stop.is_empty());
    }
}
