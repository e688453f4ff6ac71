//! How many wrong tokens an address may send. Right ones are never counted nor refused: a token of 256 bits is not
//! guessed, and another user of the same address must not be able to lock its owner out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// Wrong tokens that an address may send at once,
const BURST: u32 = 10;
/// and then one in so long.
const EVERY: Duration = Duration::from_secs(6);
/// Addresses that are remembered. Beyond it the one that is quiet for longest is forgotten.
const MOST: usize = 1024;

/// An address as far as one person has it: an IPv4 address, or a /64 network of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::http) struct Client(IpAddr);

impl Client {
    pub(in crate::http) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        })
    }
}

/// What comes of a wrong token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// The first after some quiet: the one to write down.
    pub first: bool,
    /// Too many: wrong ones are refused for so long.
    pub retry_after: Option<Duration>,
}

/// Remembers for each address when all that it sent will be forgiven.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    forgiven: HashMap<Client, Instant>,
}

impl Throttle {
    /// Counts a wrong token. Those that are refused are not counted.
    pub(super) fn wrong(&mut self, now: Instant, client: Client) -> Counted {
        let owed = self.forgiven.get(&client).map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let room = EVERY * (BURST - 1);
        if owed > room {
            return Counted { first: false, retry_after: Some(owed - room) };
        }
        if owed.is_zero() && self.forgiven.len() >= MOST {
            self.make_room(now);
        }
        self.forgiven.insert(client, now + owed + EVERY);
        Counted { first: owed.is_zero(), retry_after: None }
    }

    fn make_room(&mut self, now: Instant) {
        self.forgiven.retain(|_, at| *at > now);
        if self.forgiven.len() >= MOST
            && let Some(client) = self.forgiven.iter().min_by_key(|(_, at)| **at).map(|(client, _)| *client)
        {
            self.forgiven.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn v4(n: u32) -> Client {
        Client::of(IpAddr::V4(Ipv4Addr::from_bits(n)))
    }

    #[test]
    fn a_burst_then_one_in_a_while() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        for n in 0..BURST {
            assert_eq!(throttle.wrong(now, v4(1)), Counted { first: n == 0, retry_after: None });
        }
        for _ in 0..1000 {
            assert_eq!(throttle.wrong(now, v4(1)), Counted { first: false, retry_after: Some(EVERY) });
        }
        assert_eq!(throttle.wrong(now, v4(2)), Counted { first: true, retry_after: None }, "another address");
        now += EVERY;
        assert_eq!(throttle.wrong(now, v4(1)).retry_after, None);
        assert_eq!(throttle.wrong(now, v4(1)).retry_after, Some(EVERY));
        now += EVERY * BURST;
        assert_eq!(throttle.wrong(now, v4(1)), Counted { first: true, retry_after: None }, "a new burst");
    }

    #[test]
    fn the_table_is_bounded_and_the_busiest_stay() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..BURST {
            throttle.wrong(now, v4(0));
        }
        for n in 1..100_000 {
            throttle.wrong(now, v4(n));
        }
        assert_eq!(throttle.forgiven.len(), MOST);
        assert!(throttle.wrong(now, v4(0)).retry_after.is_some());
    }

    #[test]
    fn networks_of_ipv6_are_one_client() {
        let of = |text: &str| Client::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
