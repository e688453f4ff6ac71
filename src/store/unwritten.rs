//! What the database could not take yet, as a file in the runtime folder: whatever ends the daemon meanwhile, the next
//! one goes on from there. The file is there only while the database is in trouble, and is whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::atomic_file;
use crate::core::action::Record;
use crate::core::plan::Id;

/// States that are newer than those of the database.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Unwritten {
    /// Services that are known no more. Goes before `records`.
    pub forgotten: BTreeSet<Id>,
    pub records: BTreeMap<Id, Record>,
}

impl Unwritten {
    pub fn new<'a>(
        forgotten: &BTreeSet<Id>,
        records: impl Iterator<Item = (&'a Id, Option<&'a Arc<Record>>)>,
    ) -> Self {
        let owned = |(id, record): (&Id, Option<&Arc<Record>>)| Some((id.clone(), record?.as_ref().clone()));
        Self { forgotten: forgotten.clone(), records: records.filter_map(owned).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.forgotten.is_empty() && self.records.is_empty()
    }

    /// Brings what the database held up to date.
    pub fn put_over(&self, records: &mut BTreeMap<Id, Record>) {
        records.retain(|id, _| !self.forgotten.contains(id));
        records.extend(self.records.iter().map(|(id, record)| (id.clone(), record.clone())));
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Aside {
    path: PathBuf,
    /// It may be there.
    there: bool,
    /// That it cannot be written was told.
    told: bool,
}

impl Aside {
    /// The file of that name, and what an earlier daemon left in it; an `Err` says what is wrong with it.
    pub fn find(path: PathBuf) -> (Self, Option<Result<Unwritten, String>>) {
        let found = match fs::read(&path) {
            Ok(text) => Some(serde_json::from_slice(&text).map_err(|error| error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(error.to_string())),
        };
        (Self { path, there: found.is_some(), told: false }, found)
    }

    pub fn is_there(&self) -> bool {
        self.there
    }

    /// As the file is to be from now on.
    pub fn write(&mut self, unwritten: &Unwritten) {
        if unwritten.is_empty() && !self.there {
            return;
        }
        match self.try_to_write(unwritten) {
            Ok(()) => (self.there, self.told) = (true, false),
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(
                        "{} cannot be written either: {error}. A supervisor that is killed now loses what changed since",
                        self.path.display()
                    );
                }
            }
        }
    }

    fn try_to_write(&self, unwritten: &Unwritten) -> io::Result<()> {
        let text = serde_json::to_vec(unwritten)?;
        // Not synced: it need not outlive this boot.
        atomic_file::replace(&self.path, &self.path.with_extension("new"), |file| file.write_all(&text))
    }

    /// The database has all of it.
    pub fn remove(&mut self) {
        if std::mem::take(&mut self.there)
            && let Err(error) = atomic_file::remove_if_there(&self.path)
        {
            tracing::warn!("{}, which is out of date, cannot be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use super::super::testing::{id, record};
    use super::super::{Phase, Store};
    use super::*;

    type Records = BTreeMap<Id, Record>;

    fn wait_for(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn close(store: Store, at_most: Duration) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(store.close(at_most))
    }

    fn records(pairs: &[(&str, u64)]) -> Records {
        pairs.iter().map(|(name, count)| (id(name), record(*count))).collect()
    }

    fn holds(file: &Path, pairs: &[(&str, u64)]) -> bool {
        let text = fs::read(file).unwrap_or_default();
        serde_json::from_slice(&text).is_ok_and(|found: Unwritten| found.records == records(pairs))
    }

    #[test]
    fn the_next_one_goes_on_from_what_could_not_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let file = at("unwritten.json");
        let open = || Store::open(&at("disk/a.db"), file.clone(), |_| {});
        let long = Duration::from_secs(30);
        let (store, _) = open();
        for name in ["stays", "changes", "goes"] {
            store.save(&id(name), record(1));
        }
        assert!(close(store, long));
        assert!(!file.exists(), "only while there is trouble");

        fs::rename(at("disk"), at("away")).unwrap();
        fs::write(at("disk"), "").unwrap();
        let (store, _) = open();
        store.save(&id("changes"), record(2));
        store.save(&id("comes"), record(7));
        wait_for("it is put aside", || holds(&file, &[("changes", 2), ("comes", 7)]));
        store.forget(&id("goes"));
        store.save(&id("changes"), record(3));
        assert!(!close(store, Duration::from_millis(300)));
        assert!(holds(&file, &[("changes", 3), ("comes", 7)]));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        fs::remove_file(at("disk")).unwrap();
        fs::rename(at("away"), at("disk")).unwrap();
        let known = records(&[("changes", 3), ("comes", 7), ("stays", 1)]);
        let (store, found) = open();
        assert_eq!(found, known);
        wait_for("the database has it", || !file.exists());
        assert!(close(store, long));
        assert_eq!(open().1, known);
    }

    #[test]
    fn a_lock_of_another_program_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = (folder.path().join("a.db"), folder.path().join("unwritten.json"));
        let (store, _) = Store::open(&path, file.clone(), |_| {});
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        for count in 1..4 {
            store.save(&id("a"), record(count));
            wait_for("it is put aside", || holds(&file, &[("a", count)]));
        }
        other.execute_batch("COMMIT").unwrap();
        wait_for("the database has it", || !file.exists());
        drop(store);
    }

    #[test]
    fn one_that_cannot_be_read_is_told_and_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (path, file) = (folder.path().join("a.db"), folder.path().join("unwritten.json"));
        fs::write(&file, "{\"records\": {\"../a\"").unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let (store, found) =
            Store::open(&path, file.clone(), move |trouble| tell.lock().unwrap().push(trouble));
        assert_eq!(found, Records::new());
        let said = told.lock().unwrap().clone();
        assert!(
            matches!(&said[..], [one] if one.phase == Phase::Noted && one.message.contains("cannot be read"))
        );
        store.save(&id("a"), record(1));
        wait_for("it is gone", || !file.exists());
        drop(store);
    }
}
