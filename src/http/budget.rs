//! Connections over TCP that are open at once: in all, and of one client. Where there is no room, the one that has been
//! silent longest makes way, so that connections which only take up room keep nobody out who has something to say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::access::Client;
use super::serve::Ending;

/// In all. The Unix socket has as many of its own.
pub(super) const TOTAL: usize = 256;
/// Of one client.
pub(super) const PER_CLIENT: usize = 64;

/// All of them.
#[derive(Debug, Default, Clone)]
pub(super) struct Budget(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    /// In the order in which they came.
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    client: Client,
    /// A token was accepted on it.
    proven: bool,
    ending: Ending,
}

/// The place of one connection, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    budget: Budget,
    number: u64,
}

impl Budget {
    /// A place for a new connection, at the cost of a silent one if need be. `None`: everybody else is in good
    /// standing, and the new one has to go.
    pub(super) fn take(&self, client: Client, ending: &Ending) -> Option<Place> {
        let mut table = self.lock();
        if table.of(client) >= PER_CLIENT {
            table.evict(|open| open.client == client)?;
        } else if table.open.len() >= TOTAL {
            table.evict(|_| true)?;
        }
        table.last += 1;
        let number = table.last;
        table.open.insert(number, Open { client, proven: false, ending: ending.clone() });
        Some(Place { budget: self.clone(), number })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn of(&self, client: Client) -> usize {
        self.open.values().filter(|open| open.client == client).count()
    }

    /// Ends the oldest one without a token.
    fn evict(&mut self, among: impl Fn(&Open) -> bool) -> Option<()> {
        let silent = self.open.iter().find(|(_, open)| !open.proven && among(open));
        let number = *silent?.0;
        self.open.remove(&number)?.ending.at_once();
        Some(())
    }
}

impl Place {
    /// A token was accepted: it does not make way any more.
    pub(super) fn prove(&self) {
        if let Some(open) = self.budget.lock().open.get_mut(&self.number) {
            open.proven = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.budget.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn client(n: u32) -> Client {
        Client::of(IpAddr::V4(n.into()))
    }

    #[test]
    fn the_oldest_silent_one_of_the_same_client_makes_way() {
        let budget = Budget::default();
        let endings: Vec<Ending> = (0..=PER_CLIENT).map(|_| Ending::default()).collect();
        let other = Ending::default();
        let _other = budget.take(client(2), &other).unwrap();
        let mut places: Vec<Place> =
            endings.iter().take(PER_CLIENT).map(|ending| budget.take(client(1), ending).unwrap()).collect();
        places[0].prove();
        places.push(budget.take(client(1), &endings[PER_CLIENT]).unwrap());
        let ended: Vec<usize> = (0..=PER_CLIENT).filter(|n| endings[*n].is_at_once()).collect();
        assert_eq!(ended, [1], "the oldest without a token");
        assert!(!other.is_at_once(), "another client is left alone");
        places.iter().for_each(Place::prove);
        assert!(budget.take(client(1), &Ending::default()).is_none(), "all are in good standing");
        assert!(budget.take(client(2), &Ending::default()).is_some());
        places.clear();
        assert!(budget.take(client(1), &Ending::default()).is_some());
    }

    #[test]
    fn the_total_is_bounded() {
        let budget = Budget::default();
        let ending = Ending::default();
        let _places: Vec<_> =
            (0..2000).map(|n| budget.take(client(n), &Ending::default()).unwrap()).collect();
        assert_eq!(budget.lock().open.len(), TOTAL);
        let place = budget.take(client(9999), &ending).unwrap();
        place.prove();
        let _more: Vec<_> = (0..2000).map(|n| budget.take(client(n), &Ending::default()).unwrap()).collect();
        assert!(!ending.is_at_once());
    }
}
