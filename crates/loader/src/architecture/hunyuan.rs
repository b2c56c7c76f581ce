//! HunYuan, dense: norms of the heads of q and k after the rotary embedding. Converters write the base that follows
//! from `alpha`, without any scaling.

use super::{LLAMA, Rules};

pub(super) static RULES: Rules = LLAMA;
