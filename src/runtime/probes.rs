//! Probes in flight: so many at once, one of a service, those of critical services first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::core::plan::Id;

/// At once; more wait for their turn.
const AT_ONCE: usize = 64;

/// Where the supervisor lacks what asking takes, it says so this often, and not for each service.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// All of them. Those that are in flight when this is dropped end.
#[derive(Debug, Default)]
pub(super) struct Probes {
    turns: Turns,
    lack_told: Option<Instant>,
    running: BTreeMap<Id, AbortHandle>,
}

impl Probes {
    /// Asks `service` when it is its turn. A probe of it that nobody counts on any more ends.
    ///
    /// What asking takes, some KiB, is there from its turn on: a thousand may wait for theirs.
    pub fn begin<P>(&mut self, service: Id, critical: bool, probe: impl FnOnce() -> P + Send + 'static)
    where
        P: Future<Output = ()> + Send + 'static,
    {
        self.end(&service);
        let turns = self.turns.clone();
        let task = tokio::spawn(async move {
            let _turn = turns.take(critical).await;
            Box::pin(probe()).await;
        });
        self.running.insert(service, task.abort_handle());
    }

    /// The probe of a service told what it found, and is forgotten: a handle keeps all of a task's memory.
    pub fn told(&mut self, service: &Id) {
        if self.running.get(service).is_some_and(AbortHandle::is_finished) {
            self.running.remove(service);
        }
    }

    /// One could not ask; `true` if that is to be told.
    pub fn lacks(&mut self) -> bool {
        let tell = self.lack_told.is_none_or(|told| told.elapsed() >= TELL_AGAIN);
        if tell {
            self.lack_told = Some(Instant::now());
        }
        tell
    }

    /// Ends the probe of a service, which is going down: its answer would say nothing.
    pub fn end(&mut self, service: &Id) {
        if let Some(task) = self.running.remove(service) {
            task.abort();
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

/// So many turns, and two queues for them.
#[derive(Debug, Clone)]
struct Turns(Arc<Mutex<Queues>>);

#[derive(Debug)]
struct Queues {
    free: usize,
    critical: VecDeque<oneshot::Sender<Turn>>,
    others: VecDeque<oneshot::Sender<Turn>>,
}

/// Given on when it is dropped.
#[derive(Debug)]
struct Turn(Option<Turns>);

impl Default for Turns {
    fn default() -> Self {
        Self::new(AT_ONCE)
    }
}

impl Turns {
    fn new(free: usize) -> Self {
        Self(Arc::new(Mutex::new(Queues { free, critical: VecDeque::new(), others: VecDeque::new() })))
    }

    async fn take(&self, critical: bool) -> Turn {
        let waiting = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if queues.free > 0 {
                queues.free -= 1;
                return Turn(Some(self.clone()));
            }
            let (tell, told) = oneshot::channel();
            let queue = if critical { &mut queues.critical } else { &mut queues.others };
            // Those who stopped waiting make room, so a queue is never longer than there are services.
            queue.retain(|waiting| !waiting.is_closed());
            queue.push_back(tell);
            told
        };
        // The senders live as long as the queues, which we hold.
        waiting.await.unwrap_or(Turn(None))
    }

    fn give_back(&self) {
        loop {
            let next = {
                let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let next = queues.critical.pop_front();
                let next = next.or_else(|| queues.others.pop_front());
                if next.is_none() {
                    queues.free += 1;
                }
                next
            };
            match next.map(|waiting| waiting.send(Turn(Some(self.clone())))) {
                None | Some(Ok(())) => return,
                // It waits no longer: the turn is the next one's, and not given back a second time.
                Some(Err(mut turn)) => turn.0 = None,
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn critical_services_go_first_where_probes_queue() {
        let turns = Turns::new(1);
        let first = turns.take(false).await;
        let (tell, mut order) = mpsc::unbounded_channel();
        for (name, critical) in [("a", false), ("b", false), ("c", true), ("d", true)] {
            let (turns, tell) = (turns.clone(), tell.clone());
            tokio::spawn(async move {
                let _turn = turns.take(critical).await;
                tell.send(name).unwrap();
            });
        }
        while {
            let queues = turns.0.lock().unwrap();
            queues.critical.len() + queues.others.len() < 4
        } {
            tokio::task::yield_now().await;
        }
        drop(first);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(order.recv().await.unwrap());
        }
        assert_eq!(seen, ["c", "d", "a", "b"]);
    }

    #[tokio::test]
    async fn turns_are_neither_lost_nor_made_by_those_who_stop_waiting() {
        let turns = Turns::new(2);
        let held = [turns.take(false).await, turns.take(true).await];
        for critical in [false, true] {
            let waiting = turns.clone();
            let task = tokio::spawn(async move { drop(waiting.take(critical).await) });
            tokio::task::yield_now().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        drop(held);
        assert_eq!(turns.0.lock().unwrap().free, 2);
    }

    #[tokio::test]
    async fn one_probe_of_a_service_at_once_and_none_when_it_ends() {
        let mut probes = Probes::default();
        let id = Id::new("web").unwrap();
        let (alive, mut ended) = mpsc::channel::<()>(1);
        for _ in 0..3 {
            let alive = alive.clone();
            probes.begin(id.clone(), false, || async move {
                let _alive = alive;
                std::future::pending().await
            });
            tokio::task::yield_now().await;
        }
        drop(alive);
        assert_eq!(probes.turns.0.lock().unwrap().free, AT_ONCE - 1);
        probes.end(&id);
        assert_eq!(ended.recv().await, None, "all of them ended");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_probe_that_told_what_it_found() {
        let mut probes = Probes::default();
        let id = Id::new("web").unwrap();
        let (tell, mut found) = mpsc::unbounded_channel();
        probes.begin(id.clone(), false, || async move { tell.send(()).unwrap() });
        found.recv().await.unwrap();
        probes.told(&id);
        assert!(probes.running.is_empty());
        probes.begin(id.clone(), false, std::future::pending);
        probes.told(&id);
        assert!(!probes.running.is_empty(), "an earlier one's answer does not make a later one immortal");
    }
}
