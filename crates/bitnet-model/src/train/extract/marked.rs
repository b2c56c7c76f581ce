//! Texts with marked spans, which stay where they belong while the text is changed.

use std::ops::Range;

/// A text as characters, with spans of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// The text.
    pub chars: Vec<char>,
    /// Spans, in characters.
    pub spans: Vec<Range<usize>>,
}

impl Marked {
    /// A text with spans in characters.
    pub fn new(text: &str, spans: Vec<Range<usize>>) -> Self {
        Self { chars: text.chars().collect(), spans }
    }

    /// The text.
    pub fn text(&self) -> String {
        self.chars.iter().collect()
    }

    /// The text of span `i`.
    pub fn value(&self, i: usize) -> String {
        self.chars[self.spans[i].clone()].iter().collect()
    }

    /// Puts `with` in the place of the characters `at`. A span that holds all of them holds the new ones, too; spans
    /// after them move.
    pub fn replace(&mut self, at: Range<usize>, with: &[char]) {
        let moved = |place: usize| place + with.len() - at.len();
        for span in &mut self.spans {
            if span.end >= at.end && span.end > at.start {
                span.end = moved(span.end);
            }
            if span.start >= at.end {
                span.start = moved(span.start);
            }
        }
        self.chars.splice(at, with.iter().copied());
    }

    /// Whether the characters `at` are within the same spans, so that an edit of them belongs to these or to no span.
    pub fn is_within_one(&self, at: &Range<usize>) -> bool {
        self.spans.iter().all(|s| (s.start <= at.start && at.end <= s.end) || s.end <= at.start || at.end <= s.start)
    }

    /// Takes white space off the ends of the text and of the spans, and line feeds out of it.
    pub fn trimmed(mut self) -> Self {
        self.chars.iter_mut().filter(|c| c.is_whitespace()).for_each(|c| *c = ' ');
        for span in &mut self.spans {
            while span.start < span.end && self.chars[span.end - 1] == ' ' {
                span.end -= 1;
            }
            while span.start < span.end && self.chars[span.start] == ' ' {
                span.start += 1;
            }
        }
        while self.chars.last() == Some(&' ') {
            self.chars.pop();
        }
        let front = self.chars.iter().take_while(|c| **c == ' ').count();
        self.replace(0..front, &[]);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_follow_their_words() {
        let mut m = Marked::new("add Kind of Blue to my list", vec![4..16, 20..22, 23..27]);
        m.replace(8..9, &[]);
        m.replace(0..3, &['p', 'u', 't', ' ', 'o', 'n']);
        m.replace(18..18 + 1, &[' ', ' ']);
        let values: Vec<String> = (0..3).map(|i| m.value(i)).collect();
        assert_eq!(
            (m.text().as_str(), values.join("|").as_str()),
            ("put on Kindof Blue  to my list", "Kindof Blue|my|list")
        );
        // The first and the last character of a span belong to it.
        m.replace(7..8, &['K', 'K']);
        m.replace(18..19, &['e', 'e']);
        assert_eq!((m.value(0).as_str(), m.value(1).as_str()), ("KKindof Bluee", "my"));
    }

    #[test]
    fn white_space_is_trimmed_everywhere() {
        let m = Marked::new("  play jazz \n", vec![6..12]).trimmed();
        assert_eq!((m.text().as_str(), m.value(0).as_str()), ("play jazz", "jazz"));
        assert!(m.is_within_one(&(5..7)) && m.is_within_one(&(0..5)) && !m.is_within_one(&(4..6)));
    }
}
