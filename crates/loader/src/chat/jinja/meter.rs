//! Limits of one rendering: steps, and bytes held at one time.
//!
//! Every rendering has its own thread ([`super::stack`]), so its account is in thread-local cells, and values can
//! release what they hold when they are dropped.

use std::cell::Cell;

use super::fail::{Fail, R};

/// Cost of one step, in the unit in which work on bytes costs one each.
const STEP: u64 = 64;

thread_local! {
    static TICKS: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<usize> = const { Cell::new(0) };
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Opens the account: `fuel` steps, and no limit on memory yet (the caller is responsible for its own input).
pub(super) fn open(fuel: u64) {
    TICKS.set(fuel.saturating_mul(STEP));
    HELD.set(0);
    LIMIT.set(usize::MAX);
}

/// Sets the number of remaining steps.
pub(super) fn refuel(fuel: u64) {
    TICKS.set(fuel.saturating_mul(STEP));
}

/// Limits the bytes that may be held in addition to those held already.
pub(super) fn limit_memory(bytes: usize) {
    LIMIT.set(HELD.get().saturating_add(bytes));
}

fn spend(ticks: u64) -> R<()> {
    let left = TICKS.get().checked_sub(ticks).ok_or(Fail::Fuel)?;
    TICKS.set(left);
    Ok(())
}

/// Pays for one step: a node of the template, an element of a sequence, a comparison.
pub(super) fn step() -> R<()> {
    spend(STEP)
}

/// Pays for so many steps.
pub(super) fn steps(count: usize) -> R<()> {
    spend(STEP.saturating_mul(count as u64))
}

/// Pays for looking at so many bytes one by one.
pub(super) fn work(bytes: usize) -> R<()> {
    spend(bytes as u64)
}

/// Pays for copying so many bytes at once.
pub(super) fn copy(bytes: usize) -> R<()> {
    spend(bytes as u64 / 8 + 4)
}

/// A part of the memory account, given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Held(usize);

impl Held {
    /// Takes so many bytes, before they are allocated; writing them is paid for as well.
    pub(super) fn new(bytes: usize) -> R<Self> {
        let mut held = Self(0);
        held.grow(bytes)?;
        Ok(held)
    }

    /// Takes more.
    pub(super) fn grow(&mut self, bytes: usize) -> R<()> {
        let total = HELD.get().checked_add(bytes).filter(|total| *total <= LIMIT.get()).ok_or(Fail::Memory)?;
        copy(bytes)?;
        HELD.set(total);
        self.0 += bytes;
        Ok(())
    }

    /// Gives back all but so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let excess = self.0.saturating_sub(bytes);
        self.0 -= excess;
        HELD.set(HELD.get().saturating_sub(excess));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}
