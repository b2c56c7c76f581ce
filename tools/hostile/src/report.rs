//! Rows of the report, and whether any of them is a fault.

use std::time::{Duration, Instant};

/// Rows, printed as they come.
#[derive(Debug)]
pub(crate) struct Report {
    filter: String,
    rows: usize,
    faults: Vec<String>,
    began: Instant,
}

impl Report {
    /// A report of the rows whose name contains `filter`.
    pub(crate) fn new(filter: &str) -> Self {
        Self { filter: filter.to_owned(), rows: 0, faults: Vec::new(), began: Instant::now() }
    }

    /// Whether a row is to be run.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// A row that ended as it should.
    pub(crate) fn ok(&mut self, name: &str, what: &str) {
        self.rows += 1;
        println!("ok     {name}: {what}");
    }

    /// A row that did not.
    pub(crate) fn fault(&mut self, name: &str, what: &str) {
        self.rows += 1;
        println!("FAULT  {name}: {what}");
        self.faults.push(format!("{name}: {what}"));
    }

    /// A row with its verdict.
    pub(crate) fn row(&mut self, name: &str, result: Result<String, String>) {
        match result {
            Ok(what) => self.ok(name, &what),
            Err(what) => self.fault(name, &what),
        }
    }

    /// The last lines; whether all is well. Nothing run is a failure, too.
    pub(crate) fn finish(self) -> bool {
        let Self { rows, faults, began, .. } = self;
        println!(
            "\nhostile: {} passed, {} failed, {:.1} s",
            rows - faults.len(),
            faults.len(),
            began.elapsed().as_secs_f64()
        );
        for fault in &faults {
            println!("  {fault}");
        }
        if rows == 0 {
            println!("nothing was run");
        }
        rows > 0 && faults.is_empty()
    }
}

/// Factor by which work may take longer here than in a release build on an idle machine.
pub(crate) fn patience() -> u32 {
    if cfg!(debug_assertions) { 4 } else { 2 }
}

/// A time limit of this build.
pub(crate) fn within(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds) * patience()
}
