//! The border: memory that a caller named is read and written here and nowhere else, and panics end here.
//!
//! The exported functions are `unsafe` because their callers promise what no code can check: that a pointer which is not
//! null points to what the header says, as long as it says. A [`Caller`] is the proof that such a promise was made: only
//! [`run`] and [`run_or`] make one, and it does not outlive the call.

use std::any::Any;
use std::ffi::c_char;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::Failure;
use crate::generate::bitnet_piece;
use crate::options::bitnet_str;
use crate::status::{bitnet_error, bitnet_status};

/// A kind of handle. The type that implements it is its name in C and has no values.
pub(crate) trait Kind {
    /// Its name in C, for messages.
    const NAME: &'static str;
    /// Eight letters at the beginning of each handle of this kind, different from those of all others.
    const TAG: [u8; 8];
    /// The value behind a handle; any thread may use it.
    type Inner: Send + Sync + 'static;
}

/// The memory of a handle.
#[repr(C)]
struct Boxed<T> {
    tag: AtomicU64,
    inner: T,
}

/// The tag of a handle that was freed, as far as its memory still shows it.
const FREED: u64 = u64::from_le_bytes(*b"bn:freed");

const fn tag_of<K: Kind>() -> u64 {
    u64::from_le_bytes(K::TAG)
}

/// A new handle, which the caller owns.
pub(crate) fn give<K: Kind>(inner: K::Inner) -> *mut K {
    Box::into_raw(Box::new(Boxed { tag: AtomicU64::new(tag_of::<K>()), inner })).cast()
}

/// Types that C may lay out in an array or behind a pointer: every pattern of bits is a value of them.
pub(crate) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for f64 {}
impl Plain for usize {}
impl Plain for bitnet_str {}
impl Plain for bitnet_piece {}
impl<T> Plain for *const T {}
impl<T> Plain for *mut T {}

/// A structure that grows: its first field is `size: usize`, and every pattern of bits is a value of it.
pub(crate) trait Versioned: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// Bytes that it had in the first version of the header.
    const FIRST: usize;
}

/// Bytes above which the size of a structure is taken for garbage.
const LARGEST: usize = 4096;

/// The caller of an exported function, for as long as the call lasts.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'c> {
    call: PhantomData<fn(&'c ()) -> &'c ()>,
}

/// Runs the body of an exported function that returns a status: an error becomes an object behind `error`, and a panic an
/// error.
///
/// # Safety
/// An exported function calls this with the `error` of its caller, who keeps the promises of the header.
pub(crate) unsafe fn run<R: Into<bitnet_status>>(
    error: *mut *mut bitnet_error,
    body: impl for<'c> FnOnce(Caller<'c>) -> Result<R, Failure>,
) -> bitnet_status {
    let caller = Caller { call: PhantomData };
    let done = catch_unwind(AssertUnwindSafe(|| body(caller).map(Into::into)));
    let (status, failure) = match done.unwrap_or_else(|panic| Err(panicked(panic))) {
        Ok(status) => (status, None),
        Err(failure) => (failure.status(), Some(failure)),
    };
    if let Ok(out) = caller.out("error", error, ptr::null_mut())
        && let Some(failure) = failure
    {
        out.set(give(failure));
    }
    status
}

/// Runs the body of an exported function that cannot tell an error: `otherwise` is its answer then.
///
/// # Safety
/// An exported function calls this, whose caller keeps the promises of the header.
pub(crate) unsafe fn run_or<R>(otherwise: R, body: impl for<'c> FnOnce(Caller<'c>) -> Result<R, Failure>) -> R {
    let done = catch_unwind(AssertUnwindSafe(|| body(Caller { call: PhantomData })));
    match done {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => otherwise,
        Err(panic) => {
            drop(panicked(panic));
            otherwise
        }
    }
}

/// The error that a panic becomes.
fn panicked(panic: Box<dyn Any + Send>) -> Failure {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    if text.is_none() {
        // The end of a value of unknown type could panic as well.
        std::mem::forget(panic);
    }
    Failure::panic(text.as_deref().unwrap_or("no reason was given"))
}

/// The body of an exported function: with the `error` of its caller, or with the answer if it fails.
macro_rules! border {
    (else $otherwise:expr, |$caller:ident| $body:block) => {
        // SAFETY: only exported functions hold this; what they were given is their caller's promise.
        unsafe { $crate::border::run_or($otherwise, |$caller| $body) }
    };
    ($error:expr, |$caller:ident| $body:block) => {
        // SAFETY: only exported functions hold this, with the pointer of their caller, who promises that it is NULL or a place.
        unsafe { $crate::border::run($error, |$caller| $body) }
    };
}

