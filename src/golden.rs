//! Generated files that are kept: compared with what is made of them now, or written anew (`make golden`).

use std::path::Path;

/// `path` begins at the root of the project.
pub fn golden(path: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        return std::fs::write(path, made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let first = made.lines().zip(kept.lines()).position(|(made, kept)| made != kept);
    assert!(
        made == kept,
        "{} differs from line {first:?} on: run `make golden` and look at what changed",
        path.display()
    );
}
