//! How long to wait before a restart, and when to stop trying.

use std::time::Duration;

use super::plan::{AfterMaxRetries, RestartPolicy};

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Retry {
    /// Restart number `attempt` in a row, after `delay`.
    Again { attempt: u32, delay: Duration, beyond_max: bool },
    /// `max_retries` restarts did not help.
    GiveUp,
}

/// So many restarts in a row may follow each other without a pause, where the policy asks for none.
const WITHOUT_PAUSE: u32 = 100;
/// After them: a service that crashes at once must not use up the machine, the journal and the database. systemd's own
/// default of `RestartSec=`.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// The delay before attempt n (1-based): `min(retry_delay * backoff_multiplier^(n-1), max_backoff)`, to which a
/// random share of up to `jitter` of it is added. `entropy` is any 64 random bits.
pub(super) fn delay(policy: &RestartPolicy, attempt: u32, entropy: u64) -> Duration {
    // Not `powf`: nothing else here needs libm, which would be resident memory.
    let power = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = policy.retry_delay.as_secs_f64() * policy.backoff_multiplier.powi(power);
    // Also true for an overflow to infinity; 0 * infinity is not a number, and 0 is what was asked for.
    let base = if grown.is_nan() { 0.0 } else { grown.min(policy.max_backoff.as_secs_f64()) };
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept on purpose")]
    let share = (entropy >> 11) as f64 / (1u64 << 53) as f64;
    Duration::try_from_secs_f64(base * policy.jitter.mul_add(share, 1.0)).unwrap_or(policy.max_backoff)
}

/// Decides on the failure that follows `attempt` restarts in a row.
pub(super) fn after_failure(policy: &RestartPolicy, attempt: u32, entropy: u64) -> Retry {
    let next = attempt.saturating_add(1);
    let beyond_max = policy.max_retries.is_some_and(|max| next > max);
    match policy.after_max_retries {
        AfterMaxRetries::Fatal if beyond_max => Retry::GiveUp,
        AfterMaxRetries::KeepTrying if beyond_max => {
            let at_most = RestartPolicy { retry_delay: policy.max_backoff, ..policy.clone() };
            Retry::Again { attempt: next, delay: paused(next, delay(&at_most, 1, entropy)), beyond_max }
        }
        _ => Retry::Again { attempt: next, delay: paused(next, delay(policy, next, entropy)), beyond_max },
    }
}

fn paused(attempt: u32, delay: Duration) -> Duration {
    if attempt > WITHOUT_PAUSE { delay.max(LEAST_PAUSE) } else { delay }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(delay: f64, multiplier: f64, max: f64, retries: Option<u32>) -> RestartPolicy {
        RestartPolicy {
            max_retries: retries,
            retry_delay: Duration::from_secs_f64(delay),
            backoff_multiplier: multiplier,
            max_backoff: Duration::from_secs_f64(max),
            jitter: 0.0,
            reset_after: Duration::from_secs(60),
            after_max_retries: AfterMaxRetries::Fatal,
        }
    }

    fn sequence(policy: &RestartPolicy, length: u32) -> Vec<Option<u64>> {
        (0..length)
            .map(|attempt| match after_failure(policy, attempt, 0) {
                Retry::Again { delay, .. } => Some(delay.as_secs()),
                Retry::GiveUp => None,
            })
            .collect()
    }

    #[test]
    fn the_reference_sequence_then_fatal() {
        let reference = policy(10.0, 2.0, 300.0, Some(5));
        assert_eq!(sequence(&reference, 6), [Some(10), Some(20), Some(40), Some(80), Some(160), None]);
    }

    #[test]
    fn the_cap_holds_however_long_it_goes_on() {
        let unlimited = policy(10.0, 2.0, 300.0, None);
        assert_eq!(sequence(&unlimited, 7)[5..], [Some(300), Some(300)]);
        assert_eq!(delay(&unlimited, u32::MAX, 0), Duration::from_secs(300));
    }

    #[test]
    fn no_retries_no_delay_and_keep_trying() {
        assert_eq!(sequence(&policy(10.0, 2.0, 300.0, Some(0)), 1), [None]);
        assert_eq!(sequence(&policy(0.0, 2.0, 300.0, None), 3), [Some(0); 3]);
        assert_eq!(delay(&policy(0.0, 2.0, 300.0, None), u32::MAX, 0), Duration::ZERO);
        let keep = RestartPolicy {
            after_max_retries: AfterMaxRetries::KeepTrying,
            ..policy(1.0, 2.0, 60.0, Some(2))
        };
        assert_eq!(sequence(&keep, 4), [Some(1), Some(2), Some(60), Some(60)]);
    }

    #[test]
    fn restarts_without_end_get_a_pause() {
        let delay_after = |policy: &RestartPolicy, attempt| match after_failure(policy, attempt, 0) {
            Retry::Again { delay, .. } => delay,
            Retry::GiveUp => Duration::MAX,
        };
        let none = policy(0.0, 2.0, 300.0, None);
        assert_eq!(delay_after(&none, 99), Duration::ZERO);
        assert_eq!(delay_after(&none, 100), LEAST_PAUSE);
        assert_eq!(delay_after(&policy(1.0, 1.0, 300.0, None), 100), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn a_delay_lies_between_its_bounds(
            first in 0.0..100.0f64, multiplier in 1.0..10.0f64, max in 0.0..1000.0f64, jitter in 0.0..=1.0f64,
            attempt in any::<u32>(), entropy in any::<u64>(),
        ) {
            let policy = RestartPolicy { jitter, ..policy(first, multiplier, max, None) };
            let plain = delay(&RestartPolicy { jitter: 0.0, ..policy.clone() }, attempt, entropy);
            let with_jitter = delay(&policy, attempt, entropy);
            prop_assert!(plain <= policy.max_backoff);
            prop_assert!(with_jitter >= plain);
            prop_assert!(with_jitter.as_secs_f64() <= plain.as_secs_f64() * (1.0 + jitter) + 1e-6);
        }

        #[test]
        fn delays_do_not_shrink(first in 0.0..100.0f64, multiplier in 1.0..10.0f64, attempt in 1u32..50) {
            let policy = policy(first, multiplier, 300.0, None);
            prop_assert!(delay(&policy, attempt + 1, 0) >= delay(&policy, attempt, 0));
        }
    }
}
