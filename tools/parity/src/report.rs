//! Rows of the table.

use crate::ParityError;

/// The result of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Ok,
    /// Off, or it could not be computed.
    Fail,
    /// A capability that this library does not have yet.
    Unsupported,
}

impl Verdict {
    /// The word in the table.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Fail => "FAIL",
            Verdict::Unsupported => "not supported yet",
        }
    }
}

/// One case.
#[derive(Clone, Debug)]
pub struct Row {
    /// Folder or file, and the comparison.
    pub case: String,
    /// The result.
    pub verdict: Verdict,
    /// Largest errors, or the reason of a failure.
    pub detail: String,
}

/// All cases so far.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order in which they ran.
    pub rows: Vec<Row>,
    print: bool,
}

/// Result of a comparison.
pub(crate) struct Measured {
    pub(crate) pass: bool,
    pub(crate) detail: String,
}

impl Report {
    /// A report that prints each row as soon as it is known.
    pub fn printing() -> Self {
        Self { rows: Vec::new(), print: true }
    }

    /// Rows with this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|r| r.verdict == verdict).count()
    }

    /// Whether something was compared and nothing failed.
    pub fn passed(&self) -> bool {
        self.count(Verdict::Fail) == 0 && self.count(Verdict::Ok) > 0
    }

    pub(crate) fn check(&mut self, case: &str, f: impl FnOnce() -> Result<Measured, ParityError>) {
        let (verdict, detail) = match f() {
            Ok(Measured { pass: true, detail }) => (Verdict::Ok, detail),
            Ok(Measured { pass: false, detail }) => (Verdict::Fail, detail),
            Err(e) => (Verdict::Fail, e.to_string()),
        };
        self.push(case, verdict, detail);
    }

    pub(crate) fn unsupported(&mut self, case: &str, what: &str) {
        self.push(case, Verdict::Unsupported, what.to_owned());
    }

    fn push(&mut self, case: &str, verdict: Verdict, detail: String) {
        if self.print {
            println!("{:<17} {case:<44} {detail}", verdict.name());
        }
        self.rows.push(Row { case: case.to_owned(), verdict, detail });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_passes_only_if_something_ran_and_nothing_failed() {
        let mut report = Report::default();
        assert!(!report.passed());
        report.unsupported("a", "later");
        assert!(!report.passed());
        report.check("b", || Ok(Measured { pass: true, detail: String::new() }));
        assert!(report.passed());
        report.check("c", || Ok(Measured { pass: false, detail: String::new() }));
        assert!(!report.passed());
        assert_eq!(report.rows[2].verdict.name(), "FAIL");
    }
}
