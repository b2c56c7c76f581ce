//! Versions, statuses and errors.

use std::ffi::{CStr, c_char};

use crate::border::Kind;
use crate::failure::Failure;

/// Version of this interface: what bitnet_abi_version() must return for a program that was compiled with this header. It
/// changes if something that exists changes; new functions, statuses and fields at the end of structures leave it.
pub const BITNET_ABI_VERSION: u32 = 1;

/// The outcome of a function. Later versions may add more, so a program must expect others.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bitnet_status {
    /// It worked.
    Ok = 0,
    /// A stream has no further piece. This is not an error.
    End = 1,
    /// A pointer that must not be NULL is.
    Null = 2,
    /// An argument or an option is out of its range.
    Argument = 3,
    /// A text is not UTF-8.
    Utf8 = 4,
    /// A pointer is not a handle, or it is one of another kind.
    Handle = 5,
    /// A structure has a size that is impossible, or fields that this library does not know.
    Size = 6,
    /// The session or stream is being used: by another thread, by the callback's own call, or by a stream that is open.
    Busy = 7,
    /// A model cannot be loaded: no such file, a damaged one, or one that is not supported.
    Load = 8,
    /// A file cannot be read or written.
    File = 9,
    /// The context does not hold that many tokens.
    ContextFull = 10,
    /// A saved session is damaged or of another model.
    SavedSession = 11,
    /// There is no tokenizer, or a text that it cannot read.
    Tokenizer = 12,
    /// There is no chat template, or it refuses the conversation.
    Chat = 13,
    /// A schema, a regular expression or a grammar cannot be used.
    Constraint = 14,
    /// A text was cut off before it satisfied its constraint. Its pieces were handed out, and it is not a result.
    Unfinished = 15,
    /// The model cannot do this, or it computed numbers that are not finite.
    Model = 16,
    /// A bug in the library, caught at its border. What the call used may only be freed.
    Panic = 17,
}

impl From<()> for bitnet_status {
    fn from((): ()) -> Self {
        Self::Ok
    }
}

impl bitnet_status {
    /// Every status with its name in C.
    const NAMES: [(Self, &'static CStr); 18] = [
        (Self::Ok, c"BITNET_STATUS_OK"),
        (Self::End, c"BITNET_STATUS_END"),
        (Self::Null, c"BITNET_STATUS_NULL"),
        (Self::Argument, c"BITNET_STATUS_ARGUMENT"),
        (Self::Utf8, c"BITNET_STATUS_UTF8"),
        (Self::Handle, c"BITNET_STATUS_HANDLE"),
        (Self::Size, c"BITNET_STATUS_SIZE"),
        (Self::Busy, c"BITNET_STATUS_BUSY"),
        (Self::Load, c"BITNET_STATUS_LOAD"),
        (Self::File, c"BITNET_STATUS_FILE"),
        (Self::ContextFull, c"BITNET_STATUS_CONTEXT_FULL"),
        (Self::SavedSession, c"BITNET_STATUS_SAVED_SESSION"),
        (Self::Tokenizer, c"BITNET_STATUS_TOKENIZER"),
        (Self::Chat, c"BITNET_STATUS_CHAT"),
        (Self::Constraint, c"BITNET_STATUS_CONSTRAINT"),
        (Self::Unfinished, c"BITNET_STATUS_UNFINISHED"),
        (Self::Model, c"BITNET_STATUS_MODEL"),
        (Self::Panic, c"BITNET_STATUS_PANIC"),
    ];
}

/// An error: a status and a message in English that says what is wrong and, where there is one, the way out.
pub struct bitnet_error(());

impl Kind for bitnet_error {
    const NAME: &'static str = "bitnet_error";
    const TAG: [u8; 8] = *b"bn:error";
    type Inner = Failure;
}

/// The version of the interface that the library has; a program compares it with BITNET_ABI_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_abi_version() -> u32 {
    BITNET_ABI_VERSION
}

/// The version of the library, "0.1.0" for example; valid forever.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The name of a status, "BITNET_STATUS_BUSY" for example; "BITNET_STATUS_UNKNOWN" for a number that this library does not
/// have. Valid forever.
#[unsafe(no_mangle)]
pub extern "C" fn bitnet_status_name(status: i32) -> *const c_char {
    let known = bitnet_status::NAMES.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"BITNET_STATUS_UNKNOWN", |known| known.1).as_ptr()
}

/// The status of an error; BITNET_STATUS_OK for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_error_status(error: *const bitnet_error) -> bitnet_status {
    border!(else bitnet_status::Ok, |c| { Ok(c.handle(error)?.status()) })
}

/// The message of an error, with a NUL at its end; an empty text for NULL. `len`, which may be NULL, receives its length in
/// bytes. Valid until the error is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_error_message(error: *const bitnet_error, len: *mut usize) -> *const c_char {
    border!(else c"".as_ptr(), |c| {
        let len = c.out_or_null("len", len, 0)?;
        let message = c.handle(error)?.message();
        if let Some(len) = len {
            len.set(message.len() - 1);
        }
        Ok(message.as_ptr().cast())
    })
}

/// Frees an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_error_free(error: *mut bitnet_error) {
    border!(else (), |c| {
        c.free(error);
        Ok(())
    });
}