/// The tag at the beginning of a handle.
fn tag<'c, K>(_: Caller<'c>, handle: *const K) -> Option<&'c AtomicU64> {
    let tag = handle.cast::<AtomicU64>();
    if tag.is_null() || !tag.is_aligned() {
        return None;
    }
    // SAFETY: the caller promises a handle of this library that was not freed; each begins with a tag.
    Some(unsafe { &*tag })
}

impl<'c> Caller<'c> {
    /// The value behind a handle.
    pub(crate) fn handle<K: Kind>(self, handle: *const K) -> Result<&'c K::Inner, Failure> {
        if handle.is_null() {
            return Err(Failure::null(K::NAME));
        }
        match tag(self, handle).map(|tag| tag.load(Ordering::Relaxed)) {
            // SAFETY: the tag says that `give` made it of this type. Nothing takes a value out of a handle before its end.
            Some(tag) if tag == tag_of::<K>() => Ok(unsafe { &(*handle.cast::<Boxed<K::Inner>>()).inner }),
            tag => Err(Failure::kind(K::NAME, tag.map(u64::to_le_bytes))),
        }
    }

    /// The value behind a handle, or nothing for NULL.
    pub(crate) fn handle_or_null<K: Kind>(self, handle: *const K) -> Result<Option<&'c K::Inner>, Failure> {
        if handle.is_null() { Ok(None) } else { self.handle(handle).map(Some) }
    }

    /// Ends a handle; NULL and what is not a handle of this kind are left alone.
    pub(crate) fn free<K: Kind>(self, handle: *mut K) {
        let (live, freed) = (tag_of::<K>(), FREED);
        let ended = tag(self, handle).map(|tag| tag.compare_exchange(live, freed, Ordering::AcqRel, Ordering::Relaxed));
        if let Some(Ok(_)) = ended {
            // SAFETY: the tag says that `give` made it of this type, and only one call changes it.
            drop(unsafe { Box::from_raw(handle.cast::<Boxed<K::Inner>>()) });
        }
    }

    /// An array of the caller's.
    pub(crate) fn slice<T: Plain>(self, what: &str, data: *const T, len: usize) -> Result<&'c [T], Failure> {
        if len == 0 {
            return Ok(&[]);
        }
        if data.is_null() {
            return Err(Failure::null(&format!("{what}, with a length of {len},")));
        }
        let fits = len.checked_mul(size_of::<T>()).is_some_and(|bytes| isize::try_from(bytes).is_ok());
        if !fits {
            return Err(Failure::argument(format!("{what}: a length of {len} is more than memory can hold")));
        }
        if !data.is_aligned() {
            return Err(Failure::argument(format!("{what}: its address is not a multiple of {}", align_of::<T>())));
        }
        // SAFETY: the caller promises that many values at this address, which do not change during the call.
        Ok(unsafe { std::slice::from_raw_parts(data, len) })
    }

    /// A text of the caller's.
    pub(crate) fn text(self, what: &str, data: *const c_char, len: usize) -> Result<&'c str, Failure> {
        let bytes = self.slice(what, data.cast::<u8>(), len)?;
        std::str::from_utf8(bytes).map_err(|e| Failure::utf8(what, e.valid_up_to()))
    }

    /// A text in a structure or an array.
    pub(crate) fn str(self, what: &str, text: bitnet_str) -> Result<&'c str, Failure> {
        self.text(what, text.data, text.len)
    }

    /// Texts in an array.
    pub(crate) fn texts(self, what: &str, data: *const bitnet_str, len: usize) -> Result<Vec<&'c str>, Failure> {
        let texts = self.slice(what, data, len)?.iter().enumerate();
        texts.map(|(i, text)| self.str(&format!("{what}[{i}]"), *text)).collect()
    }

    /// A place for a result, which holds `empty` from now on.
    pub(crate) fn out<T: Plain>(self, what: &str, place: *mut T, empty: T) -> Result<Out<'c, T>, Failure> {
        if place.is_null() {
            return Err(Failure::null(what));
        }
        if !place.is_aligned() {
            return Err(Failure::argument(format!("{what}: its address is not a multiple of {}", align_of::<T>())));
        }
        let out = Out { place, call: PhantomData };
        out.set(empty);
        Ok(out)
    }

    /// A place for a result that the caller may not want.
    pub(crate) fn out_or_null<T: Plain>(
        self,
        what: &str,
        place: *mut T,
        empty: T,
    ) -> Result<Option<Out<'c, T>>, Failure> {
        if place.is_null() { Ok(None) } else { self.out(what, place, empty).map(Some) }
    }

    /// Places for several results in a row.
    pub(crate) fn outs<T: Plain>(
        self,
        what: &str,
        first: *mut T,
        len: usize,
        empty: T,
    ) -> Result<Vec<Out<'c, T>>, Failure> {
        (0..len).map(|i| self.out(what, first.wrapping_add(i), empty)).collect()
    }

    /// The size that a structure of the caller's says it has.
    fn size<T: Versioned>(self, structure: *const T) -> Result<usize, Failure> {
        if !structure.is_aligned() {
            let message = format!("{}: its address is not a multiple of {}", T::NAME, align_of::<T>());
            return Err(Failure::argument(message));
        }
        // SAFETY: the caller promises such a structure, whose first field is its size.
        let size = unsafe { structure.cast::<usize>().read() };
        match (T::FIRST..=LARGEST).contains(&size) {
            true => Ok(size),
            false => Err(Failure::size(T::NAME, format!("its field size is {size}; set it to sizeof({})", T::NAME))),
        }
    }

    /// A structure of options; `defaults` for NULL, and for fields that the caller's does not have.
    pub(crate) fn options<T: Versioned>(self, given: *const T, defaults: T) -> Result<T, Failure> {
        if given.is_null() {
            return Ok(defaults);
        }
        let size = self.size(given)?;
        let known = size.min(size_of::<T>());
        let mut options = defaults;
        // SAFETY: the caller promises `size` bytes there. Every pattern of bits is a value of the type, and a part of one
        // over another is, too.
        let more = unsafe {
            ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut options).cast::<u8>(), known);
            std::slice::from_raw_parts(given.cast::<u8>().add(known), size - known)
        };
        match more.iter().all(|byte| *byte == 0) {
            true => Ok(options),
            false => {
                let reason = "it has fields that this version of the library does not know; leave them zero";
                Err(Failure::size(T::NAME, reason.to_owned()))
            }
        }
    }

    /// A structure that receives results; nothing for NULL.
    pub(crate) fn report<T: Versioned>(self, place: *mut T) -> Result<Option<Report<'c, T>>, Failure> {
        if place.is_null() {
            return Ok(None);
        }
        let size = self.size(place.cast_const())?;
        Ok(Some(Report { place, size, call: PhantomData }))
    }

    /// A structure that is to be filled, of `size` bytes.
    pub(crate) fn fill<T: Versioned>(self, place: *mut T, size: usize) -> Result<Report<'c, T>, Failure> {
        if place.is_null() {
            return Err(Failure::null(T::NAME));
        }
        if !place.is_aligned() || !(T::FIRST..=LARGEST).contains(&size) {
            let reason = format!("a size of {size} was given; give sizeof({})", T::NAME);
            return Err(Failure::size(T::NAME, reason));
        }
        Ok(Report { place, size, call: PhantomData })
    }
}

