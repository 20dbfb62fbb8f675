//! Folders that others write to: being told of a change (inotify), and replacing a file whole. It must not know what is in the files.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{
    CWD, RenameFlags,
    inotify::{CreateFlags, WatchFlags, add_watch, init},
    renameat_with,
};
use std::{
    fs,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    },
    path::Path,
    time::Duration,
};

/// Ending of a file that is being written: no reader of configuration takes it.
const HALF: &str = ".heddle-new";

/// Watched folders.
#[derive(Debug)]
pub struct Folders {
    inotify: OwnedFd,
}

impl Folders {
    /// None yet.
    pub fn none() -> io::Result<Self> {
        Ok(Self { inotify: init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)? })
    }

    /// Watches what happens to names and contents in a folder. Again is harmless, and finds a folder that was made anew.
    pub fn watch(&self, folder: &Path) -> io::Result<()> {
        let what = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        add_watch(&self.inotify, folder, what)?;
        Ok(())
    }

    /// Waits for changes, at most so long; takes all there are. Whether there was one.
    pub fn changed(&self, at_most: Duration) -> io::Result<bool> {
        let millis = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, millis) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(false),
            other => other?,
        };
        let mut events = [0; 4096];
        loop {
            match rustix::io::read(&self.inotify, &mut events) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(true),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What a file that is written may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before<'a> {
    /// Whatever is there.
    Anything,
    /// No file.
    Nothing,
    /// A file that holds just this.
    Content(&'a [u8]),
}

/// Replaces a file whole: who reads sees the old or the new one. Mode and owner are those of `like`, else `mode` and our own.
///
/// False: what is there is not what was expected `before`, because somebody wrote meanwhile; it is there still, or again after a moment. Only who
/// had the file open and writes into it after it was replaced is not noticed.
pub fn replace(path: &Path, before: Before<'_>, content: &[u8], like: Option<&Path>, mode: u32) -> io::Result<bool> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(HALF);
    let half = path.with_file_name(hidden);
    remove_if_there(&half)?;
    let write = || {
        // Nobody else may open what is not whole; the mode comes last.
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        file.write_all(content)?;
        let mode = match like.map(fs::metadata).transpose()? {
            Some(like) => {
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
                like.permissions().mode()
            }
            None => mode,
        };
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        file.sync_all()?;
        put(&half, path, before)
    };
    let put = write();
    // The first error is the one to tell.
    let removed = remove_if_there(&half);
    put.and_then(|put| removed.map(|()| put))
}

/// Renames `half` over `path` if that is as it was `before`. Asking first would leave a moment in which another writer's file is lost: so the
/// two change places, and change back if it was not.
fn put(half: &Path, path: &Path, before: Before<'_>) -> io::Result<bool> {
    let rename = |flags| renameat_with(CWD, half, CWD, path, flags);
    match before {
        Before::Anything => fs::rename(half, path).map(|()| true),
        Before::Nothing => match rename(RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => Ok(false),
            other => Ok(other.map(|()| true)?),
        },
        Before::Content(expected) => {
            match rename(RenameFlags::EXCHANGE) {
                Err(rustix::io::Errno::NOENT) => return Ok(false),
                // Not every file system can; then there is such a moment.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                    let same = fs::read(path)? == expected;
                    return if same { fs::rename(half, path).map(|()| true) } else { Ok(false) };
                }
                other => other?,
            }
            let same = fs::read(half).map(|taken| taken == expected);
            if !matches!(same, Ok(true)) {
                rename(RenameFlags::EXCHANGE)?;
            }
            same
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_the_change_is_told() {
        let dir = std::env::temp_dir().join(format!("heddle-folder-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let folders = Folders::none().unwrap();
        folders.watch(&dir).unwrap();
        assert!(!folders.changed(Duration::ZERO).unwrap());
        let path = dir.join("a.conflist");
        assert!(replace(&path, Before::Nothing, b"one", None, 0o640).unwrap());
        assert!(folders.changed(Duration::from_secs(5)).unwrap());
        assert!(!folders.changed(Duration::ZERO).unwrap(), "all were taken");
        assert!(replace(&path, Before::Content(b"one"), b"two", Some(&path), 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
        assert!(folders.changed(Duration::from_secs(5)).unwrap());
        assert!(folders.watch(&dir).is_err());
        fs::create_dir(&dir).unwrap();
        folders.watch(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
    #[test]
    fn what_somebody_else_wrote_meanwhile_stays() {
        let dir = std::env::temp_dir().join(format!("heddle-meanwhile-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let path = dir.join("a.conflist");
        assert!(!replace(&path, Before::Content(b"one"), b"ours", None, 0o644).unwrap(), "it has gone");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::write(&path, b"theirs").unwrap();
        for before in [Before::Nothing, Before::Content(b"one"), Before::Content(b"")] {
            assert!(!replace(&path, before, b"ours", Some(&path), 0o644).unwrap(), "{before:?}");
            assert_eq!(fs::read(&path).unwrap(), b"theirs");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "and nothing else");
        assert!(replace(&path, Before::Anything, b"ours", None, 0o644).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"ours");
        fs::remove_dir_all(&dir).unwrap();
    }
}
