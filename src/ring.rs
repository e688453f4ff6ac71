//! A bounded queue that many read, each at its own pace, and none holds up.
//!
//! ```text
//!   push --> [ 41 | 42 | 43 | 44 ] --> Tail at 44 (waits)
//!     the oldest go --^    '---------> Tail at 42;  a Tail at 12 is told that it missed 29
//! ```
//!
//! Items are shared, not copied: what a reader costs is a number and a place to be woken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// See the module.
#[derive(Debug)]
pub struct Ring<T> {
    items: Mutex<Items<T>>,
    /// Counts pushes, to wake readers.
    pushed: watch::Sender<u64>,
    most: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Items<T> {
    /// Number of the oldest that is there.
    first: u64,
    there: VecDeque<(Arc<T>, usize)>,
    bytes: usize,
    closed: bool,
}

/// One reader, which sees what is pushed after it came.
#[derive(Debug)]
pub struct Tail<T> {
    ring: Arc<Ring<T>>,
    next: u64,
    pushed: watch::Receiver<u64>,
}

/// What a reader gets.
#[derive(Debug)]
pub enum Next<T> {
    /// The next one.
    Item(Arc<T>),
    /// It was too slow: so many are gone. It goes on from now.
    Missed(u64),
    /// There will be no more.
    Closed,
}

impl<T> Ring<T> {
    /// Keeps `most` items and `most_bytes` of them together, and always the newest one.
    pub fn new(most: usize, most_bytes: usize) -> Arc<Self> {
        let items = Items { first: 0, there: VecDeque::new(), bytes: 0, closed: false };
        Arc::new(Self { items: Mutex::new(items), pushed: watch::Sender::new(0), most, most_bytes })
    }

    /// Adds one that takes `bytes`. Never waits.
    pub fn push(&self, item: T, bytes: usize) {
        {
            let mut items = self.lock();
            items.there.push_back((Arc::new(item), bytes));
            items.bytes += bytes;
            while items.there.len() > 1 && (items.there.len() > self.most || items.bytes > self.most_bytes) {
                let gone = items.there.pop_front().map_or(0, |(_, bytes)| bytes);
                items.bytes -= gone;
                items.first += 1;
            }
        }
        self.pushed.send_modify(|pushed| *pushed += 1);
    }

    /// Readers get what is there, then [`Next::Closed`].
    pub fn close(&self) {
        self.lock().closed = true;
        self.pushed.send_modify(|pushed| *pushed += 1);
    }

    /// Whether there will be no more.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// A reader from now on.
    pub fn tail(self: &Arc<Self>) -> Tail<T> {
        let pushed = self.pushed.subscribe();
        let next = self.lock().end();
        Tail { ring: self.clone(), next, pushed }
    }

    fn lock(&self) -> MutexGuard<'_, Items<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Items<T> {
    fn end(&self) -> u64 {
        self.first + self.there.len() as u64
    }
}

impl<T> Tail<T> {
    /// Waits for the next one. May be dropped while it waits, and called again.
    pub async fn next(&mut self) -> Next<T> {
        loop {
            // Before the look: what is pushed after it wakes us.
            self.pushed.mark_unchanged();
            if let Some(next) = self.try_next() {
                return next;
            }
            if self.pushed.changed().await.is_err() {
                return Next::Closed;
            }
        }
    }

    /// The next one if it is there.
    pub fn try_next(&mut self) -> Option<Next<T>> {
        let items = self.ring.lock();
        if self.next < items.first {
            let missed = items.first - self.next;
            self.next = items.end();
            return Some(Next::Missed(missed));
        }
        let at = usize::try_from(self.next - items.first).unwrap_or(usize::MAX);
        match items.there.get(at) {
            Some((item, _)) => {
                self.next += 1;
                Some(Next::Item(item.clone()))
            }
            None => items.closed.then_some(Next::Closed),
        }
    }

    /// Whether it has lost something already that it did not read.
    pub fn is_behind(&self) -> bool {
        self.next < self.ring.lock().first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rest(tail: &mut Tail<u32>) -> (Vec<u32>, u64) {
        let (mut seen, mut missed) = (Vec::new(), 0);
        loop {
            match tail.next().await {
                Next::Item(item) => seen.push(*item),
                Next::Missed(count) => missed += count,
                Next::Closed => return (seen, missed),
            }
        }
    }

    #[tokio::test]
    async fn every_reader_gets_everything_since_it_came() {
        let ring = Ring::new(10, 1000);
        let mut early = ring.tail();
        ring.push(1, 1);
        let mut late = ring.tail();
        let waiting = tokio::spawn(async move { rest(&mut late).await });
        tokio::task::yield_now().await;
        ring.push(2, 1);
        ring.push(3, 1);
        ring.close();
        assert_eq!(rest(&mut early).await, (vec![1, 2, 3], 0));
        assert_eq!(waiting.await.unwrap(), (vec![2, 3], 0));
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_once_and_goes_on_from_now() {
        let ring = Ring::new(4, 1000);
        let mut slow = ring.tail();
        (0..10).for_each(|n| ring.push(n, 1));
        assert!(slow.is_behind());
        assert!(matches!(slow.next().await, Next::Missed(6)));
        ring.push(10, 1);
        ring.close();
        assert_eq!(rest(&mut slow).await, (vec![10], 0));
    }

    #[test]
    fn it_is_bounded_by_bytes_and_keeps_the_newest() {
        let ring = Ring::new(100, 10);
        let size = || {
            let items = ring.lock();
            (items.there.len(), items.bytes)
        };
        let mut tail = ring.tail();
        (0..5).for_each(|n| ring.push(n, 4));
        assert_eq!(size(), (2, 8));
        ring.push(5, 4000);
        assert_eq!(size(), (1, 4000));
        assert!(matches!(tail.try_next(), Some(Next::Missed(5))));
        ring.push(6, 1);
        assert_eq!(size(), (1, 1));
    }
}
