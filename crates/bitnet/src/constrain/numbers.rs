//! `multipleOf`: the engine counts in 32 bits, and beyond them would let wrong numbers through.

use serde_json::{Map, Value};

use super::ConstraintError;

/// The divisors of a schema, which parts that are merged join to their least common multiple.
#[derive(Debug)]
pub(super) struct Multiples {
    /// The least common multiple of all, times ten to the power of `digits`.
    common: u128,
    digits: u32,
    /// Whether the engine could not compute it.
    beyond: bool,
}

impl Default for Multiples {
    fn default() -> Self {
        Self { common: 1, digits: 0, beyond: false }
    }
}

/// Times ten and with the next digit, remainders of a divisor must fit into 32 bits.
const MAX_MULTIPLE: u128 = 300_000_000;
/// Digits after the point.
const DIGITS: u32 = 8;

impl Multiples {
    pub(super) fn add(&mut self, object: &Map<String, Value>) -> Result<(), ConstraintError> {
        let Some(divisor) = object.get("multipleOf") else { return Ok(()) };
        let refused = |why: &str| Err(ConstraintError::grammar(format!("multipleOf {divisor} {why}")));
        let Some(mut value) = divisor.as_f64().map(f64::abs).filter(|v| *v > 0.0 && v.is_finite()) else {
            return refused("must be a positive number");
        };
        let mut digits = 0;
        while value.fract() != 0.0 && digits <= DIGITS {
            value *= 10.0;
            digits += 1;
        }
        if digits > DIGITS {
            return refused("has more than 8 digits after the point");
        }
        if value as u128 > MAX_MULTIPLE {
            return refused("has too many digits");
        }
        let scale = |n: u128, by: u32| n.saturating_mul(10u128.pow(by));
        let all = self.digits.max(digits);
        let (a, b) = (scale(self.common, all - self.digits), scale(value as u128, all - digits));
        let product = a.saturating_mul(b);
        self.beyond |= product > u128::from(u32::MAX);
        self.common = product / divisor_of(a, b);
        self.digits = all;
        Ok(())
    }

    /// Rejects divisors that cannot be joined; called when parts of a schema are merged.
    pub(super) fn check_joined(&self) -> Result<(), ConstraintError> {
        if !self.beyond && self.common <= MAX_MULTIPLE {
            return Ok(());
        }
        Err(ConstraintError::Limit {
            what: "the least common multiple of all divisors of the schema (`multipleOf`) is too large".into(),
            limit: MAX_MULTIPLE as u64,
            name: "compile_fuel",
        })
    }
}

fn divisor_of(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn divisors_stay_within_what_can_be_counted() {
        let add = |all: &[Value]| {
            let mut multiples = Multiples::default();
            all.iter().try_for_each(|v| multiples.add(json!({"multipleOf": v}).as_object().unwrap()))?;
            multiples.check_joined()
        };
        assert!(add(&[json!(0.01), json!(7), json!(1000), json!(0.25)]).is_ok());
        assert!(add(&[json!(999_983)]).is_ok());
        assert!(matches!(add(&[json!(999_983), json!(999_979)]), Err(ConstraintError::Limit { .. })));
        assert!(add(&[json!(1e-300)]).is_err() && add(&[json!(0)]).is_err() && add(&[json!(4e9)]).is_err());
    }
}
