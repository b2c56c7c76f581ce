//! Stop strings that never leak into the output.

/// What [`StopStrings::push`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopPiece {
    /// Text that is certainly before every stop string; may be empty.
    pub text: String,
    /// A stop string was found: the text ends in front of it, and nothing follows.
    pub stopped: bool,
}

/// Cuts a text that comes in pieces at the earliest occurrence of any stop string.
///
/// Text that could be the beginning of a stop string is held back until it is clear, also across pieces. The result
/// is that of searching the whole text: what comes out before `stopped` is everything in front of the occurrence
/// that begins first, whatever the pieces were.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// A matcher for these strings; empty ones are ignored.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops.into_iter().map(Into::into).filter(|stop: &String| !stop.is_empty()).collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes the next piece of text. After a stop everything is swallowed.
    pub fn push(&mut self, piece: &str) -> StopPiece {
        if self.stopped {
            return StopPiece { text: String::new(), stopped: true };
        }
        self.held.push_str(piece);
        let found = self.earliest();
        let open = self.open();
        match found {
            // A longer stop string may have begun earlier and still be under way: wait for it.
            Some(at) if open >= at => self.stop(at),
            _ => {
                let held = self.held.split_off(open);
                StopPiece { text: std::mem::replace(&mut self.held, held), stopped: false }
            }
        }
    }

    /// The text has ended: gives what was held back, up to a stop string in it.
    pub fn finish(&mut self) -> StopPiece {
        if self.stopped {
            return StopPiece { text: String::new(), stopped: true };
        }
        match self.earliest() {
            Some(at) => self.stop(at),
            None => StopPiece { text: std::mem::take(&mut self.held), stopped: false },
        }
    }

    fn stop(&mut self, at: usize) -> StopPiece {
        self.stopped = true;
        let mut text = std::mem::take(&mut self.held);
        text.truncate(at);
        StopPiece { text, stopped: true }
    }

    /// Where the first complete stop string begins.
    fn earliest(&self) -> Option<usize> {
        self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min()
    }

    /// Where the longest end of the held text begins that is a beginning, but not the whole, of a stop string.
    fn open(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        (from..self.held.len())
            .find(|&at| {
                let end = self.held.as_bytes().get(at..).unwrap_or_default();
                self.held.is_char_boundary(at)
                    && self.stops.iter().any(|stop| stop.len() > end.len() && stop.as_bytes().starts_with(end))
            })
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(text: &str, stops: &[String]) -> (String, bool) {
        match stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop.as_str())).min() {
            Some(at) => (text.get(..at).expect("boundary").to_owned(), true),
            None => (text.to_owned(), false),
        }
    }

    fn streamed<'a>(pieces: impl IntoIterator<Item = &'a str>, stops: &[String]) -> (String, bool) {
        let mut matcher = StopStrings::new(stops.to_vec());
        let mut out = String::new();
        for piece in pieces {
            let piece = matcher.push(piece);
            out.push_str(&piece.text);
            if piece.stopped {
                return (out, true);
            }
        }
        let last = matcher.finish();
        out.push_str(&last.text);
        (out, last.stopped)
    }

    #[test]
    fn a_stop_string_over_several_pieces_never_leaks() {
        let mut stops = StopStrings::new(["User:", ""]);
        assert_eq!(stops.push("Hi U"), StopPiece { text: "Hi ".into(), stopped: false });
        assert_eq!(stops.push("ser"), StopPiece { text: "".into(), stopped: false });
        assert_eq!(stops.push("s U"), StopPiece { text: "Users ".into(), stopped: false });
        assert_eq!(stops.push("ser: x"), StopPiece { text: "".into(), stopped: true });
        assert!(stops.stopped());
        assert_eq!(stops.push("more"), StopPiece { text: "".into(), stopped: true });
        assert_eq!(stops.finish(), StopPiece { text: "".into(), stopped: true });
    }

    #[test]
    fn a_longer_stop_that_began_earlier_wins() {
        let stops = ["b".to_owned(), "abc".to_owned()];
        assert_eq!(streamed(["xab", "c"], &stops), ("x".into(), true));
        assert_eq!(streamed(["xab", "d"], &stops), ("xa".into(), true));
        assert_eq!(streamed(["xab"], &stops), ("xa".into(), true));
    }

    #[test]
    fn what_was_held_comes_out_at_the_end() {
        assert_eq!(streamed(["no stop <|e"], &["<|eot|>".to_owned()]), ("no stop <|e".into(), false));
    }

    proptest! {
        #[test]
        fn equals_a_search_of_the_whole_text(
            pieces in prop::collection::vec("[abあ]{0,4}", 0..8),
            stops in prop::collection::vec("[abあ]{0,4}", 0..4),
        ) {
            let whole: String = pieces.concat();
            prop_assert_eq!(streamed(pieces.iter().map(String::as_str), &stops), naive(&whole, &stops));
        }
    }
}
