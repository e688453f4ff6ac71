//! A disk that can be filled.

use std::fs;
use std::path::PathBuf;

use super::sh;

/// A small disk of its own.
pub struct Disk(PathBuf);

impl Disk {
    pub fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        sh(&format!("mount -t tmpfs -o size=4m tmpfs {}", folder.display()));
        Self(folder)
    }

    /// To the last block. What the database keeps of its journal to write over is taken away as well.
    pub fn fill(&self) {
        let db = rusqlite::Connection::open(self.database()).unwrap();
        // A busy one is tried again.
        drop(db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        sh(&format!("cat /dev/zero >> {}/filler 2>/dev/null || true", self.0.display()));
    }

    pub fn database(&self) -> PathBuf {
        self.0.join("architect.db")
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        sh(&format!("umount -l {}", self.0.display()));
    }
}
