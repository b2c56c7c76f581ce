//! Results of any length, owned by the caller.

use std::ffi::c_char;
use std::ptr;

use crate::border::Kind;

/// A text, JSON, or a session as bytes.
pub struct bitnet_bytes(());

impl Kind for bitnet_bytes {
    const NAME: &'static str = "bitnet_bytes";
    const TAG: [u8; 8] = *b"bn:bytes";
    type Inner = Bytes;
}

/// Bytes, and a NUL after them.
#[derive(Debug)]
pub(crate) struct Bytes(Vec<u8>);

impl Bytes {
    pub(crate) fn new(mut bytes: Vec<u8>) -> Self {
        bytes.push(0);
        Self(bytes)
    }
    pub(crate) fn text(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
    pub(crate) fn len(&self) -> usize {
        self.0.len() - 1
    }
}

/// Token ids.
pub struct bitnet_tokens(());

impl Kind for bitnet_tokens {
    const NAME: &'static str = "bitnet_tokens";
    const TAG: [u8; 8] = *b"bn:token";
    type Inner = Vec<u32>;
}

/// Numbers: a vector.
pub struct bitnet_floats(());

impl Kind for bitnet_floats {
    const NAME: &'static str = "bitnet_floats";
    const TAG: [u8; 8] = *b"bn:float";
    type Inner = Vec<f32>;
}

/// The bytes, with a NUL after the last one, which `len` does not count. `len` may be NULL. Valid until they are freed;
/// NULL, and 0, for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_bytes_data(bytes: *const bitnet_bytes, len: *mut usize) -> *const c_char {
    border!(else ptr::null(), |c| {
        let len = c.out_or_null("len", len, 0)?;
        let bytes = c.handle(bytes)?;
        if let Some(len) = len {
            len.set(bytes.len());
        }
        Ok(bytes.0.as_ptr().cast())
    })
}

/// Frees bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_bytes_free(bytes: *mut bitnet_bytes) {
    border!(else (), |c| {
        c.free(bytes);
        Ok(())
    });
}

/// The tokens; `len`, which may be NULL, receives their number. Valid until they are freed; NULL, and 0, for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_tokens_data(tokens: *const bitnet_tokens, len: *mut usize) -> *const u32 {
    border!(else ptr::null(), |c| {
        let len = c.out_or_null("len", len, 0)?;
        let tokens = c.handle(tokens)?;
        if let Some(len) = len {
            len.set(tokens.len());
        }
        Ok(tokens.as_ptr())
    })
}

/// Frees tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_tokens_free(tokens: *mut bitnet_tokens) {
    border!(else (), |c| {
        c.free(tokens);
        Ok(())
    });
}

/// The numbers; `len`, which may be NULL, receives how many. Valid until they are freed; NULL, and 0, for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_floats_data(floats: *const bitnet_floats, len: *mut usize) -> *const f32 {
    border!(else ptr::null(), |c| {
        let len = c.out_or_null("len", len, 0)?;
        let floats = c.handle(floats)?;
        if let Some(len) = len {
            len.set(floats.len());
        }
        Ok(floats.as_ptr())
    })
}

/// Frees numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_floats_free(floats: *mut bitnet_floats) {
    border!(else (), |c| {
        c.free(floats);
        Ok(())
    });
}
