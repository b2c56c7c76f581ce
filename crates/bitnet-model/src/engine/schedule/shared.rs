//! All threads share every product.

use smallvec::SmallVec;
use ternary_kernels::Team;

use crate::ModelError;
use crate::engine::blocks::lm_head::StepOutput;
use crate::engine::input::{LogitsWanted, StepInput};
use crate::engine::limits::{INLINE_PARTS, MAX_ROWS};
use crate::engine::network::Network;
use crate::engine::segment::Segment;
use crate::engine::workspace::Buffers;

/// Divides the inputs into blocks of at most [`MAX_ROWS`] tokens: many short inputs share one, a long one fills
/// several.
pub(super) fn run(
    network: &Network,
    team: &Team,
    buffers: &mut Buffers,
    inputs: &mut [StepInput<'_>],
    out: &mut StepOutput,
) -> Result<(), ModelError> {
    // Tokens of the first input that are done.
    let (mut input, mut done) = (0, 0);
    while input < inputs.len() {
        let mut block = SmallVec::<[Segment<'_>; INLINE_PARTS]>::new();
        let mut rows = 0;
        let mut rest = &mut inputs[input..];
        while let [first, others @ ..] = rest {
            let todo = &first.tokens[done..];
            let take = todo.len().min(MAX_ROWS - rows);
            if take == 0 && !todo.is_empty() {
                break;
            }
            let state = &mut first.state.layers;
            state.kv.reserve(state.len() + take);
            let last = take == todo.len();
            let wanted = match first.wanted {
                LogitsWanted::Last if last && take > 0 => rows + take - 1..rows + take,
                LogitsWanted::All => rows..rows + take,
                LogitsWanted::Last | LogitsWanted::None => rows..rows,
            };
            block.push(Segment { state, tokens: &todo[..take], first_row: rows, wanted, head: first.head });
            rows += take;
            if !last {
                done += take;
                break;
            }
            (input, done) = (input + 1, 0);
            rest = others;
        }
        network.forward(team, buffers, &mut block, rows, None, out)?;
    }
    Ok(())
}
