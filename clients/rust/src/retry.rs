//! When a call is sent again: gRPC's retry policy and its throttle, by the numbers that all
//! clients of the router share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const MOST_TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
// Retries stop while more than a few calls in a hundred fail.
const MOST_TOKENS: f64 = 20.0;
const TOKENS_PER_SUCCESS: f64 = 0.1;

/// The throttle, which the clones of a client share.
#[derive(Clone)]
pub(crate) struct Retries {
    tokens: Arc<Mutex<f64>>,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            tokens: Arc::new(Mutex::new(MOST_TOKENS)),
        }
    }
}

impl Retries {
    pub(crate) fn begin(&self) -> Tries<'_> {
        Tries {
            retries: self,
            made: 0,
        }
    }
}

/// The tries of one call.
pub(crate) struct Tries<'a> {
    retries: &'a Retries,
    made: u32,
}

impl Tries<'_> {
    /// Counts a try, and gives the pause before the next; None when there is to be none.
    pub(crate) fn next(&mut self, unavailable: bool) -> Option<Duration> {
        self.made += 1;
        let mut tokens = self
            .retries
            .tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !unavailable {
            *tokens = (*tokens + TOKENS_PER_SUCCESS).min(MOST_TOKENS);
            return None;
        }
        *tokens = (*tokens - 1.0).max(0.0);
        if self.made >= MOST_TRIES || *tokens <= MOST_TOKENS / 2.0 {
            return None;
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << (self.made - 1))
            .min(LONGEST_PAUSE);
        // A random part of it, as gRPC has it: from 0.8 to 1.2 of the pause.
        Some(pause.mul_f64(0.8 + 0.4 * random()))
    }
}

/// From 0 to 1: enough to keep clients apart that failed together, and no more than that.
fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let [high, low, ..] = RandomState::new().hash_one(0).to_be_bytes();
    f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let retries = Retries::default();
        let mut tries = retries.begin();
        let pauses: Vec<_> = std::iter::from_fn(|| tries.next(true)).collect();
        assert_eq!(pauses.len(), 3);
        for (pause, middle) in pauses.iter().zip([50, 100, 200]) {
            let middle = Duration::from_millis(middle);
            assert!(
                *pause >= middle.mul_f64(0.79) && *pause <= middle.mul_f64(1.21),
                "{pause:?}"
            );
        }
    }

    #[test]
    fn a_success_ends_the_tries() {
        assert_eq!(Retries::default().begin().next(false), None);
    }

    #[test]
    fn many_failures_stop_retries_until_calls_succeed_again() {
        let retries = Retries::default();
        let failing = (0..20)
            .take_while(|_| retries.begin().next(true).is_some())
            .count();
        assert_eq!(failing, 9);
        assert_eq!(retries.begin().next(true), None);
        for _ in 0..30 {
            retries.begin().next(false);
        }
        assert!(retries.begin().next(true).is_some());
    }
}
