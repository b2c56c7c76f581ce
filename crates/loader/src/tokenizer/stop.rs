//! Stop strings that never leak into the output.

use std::sync::Arc;

/// Result of [`StopStrings::push`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopPiece {
    /// Text that is certainly before every stop string; may be empty.
    pub text: String,
    /// A stop string was found: the text ends in front of it, and nothing follows.
    pub stopped: bool,
}

/// Cuts a text that comes in pieces at the earliest occurrence of any stop string.
///
/// Text that could be the beginning of a stop string is held back until it is certain, even across pieces. The result
/// equals that of searching the whole text: the output before `stopped` is everything before the occurrence that begins
/// first, for any pieces.
///
/// Each byte of text costs a bounded number of steps for each stop string, however long the strings are.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<Stop>,
    held: String,
    /// Bytes of text so far.
    seen: usize,
    /// The beginning of the first complete stop string in the text.
    found: Option<usize>,
    stopped: bool,
}

/// One stop string, searched by the method of Knuth, Morris and Pratt.
#[derive(Debug, Clone)]
struct Stop {
    text: Arc<[u8]>,
    /// For each number of matched bytes, how many remain matched if the next byte differs: the longest beginning of the
    /// string, shorter than the match, that is also an end of the match.
    fallback: Arc<[usize]>,
    /// Bytes of the string that the end of the text matches.
    matched: usize,
}

impl Stop {
    fn new(text: &str) -> Self {
        let text: Arc<[u8]> = text.as_bytes().into();
        let mut fallback = vec![0; text.len() + 1];
        let mut matched = 0;
        for at in 1..text.len() {
            matched = longer(&text, &fallback, matched, text[at]);
            fallback[at + 1] = matched;
        }
        Self { text, fallback: fallback.into(), matched: 0 }
    }

    /// Takes the next byte of the text; whether the whole string ends with it.
    fn push(&mut self, byte: u8) -> bool {
        self.matched = longer(&self.text, &self.fallback, self.matched, byte);
        let whole = self.matched == self.text.len();
        if whole {
            // The rest is the beginning of another occurrence.
            self.matched = self.fallback[self.matched];
        }
        whole
    }
}

/// The longest beginning of `text` that ends with `byte`, after `matched` bytes were matched; `matched` is less than
/// all.
fn longer(text: &[u8], fallback: &[usize], mut matched: usize, byte: u8) -> usize {
    while matched > 0 && text[matched] != byte {
        matched = fallback[matched];
    }
    if text[matched] == byte { matched + 1 } else { 0 }
}

impl StopStrings {
    /// A matcher for these strings; empty ones are ignored.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops.into_iter().map(Into::into).filter(|stop: &String| !stop.is_empty());
        Self { stops: stops.map(|stop| Stop::new(&stop)).collect(), ..Self::default() }
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
        for stop in &mut self.stops {
            for (end, byte) in (self.seen + 1..).zip(piece.bytes()) {
                if stop.push(byte) {
                    let begin = end - stop.text.len();
                    self.found = Some(self.found.map_or(begin, |found| found.min(begin)));
                }
            }
        }
        self.seen += piece.len();
        // The position of the longest end of the text that is a beginning, but not the whole, of a stop string.
        let open = self.seen - self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        match self.found {
            // A longer stop string may have begun earlier and still be under way: wait for it.
            Some(at) if open >= at => self.stop(at),
            _ => {
                let held = self.held.split_off(open - self.begin());
                StopPiece { text: std::mem::replace(&mut self.held, held), stopped: false }
            }
        }
    }

    /// Ends the text: returns the held text, up to a stop string in it.
    pub fn finish(&mut self) -> StopPiece {
        if self.stopped {
            return StopPiece { text: String::new(), stopped: true };
        }
        match self.found {
            Some(at) => self.stop(at),
            None => StopPiece { text: std::mem::take(&mut self.held), stopped: false },
        }
    }

    /// The position of the held part in the text.
    fn begin(&self) -> usize {
        self.seen - self.held.len()
    }

    fn stop(&mut self, at: usize) -> StopPiece {
        self.stopped = true;
        let end = at - self.begin();
        let mut text = std::mem::take(&mut self.held);
        text.truncate(end);
        StopPiece { text, stopped: true }
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

        /// Long strings that repeat themselves, and a text that is made of their parts.
        #[test]
        fn equals_a_search_where_strings_repeat_themselves(
            pieces in prop::collection::vec("(a{1,9}b|ab|あa|aあ){0,5}", 0..12),
            stops in prop::collection::vec("(a{1,9}b|ab|あa){1,5}", 0..4),
        ) {
            let whole: String = pieces.concat();
            prop_assert_eq!(streamed(pieces.iter().map(String::as_str), &stops), naive(&whole, &stops));
        }

        /// Text is returned as soon as no stop string can begin in it: the same pieces as when checking all ends of the
        /// held text.
        #[test]
        fn holds_back_no_more_than_it_must(
            pieces in prop::collection::vec("(a{1,3}b|ab|あa|c){0,3}", 0..8),
            stops in prop::collection::vec("(a{1,3}b|ab|あa){1,3}", 1..4),
        ) {
            let mut matcher = StopStrings::new(stops.clone());
            let (mut whole, mut out) = (String::new(), String::new());
            for piece in &pieces {
                whole.push_str(piece);
                let got = matcher.push(piece);
                out.push_str(&got.text);
                if got.stopped {
                    break;
                }
                let open = |end: &str| stops.iter().any(|stop| stop.len() > end.len() && stop.starts_with(end));
                let ends = whole.char_indices().map(|(at, _)| at);
                let held = ends.into_iter().find(|at| open(&whole[*at..])).unwrap_or(whole.len());
                prop_assert_eq!(&out, &whole[..held]);
            }
        }
    }
}
