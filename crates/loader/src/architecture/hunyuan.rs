//! HunYuan, dense: norms of the heads of q and k after the rotary embedding. Converters put the base that follows from `alpha` in
//! the file and say that nothing is scaled.

use super::{LLAMA, Rules};

pub(super) static RULES: Rules = LLAMA;
