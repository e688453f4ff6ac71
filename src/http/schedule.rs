//! Orders to several services, each given when those before it allow.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// What an order waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Dependencies have their outcome.
    Dependencies,
    /// Dependents have their outcome.
    Dependents,
    /// Nothing, but dependencies are ordered before.
    Nothing,
}

/// Futures that are begun in order, at most `limit` at a time. `run` makes the future of a service from its place
/// in the list; it ends with that place.
pub(crate) struct Schedule<R, F> {
    waiting: Vec<(usize, BTreeSet<usize>)>,
    running: FuturesUnordered<F>,
    after: After,
    limit: usize,
    run: R,
}

impl<R, F, T> Schedule<R, F>
where
    R: FnMut(usize) -> F,
    F: Future<Output = (usize, T)>,
{
    /// `services` are ids with the ids of their dependencies; those that are not in the list do not matter.
    pub(crate) fn new<'a, D>(services: &[(&'a str, D)], after: After, limit: usize, run: R) -> Self
    where
        D: IntoIterator<Item = &'a str> + Clone,
    {
        let mut needs = vec![BTreeSet::new(); services.len()];
        for (dependent, (_, dependencies)) in services.iter().enumerate() {
            for dependency in dependencies.clone() {
                let Some(dependency) = services.iter().position(|(id, _)| *id == dependency) else {
                    continue;
                };
                let (first, then) = match after {
                    After::Dependents => (dependent, dependency),
                    After::Dependencies | After::Nothing => (dependency, dependent),
                };
                needs[then].insert(first);
            }
        }
        Self {
            waiting: needs.into_iter().enumerate().collect(),
            running: FuturesUnordered::new(),
            after,
            limit,
            run,
        }
    }

    /// The next outcome; `None` when there are no more. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<(usize, T)> {
        self.begin();
        let (index, outcome) = self.running.next().await?;
        self.release(index);
        Some((index, outcome))
    }

    fn begin(&mut self) {
        while self.running.len() < self.limit {
            let ready = self.waiting.iter().position(|(_, needs)| needs.is_empty());
            // A plan has no cycle; should there be one, its services are begun as they come.
            let next = ready.or_else(|| (self.running.is_empty() && !self.waiting.is_empty()).then_some(0));
            let Some(next) = next else { return };
            let (index, _) = self.waiting.remove(next);
            self.running.push((self.run)(index));
            if self.after == After::Nothing {
                self.release(index);
            }
        }
    }

    fn release(&mut self, index: usize) {
        for (_, needs) in &mut self.waiting {
            needs.remove(&index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// `a` needs `c`, `c` needs `d`; `x` and `y` need each other.
    const SERVICES: [(&str, &[&str]); 6] =
        [("a", &["c"]), ("b", &["gone"]), ("c", &["d"]), ("d", &[]), ("x", &["y"]), ("y", &["x"])];

    async fn log(after: After, limit: usize) -> String {
        let log = Mutex::new(String::new());
        let note =
            |mark: &str, index: usize| log.lock().unwrap().push_str(&format!("{mark}{} ", SERVICES[index].0));
        let services = SERVICES.map(|(id, needs)| (id, needs.iter().copied()));
        let note = &note;
        let mut schedule = Schedule::new(&services, after, limit, |index| async move {
            note("+", index);
            tokio::task::yield_now().await;
            note("-", index);
            (index, ())
        });
        while schedule.next().await.is_some() {}
        drop(schedule);
        log.into_inner().unwrap()
    }

    fn at(log: &str, mark: &str) -> usize {
        log.find(mark).unwrap()
    }

    #[tokio::test]
    async fn each_waits_for_the_outcome_of_what_it_needs() {
        for limit in [1, 2, 64] {
            let log = log(After::Dependencies, limit).await;
            assert!(at(&log, "-d") < at(&log, "+c") && at(&log, "-c") < at(&log, "+a"), "{log}");
        }
        for limit in [1, 64] {
            let log = log(After::Dependents, limit).await;
            assert!(at(&log, "-a") < at(&log, "+c") && at(&log, "-c") < at(&log, "+d"), "{log}");
            assert!(log.contains("-x") && log.contains("-y"), "a cycle does not hang: {log}");
        }
        let log = log(After::Nothing, 64).await;
        let begun: Vec<&str> = log.split(' ').filter_map(|w| w.strip_prefix('+')).collect();
        assert!(
            begun.len() == 6 && at(&log, "+d") < at(&log, "+c") && at(&log, "+c") < at(&log, "+a"),
            "{log}"
        );
    }
}
