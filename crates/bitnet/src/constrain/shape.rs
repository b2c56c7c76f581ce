//! The cost of a pattern, from its shape alone: an estimate of the automaton that the engine derives from it, composed
//! of the estimates of its parts. The engine's fuel counts work that is done; this rejects work that fuel would not
//! interrupt.

use super::limits::{AT_ONCE, ConstraintLimits, within};
use super::{ConstraintError, error::short};

/// Keywords that compose schemas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Whether it matches the empty text.
    pub(super) nullable: bool,
    /// Ways to begin.
    first: u64,
    /// Places from which the end can be reached without a character.
    run: u64,
    places: u64,
    /// Ways on, over all places.
    pub(super) branches: u64,
    /// Bytes that it matches at least.
    pub(super) least: u64,
    /// Patterns that must fit at once.
    at_once: u64,
}

impl Shape {
    /// A pattern that matches only the empty text.
    pub(super) const EMPTY: Self =
        Self { nullable: true, first: 0, run: 0, places: 0, branches: 0, least: 0, at_once: 1 };

    /// A text of so many bytes.
    pub(super) fn text(bytes: usize) -> Self {
        match bytes {
            0 => Self::EMPTY,
            n => Self { nullable: false, first: 1, run: 0, places: 1, branches: 0, least: n as u64, at_once: 1 },
        }
    }

    /// One character of a class.
    pub(super) fn class() -> Self {
        Self { nullable: false, first: 1, run: 0, places: 1, branches: 0, least: 1, at_once: 1 }
    }

    /// Any piece of a text of so many pieces.
    pub(super) fn substring(pieces: usize) -> Self {
        let n = pieces as u64;
        Self { nullable: true, first: n.min(256), run: 1, places: n, branches: 0, least: 0, at_once: 1 }
    }

    /// One after the other.
    pub(super) fn concat(parts: impl DoubleEndedIterator<Item = Self>) -> Self {
        let mut all = Self::EMPTY;
        for part in parts.rev() {
            // Each place at the end of `part` also begins the part after it.
            all.branches = add([all.branches, part.branches, part.run.saturating_mul(all.first)]);
            all.run = if all.nullable { add([all.run, part.run]) } else { all.run };
            all.first = if part.nullable { add([all.first, part.first]) } else { part.first };
            all.nullable &= part.nullable;
            all.places = add([all.places, part.places]);
            all.least = add([all.least, part.least]);
            all.at_once = all.at_once.max(part.at_once);
        }
        all
    }

    /// One of them.
    pub(super) fn or(parts: impl Iterator<Item = Self>) -> Self {
        let mut all: Option<Self> = None;
        for part in parts {
            all = Some(match all {
                None => part,
                Some(all) => Self {
                    nullable: all.nullable || part.nullable,
                    first: add([all.first, part.first]),
                    run: add([all.run, part.run]),
                    places: add([all.places, part.places]),
                    branches: add([all.branches, part.branches]),
                    least: all.least.min(part.least),
                    at_once: all.at_once.max(part.at_once),
                },
            });
        }
        all.unwrap_or(Self::EMPTY)
    }

    /// All of them at once.
    pub(super) fn and(
        parts: impl Iterator<Item = Self>,
        limits: &ConstraintLimits,
        name: impl FnOnce() -> String,
    ) -> Result<Self, ConstraintError> {
        let mut all: Option<Self> = None;
        for part in parts {
            all = Some(match all {
                None => part,
                Some(all) => Self {
                    nullable: all.nullable && part.nullable,
                    first: all.first.saturating_mul(part.first),
                    run: add([all.run, part.run]),
                    places: all.places.max(1).saturating_mul(part.places.max(1)),
                    branches: add([all.branches, part.branches]),
                    least: all.least.max(part.least),
                    at_once: add([all.at_once, part.at_once]),
                },
            });
        }
        let all = all.unwrap_or(Self::EMPTY);
        if all.at_once > 1 {
            let limit = limits.intersections;
            // With a limit of 0 no intersection is allowed.
            within(all.at_once, if limit == 0 { 1 } else { AT_ONCE }, "intersections", || {
                format!("in {}, {} patterns must fit at once", short_of(name), all.at_once)
            })?;
            within(all.places, limit, "intersections", || {
                format!("patterns that must fit at once have {} places, multiplied with each other", all.places)
            })?;
        }
        Ok(all)
    }

    /// All but it.
    pub(super) fn not(self) -> Self {
        Self { nullable: !self.nullable, first: add([self.first, 1]), least: 0, ..self }
    }

    /// It, `least` to `most` times.
    pub(super) fn repeat(self, least: u64, most: Option<u64>) -> Self {
        let again = if most.is_none_or(|m| m > 1) { self.run.saturating_mul(self.first) } else { 0 };
        Self {
            nullable: self.nullable || least == 0,
            run: if most == Some(least) { self.run } else { add([self.run, 1]) },
            branches: add([self.branches, again]),
            least: self.least.saturating_mul(least),
            ..self
        }
    }

    /// The one with more places.
    pub(super) fn wider(self, other: Self) -> Self {
        let at_once = self.at_once.max(other.at_once);
        let wider = if self.places >= other.places { self } else { other };
        Self { at_once, ..wider }
    }

    /// Rejects shapes that are too large; `name` is the part of the source.
    pub(super) fn check(&self, limits: &ConstraintLimits, name: &str) -> Result<(), ConstraintError> {
        let name = short(name);
        within(self.branches, limits.branches, "branches", || {
            format!("{name} has {} possible continuations, many optional parts in a row", self.branches)
        })?;
        within(self.least, limits.least_bytes, "least_bytes", || {
            format!("{name} demands a text of {} bytes", self.least)
        })
    }
}

fn short_of(name: impl FnOnce() -> String) -> String {
    short(&name())
}

fn add<const N: usize>(all: [u64; N]) -> u64 {
    all.into_iter().fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_parts_in_a_row_are_quadratic_and_others_are_not() {
        let a = Shape::text(1);
        let optional = a.repeat(0, Some(1));
        let row = |n: usize, of: Shape| Shape::concat(std::iter::repeat_n(of, n));
        assert_eq!(row(100, optional).branches, 100 * 99 / 2);
        assert_eq!(row(100, a).branches, 0);
        assert_eq!(row(100, a.repeat(1, None)).branches, 99);
        // The same row in pieces.
        assert_eq!(row(10, row(10, optional)).branches, row(100, optional).branches);
        assert!(row(100, optional).nullable && !row(100, a).nullable);
        assert_eq!(row(100, a).least, 100);
        assert_eq!(a.repeat(1000, Some(2000)).repeat(1000, None).least, 1_000_000);
        assert_eq!(Shape::or([Shape::text(5), Shape::text(3)].into_iter()).least, 3);
    }

    #[test]
    fn what_must_fit_at_once_multiplies() {
        let limits = ConstraintLimits::default();
        let and = |n: usize, of: Shape| Shape::and(std::iter::repeat_n(of, n), &limits, || "it".into());
        let small = Shape::concat(std::iter::repeat_n(Shape::class(), 10));
        assert!(and(4, small).is_ok());
        assert!(matches!(and(5, small), Err(ConstraintError::Limit { name: "intersections", .. })));
        let large = Shape::concat(std::iter::repeat_n(Shape::class(), 1000));
        assert!(matches!(and(2, large), Err(ConstraintError::Limit { name: "intersections", .. })));
    }
}
