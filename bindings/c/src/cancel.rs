//! Ending a generation from another thread.

use bitnet::CancelToken;

use crate::border::{Kind, give};
use crate::status::{bitnet_error, bitnet_status};

/// Ends generations from any thread. It is set once and never reset.
pub struct bitnet_cancel(());

impl Kind for bitnet_cancel {
    const NAME: &'static str = "bitnet_cancel";
    const TAG: [u8; 8] = *b"bn:cancl";
    type Inner = CancelToken;
}

/// A cancel token, for the field `cancel` of options. It may be freed before the generation ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_cancel_new(
    out: *mut *mut bitnet_cancel,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        c.out("out", out, std::ptr::null_mut())?.set(give(CancelToken::new()));
        Ok(())
    })
}

/// Ends every generation that has this token before its next token; its session keeps the text so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_cancel_set(
    cancel: *const bitnet_cancel,
    error: *mut *mut bitnet_error,
) -> bitnet_status {
    border!(error, |c| {
        c.handle(cancel)?.cancel();
        Ok(())
    })
}

/// Frees a cancel token; generations that have it go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitnet_cancel_free(cancel: *mut bitnet_cancel) {
    border!(else (), |c| {
        c.free(cancel);
        Ok(())
    });
}
