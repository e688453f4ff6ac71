//! `token rotate`: over the socket, or in the file where no supervisor runs.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Gid;

use super::client::Client;
use super::failure::Failure;
use super::out::Out;
use crate::http::dto::TokenRotated;
use crate::place::Places;
use crate::token::{self, Role};

/// `places` are those of the supervisor, where they are known.
pub(super) async fn rotate(
    client: &Client,
    out: &mut Out,
    places: Option<&Places>,
    viewer: bool,
) -> Result<(), Failure> {
    let role = if viewer { Role::Viewer } else { Role::Operator };
    let asked = client.post(&["token", "rotate"], &[("role", role.as_str())]).await;
    let rotated = match (asked, places) {
        (Ok(reply), _) if out.json => return out.line(&reply.text),
        (Ok(reply), _) => reply.read()?,
        (Err(Failure::NoDaemon(why)), Some(places)) => in_file(places, role, why)?,
        (Err(failure), _) => return Err(failure),
    };
    if out.json { out.value(&rotated) } else { out.line(&super::table::clean(&rotated.message)) }
}

/// `why` it could not be asked. A supervisor that runs all the same would not notice the new file.
fn in_file(places: &Places, role: Role, why: String) -> Result<TokenRotated, Failure> {
    let _lock = match File::open(places.runtime.join("lock")) {
        Ok(file) => match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Some(lock),
            Err((_, Errno::EWOULDBLOCK)) => return Err(Failure::NoDaemon(why)),
            Err((_, error)) => return Err(Failure::Failed(format!("cannot see whether one runs: {error}"))),
        },
        Err(_) => None,
    };
    let path = role.file(&places.state);
    // Whoever may read the old one may read the new one.
    let group =
        std::fs::metadata(&path).ok().map(|old| Gid::from_raw(std::os::unix::fs::MetadataExt::gid(&old)));
    token::rotate(&places.state, role, group)
        .map_err(|error| Failure::NoDaemon(format!("{why}. Without it the token stays as it is: {error}")))?;
    let (role, file) = (role.as_str().to_owned(), path.display().to_string());
    let message =
        format!("no supervisor runs; the {role} token is a new one, in {file}, from its next start on");
    Ok(TokenRotated { role, file, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Scope;

    #[test]
    fn a_file_is_replaced_only_where_nobody_runs() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Some(folder.path().join(name).display().to_string());
        let places = Places::new(Scope::User, |name| match name {
            "STATE_DIRECTORY" => at("state"),
            "RUNTIME_DIRECTORY" => at("run"),
            _ => None,
        });
        let read = || std::fs::read_to_string(Role::Viewer.file(&places.state)).unwrap();
        let rotate = || in_file(&places, Role::Viewer, "nobody".into());
        assert!(rotate().is_err(), "there is no folder");
        std::fs::create_dir(&places.state).unwrap();
        rotate().unwrap();
        let first = read();
        std::fs::create_dir(&places.runtime).unwrap();
        let lock = places.runtime.join("lock");
        let lock = Flock::lock(File::create(lock).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        assert!(matches!(rotate(), Err(Failure::NoDaemon(why)) if why == "nobody"));
        assert_eq!(read(), first);
        drop(lock);
        let rotated = rotate().unwrap();
        assert!(read() != first && rotated.message.contains("token-viewer"), "{}", rotated.message);
    }
}
