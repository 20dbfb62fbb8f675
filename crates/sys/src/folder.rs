//! Folders that others write to: being told of a change (inotify), and replacing a file whole. It must not know what is in the files.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
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

/// Replaces a file whole: who reads sees the old or the new one. Mode and owner are those of `like`, else `mode` and our own.
pub fn replace(path: &Path, content: &[u8], like: Option<&Path>, mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(HALF);
    let half = path.with_file_name(hidden);
    match fs::remove_file(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody else may open what is not whole; the mode comes last.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
    let write = || {
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
        fs::rename(&half, path)
    };
    let mut write = write;
    write().inspect_err(|_| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&half);
    })
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
        replace(&path, b"one", None, 0o640).unwrap();
        assert!(folders.changed(Duration::from_secs(5)).unwrap());
        assert!(!folders.changed(Duration::ZERO).unwrap(), "all were taken");
        replace(&path, b"two", Some(&path), 0o600).unwrap();
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
}