/// A place for a result.
#[derive(Clone, Copy)]
pub(crate) struct Out<'c, T> {
    place: *mut T,
    call: PhantomData<fn(&'c ()) -> &'c ()>,
}

impl<T: Plain> Out<'_, T> {
    /// Hands the result over.
    pub(crate) fn set(self, value: T) {
        // SAFETY: the caller promises room for one value there; `Caller::out` has looked at null and the alignment.
        unsafe { self.place.write(value) }
    }
}

/// A structure that receives results.
#[derive(Clone, Copy)]
pub(crate) struct Report<'c, T> {
    place: *mut T,
    size: usize,
    call: PhantomData<fn(&'c ()) -> &'c ()>,
}

impl<T: Versioned> Report<'_, T> {
    /// Hands over what the caller's structure has room for; its size stays, and fields unknown here become zero.
    pub(crate) fn set(self, value: T) {
        let known = self.size.min(size_of::<T>());
        // SAFETY: the caller promises `size` bytes there, of which the first field holds that size.
        unsafe {
            ptr::write_bytes(self.place.cast::<u8>(), 0, self.size);
            ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), self.place.cast::<u8>(), known);
            self.place.cast::<usize>().write(self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{bitnet_bytes, bitnet_floats};

    fn call<R>(body: impl for<'c> FnOnce(Caller<'c>) -> Result<R, Failure>) -> Result<R, Failure> {
        body(Caller { call: PhantomData })
    }

    fn message(error: *mut bitnet_error) -> (bitnet_status, String) {
        call(|c| {
            let failure = c.handle(error)?;
            let told = (failure.status(), failure.to_string());
            c.free(error);
            Ok(told)
        })
        .unwrap()
    }

    #[test]
    fn a_panic_is_an_error_and_its_message_arrives() {
        for owned in [false, true] {
            let mut error = ptr::null_mut();
            let body = |_: Caller<'_>| -> Result<(), Failure> {
                if owned { std::panic::panic_any("broken 7".to_owned()) } else { std::panic::panic_any("broken 7") }
            };
            // SAFETY: `error` is a place for a pointer.
            let status = unsafe { run(&raw mut error, body) };
            assert_eq!(status, bitnet_status::Panic);
            let (status, text) = message(error);
            assert_eq!(status, bitnet_status::Panic);
            assert!(text.contains("broken 7"), "{text}");
        }
        // SAFETY: without a place for the error.
        let status = unsafe { run(ptr::null_mut(), |_| -> Result<(), Failure> { std::panic::panic_any(7) }) };
        assert_eq!(status, bitnet_status::Panic);
        // SAFETY: nothing is given.
        assert_eq!(unsafe { run_or(5, |_| std::panic::panic_any("no")) }, 5);
    }

    #[test]
    fn handles_of_other_kinds_are_refused_and_stay() {
        let bytes = give::<bitnet_bytes>(crate::buffer::Bytes::text("text"));
        let wrong = call(|c| c.handle(bytes.cast::<bitnet_floats>()).map(drop)).unwrap_err();
        assert_eq!(wrong.status(), bitnet_status::Handle);
        assert!(wrong.to_string().contains("bitnet_bytes"), "{wrong}");
        call(|c| {
            c.free(bytes.cast::<bitnet_floats>());
            c.free(ptr::null_mut::<bitnet_floats>());
            assert_eq!(c.handle(bytes)?.len(), 4);
            c.free(bytes);
            Ok(())
        })
        .unwrap();
        let odd = bytes.cast::<u8>().wrapping_add(1).cast::<bitnet_bytes>();
        assert_eq!(call(|c| c.handle(odd).map(drop)).unwrap_err().status(), bitnet_status::Handle);
    }

    #[test]
    fn lengths_that_no_memory_has_are_refused() {
        let one = 7u32;
        let refused = |len| call(|c| c.slice("x", &raw const one, len).map(drop)).unwrap_err().status();
        assert_eq!(refused(usize::MAX), bitnet_status::Argument);
        assert_eq!(refused(usize::MAX / 4), bitnet_status::Argument);
        assert_eq!(call(|c| c.slice::<u32>("x", ptr::null(), 1).map(drop)).unwrap_err().status(), bitnet_status::Null);
        assert_eq!(call(|c| Ok(c.slice::<u32>("x", ptr::null(), 0)?.len())).unwrap(), 0);
        let odd = (&raw const one).cast::<u8>().wrapping_add(1).cast::<u32>();
        assert_eq!(call(|c| c.slice("x", odd, 1).map(drop)).unwrap_err().status(), bitnet_status::Argument);
    }

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Grown {
        size: usize,
        a: u64,
        b: u64,
        c: u64,
    }
    impl Versioned for Grown {
        const NAME: &'static str = "grown";
        const FIRST: usize = 16;
    }

    #[test]
    fn structures_of_other_versions_are_understood_or_refused() {
        let defaults = Grown { size: size_of::<Grown>(), a: 1, b: 2, c: 3 };
        let mut given = [0usize; 8];
        let mut read = |size: usize, fields: [usize; 7]| {
            given = [size, fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], fields[6]];
            call(|c| c.options(given.as_ptr().cast::<Grown>(), defaults))
        };
        // An older caller, one of today, a newer one that uses nothing new, and one that does.
        assert_eq!(read(16, [9; 7]).unwrap(), Grown { size: 16, a: 9, b: 2, c: 3 });
        assert_eq!(read(32, [9; 7]).unwrap(), Grown { size: 32, a: 9, b: 9, c: 9 });
        assert_eq!(read(48, [9, 9, 9, 0, 0, 9, 9]).unwrap(), Grown { size: 48, a: 9, b: 9, c: 9 });
        for (size, fields) in [(48, [9, 9, 9, 0, 1, 0, 0]), (8, [0; 7]), (0, [0; 7]), (usize::MAX, [0; 7])] {
            assert_eq!(read(size, fields).unwrap_err().status(), bitnet_status::Size, "{size}");
        }
        assert_eq!(call(|c| c.options(ptr::null(), defaults)).unwrap(), defaults);

        for (size, expected) in [(16, [16, 7, 5, 5, 5]), (32, [32, 7, 8, 9, 5]), (40, [40, 7, 8, 9, 0])] {
            let mut place: [usize; 5] = [size, 5, 5, 5, 5];
            let value = Grown { size: 0, a: 7, b: 8, c: 9 };
            call(|c| {
                c.report(place.as_mut_ptr().cast::<Grown>())?.expect("a place").set(value);
                Ok(())
            })
            .unwrap();
            assert_eq!(place, expected);
        }
    }
}
