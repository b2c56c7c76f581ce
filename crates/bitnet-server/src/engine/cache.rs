//! Prompt cache: sessions of finished completions, reused by prompts that begin with the same tokens.

use std::collections::VecDeque;

use bitnet::{Model, Session};

/// A session that shares fewer tokens with a prompt is not reused.
const MIN_SHARED_TOKENS: usize = 16;
/// A session with at most this many tokens after the shared prefix is used itself; a longer one is forked.
const MAX_DROPPED_TOKENS: usize = 32;
/// Most sessions that are kept; each is compared with each prompt.
const MAX_SESSIONS: usize = 64;

/// The sessions, the one used last first.
#[derive(Debug)]
pub(crate) struct Cache {
    sessions: VecDeque<Session>,
    limit: usize,
}

fn bytes(session: &Session) -> usize {
    session.state().bytes() + session.snapshot_bytes()
}

impl Cache {
    /// For at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { sessions: VecDeque::new(), limit }
    }

    /// A session for the prompt `ids`, and how many of them it holds already.
    pub(crate) fn session_for(&mut self, model: &Model, ids: &[u32]) -> (Session, usize) {
        let shared = self.sessions.iter().map(|s| s.common_prefix(ids)).enumerate();
        let best = shared.max_by_key(|(at, n)| (*n, usize::MAX - at)).filter(|(_, n)| *n >= MIN_SHARED_TOKENS);
        if let Some((at, common)) = best
            && let Some(session) = self.sessions.get(at)
        {
            let used_up = session.len() <= common + MAX_DROPPED_TOKENS;
            let session = if used_up { self.sessions.remove(at) } else { Some(session.fork()) };
            if let Some(mut session) = session
                && let Ok(known) = session.keep_prefix(ids)
                && known > 0
            {
                return (session, known);
            }
        }
        (model.session(), 0)
    }

    /// Keeps a session, and drops the least recently used ones if there is no room.
    pub(crate) fn keep(&mut self, session: Session) {
        if bytes(&session) > self.limit || session.len() < MIN_SHARED_TOKENS {
            return;
        }
        self.sessions.push_front(session);
        let mut left = self.limit;
        let mut fits = 0;
        for session in self.sessions.iter().take(MAX_SESSIONS) {
            match left.checked_sub(bytes(session)) {
                Some(rest) => left = rest,
                None => break,
            }
            fits += 1;
        }
        self.sessions.truncate(fits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet::GenerateOptions;

    fn session(model: &Model, ids: &[u32]) -> Session {
        let mut session = model.session();
        session.feed_ids(ids).unwrap();
        session
    }

    #[test]
    fn what_is_known_is_not_read_again_and_changes_nothing() {
        let model = Model::tiny().unwrap();
        let text = |from: u32, n: u32| (0..n).map(|i| 20 + (from + i * 7) % 1900).collect::<Vec<u32>>();
        let (a, b) = (text(0, 300), text(5, 40));
        let mut cache = Cache::new(64 << 20);
        cache.keep(session(&model, &a));
        cache.keep(session(&model, &b));
        // A text with too little in common, one that goes on, one that goes another way, one that is unknown.
        let cases = [
            ([&a[..15], &[9]].concat(), 0),
            ([&b[..], &[7, 8]].concat(), 40),
            ([&a[..290], &[9, 9, 9]].concat(), 256),
            (text(11, 30), 0),
        ];
        for (ids, expected) in cases {
            let (mut known, n) = cache.session_for(&model, &ids);
            assert_eq!(n, expected);
            let options = || GenerateOptions::default().seed(3).max_tokens(20);
            let again = known.generate_ids(&ids[n..], options()).unwrap().finish().unwrap();
            let fresh = model.session().generate_ids(&ids, options()).unwrap().finish().unwrap();
            assert_eq!((again.ids, again.text), (fresh.ids, fresh.text));
        }
    }

    #[test]
    fn it_stays_within_its_bytes() {
        let model = Model::tiny().unwrap();
        let one = bytes(&session(&model, &[30; 20]));
        let mut cache = Cache::new(2 * one);
        for first in 30..35 {
            cache.keep(session(&model, &[first; 20]));
        }
        let firsts: Vec<u32> = cache.sessions.iter().map(|s| s.tokens()[0]).collect();
        assert_eq!(firsts, [34, 33]);
        let mut none = Cache::new(0);
        none.keep(session(&model, &[30; 20]));
        assert_eq!(none.session_for(&model, &[30; 25]).1, 0);
    }
}
