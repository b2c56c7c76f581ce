//! How a session takes a prompt.

use bitnet::{Batch, Error, Model, ModelError, Prepared, SequenceId, Session};

/// A session with its prompt in a batch of one.
#[derive(Debug)]
pub struct Joined {
    /// The batch.
    pub batch: Batch,
    /// The session in it.
    pub sequence: SequenceId,
    /// Tokens of the prompt that the session had read before.
    pub cached: usize,
}

/// Hands the session in `idle` with the tokens of its whole text to a batch of one; `None` if it is not there. What it holds
/// of their beginning is not read again.
///
/// # Errors
/// A text that is longer than the context, or that the session cannot take. The session is as it was then.
pub fn join(
    model: &Model,
    idle: &mut Option<Session>,
    ids: &[u32],
    prepared: Prepared,
) -> Result<Option<Joined>, Error> {
    let limit = model.context();
    if ids.len() > limit {
        return Err(ModelError::ContextFull { limit, used: 0, more: ids.len() }.into());
    }
    let Some(mut session) = idle.take() else { return Ok(None) };
    // A refusal comes after the session went back to the common beginning.
    let spare = session.fork();
    let mut batch = Batch::new(model);
    let joined = session.keep_prefix(ids).and_then(|cached| {
        let sequence = batch.join_prepared(session, &ids[cached..], prepared)?;
        Ok((sequence, cached))
    });
    match joined {
        Ok((sequence, cached)) => Ok(Some(Joined { batch, sequence, cached })),
        Err(error) => {
            *idle = Some(spare);
            Err(error)
        }
    }
}
