//! The plugin's place on the node: its binary among the runtime's plugins, its entry in the runtime's configuration. It must not decide what
//! a configuration must hold; `conflist` does.

use crate::{
    conflist::{self, Change, ConfFault, Decision, File, TYPE},
    flags,
};
use mesh_sys::folder::{self, Before};
use serde_json::{Map, Value};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The running program, whatever its path is called now.
const OURSELVES: &str = "/proc/self/exe";

/// Longest configuration that is read; real ones have a few KiB.
const CONF_MAX: u64 = 1024 * 1024;

/// Most files of the folder that are looked at; a folder with more is not one of network configurations.
const FILES_MAX: usize = 1000;

/// How often the configuration is cleared of our entry while others write it.
const CLEAR_TRIES: u32 = 10;

/// The plugin's place.
pub(super) struct Place {
    bin_dir: PathBuf,
    conf_dir: PathBuf,
    entry: Map<String, Value>,
    /// The binary as we left it, so that it is not compared byte by byte at every look.
    left: Option<Stamp>,
}

/// What tells a file that was changed or replaced.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    mode: u32,
    modified: (i64, i64),
}

/// How it is.
pub(super) enum State {
    /// No network plugin is configured yet.
    Waiting,
    /// As it must be.
    Settled,
    /// It was not (this is what was done, or has to be).
    Changed(String),
}

/// Why it cannot be as it must be.
#[derive(Debug, thiserror::Error)]
pub enum PlaceFault {
    /// A file or folder cannot be read or written.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The configuration that the runtime takes cannot have our entry; it is left alone.
    #[error("{dir}: the plugin cannot have its place, so pods start outside the mesh")]
    Conf {
        /// The folder.
        dir: PathBuf,
        /// Which file and field.
        #[source]
        source: ConfFault,
    },
}

fn io_fault<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PlaceFault + use<'a> {
    move |source| PlaceFault::Io { what, path: path.to_owned(), source }
}

impl Place {
    pub(super) fn new(flags: &flags::Place) -> Self {
        Self { bin_dir: flags.bin_dir.clone(), conf_dir: flags.conf_dir.clone(), entry: flags.entry(), left: None }
    }

    pub(super) fn folders(&self) -> [&Path; 2] {
        [&self.bin_dir, &self.conf_dir]
    }

    pub(super) fn conf_dir(&self) -> &Path {
        &self.conf_dir
    }

    fn binary(&self) -> PathBuf {
        self.bin_dir.join(TYPE)
    }

    /// Puts right what is not. The binary first: an entry without its binary would fail every pod.
    pub(super) fn settle(&mut self) -> Result<State, PlaceFault> {
        let binary = self.binary();
        if !self.is_ours(&binary)? {
            let content = fs::read(OURSELVES).map_err(io_fault("cannot read", Path::new(OURSELVES)))?;
            let written = folder::replace(&binary, Before::Anything, &content, None, 0o755);
            written.map_err(io_fault("cannot write", &binary))?;
            self.left = stamp(&binary).map_err(io_fault("cannot read", &binary))?;
            return Ok(State::Changed(format!("installed {}", binary.display())));
        }
        let files = self.files()?;
        match self.decide(&files)? {
            Decision::Wait => Ok(State::Waiting),
            Decision::Nothing => Ok(State::Settled),
            Decision::Change(changes) => match self.apply(&files, &changes)? {
                Some(what) => Ok(State::Changed(what)),
                None => Ok(State::Changed("somebody else is writing the configuration; looking again".into())),
            },
        }
    }

    /// As [`Self::settle`], but changes nothing.
    pub(super) fn look(&mut self) -> Result<State, PlaceFault> {
        if !self.is_ours(&self.binary())? {
            return Ok(State::Changed(format!("{} is not this program", self.binary().display())));
        }
        Ok(match self.decide(&self.files()?)? {
            Decision::Wait => State::Waiting,
            Decision::Nothing => State::Settled,
            Decision::Change(_) => State::Changed("the entry is not in its place".into()),
        })
    }

    /// Removes every trace.
    pub(super) fn clear(&self, told: impl Fn(&str)) -> Result<(), PlaceFault> {
        for left in (0..CLEAR_TRIES).rev() {
            let files = self.files()?;
            let changes = conflist::uninstall(&files);
            if changes.is_empty() {
                break;
            }
            match self.apply(&files, &changes)? {
                Some(what) => told(&what),
                None if left > 0 => {}
                None => {
                    let busy = io::Error::new(io::ErrorKind::ResourceBusy, "somebody else writes it all the time");
                    return Err(io_fault("cannot write", &self.conf_dir)(busy));
                }
            }
        }
        let binary = self.binary();
        match fs::remove_file(&binary) {
            Ok(()) => told(&format!("removed {}", binary.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_fault("cannot remove", &binary)(error)),
        }
        Ok(())
    }

    fn decide(&self, files: &[File]) -> Result<Decision, PlaceFault> {
        conflist::install(files, &self.entry).map_err(|source| PlaceFault::Conf { dir: self.conf_dir.clone(), source })
    }

    /// Makes the changes that were decided on `files`, and says which; none: somebody else has written since, and what is theirs stays.
    fn apply(&self, files: &[File], changes: &[Change]) -> Result<Option<String>, PlaceFault> {
        let at = |name: &String| self.conf_dir.join(name);
        let content = |name: &String| files.iter().find(|f| f.name == *name).map(|f| &*f.content);
        for change in changes {
            let as_decided = match change {
                Change::Write { name, like, text } => {
                    let path = at(name);
                    let before = content(name).map_or(Before::Nothing, Before::Content);
                    folder::replace(&path, before, text.as_bytes(), Some(&at(like)), 0o644)
                        .map_err(io_fault("cannot write", &path))?
                }
                Change::Rename { from, to } => {
                    let (from_path, to_path) = (at(from), at(to));
                    fs::rename(&from_path, &to_path).map_err(io_fault("cannot rename", &from_path))?;
                    let now = fs::read(&to_path).map_err(io_fault("cannot read", &to_path))?;
                    let same = content(from) == Some(&*now);
                    if !same {
                        // It was written again: then it has to be found under both names. A still newer one is there already.
                        match fs::hard_link(&to_path, &from_path) {
                            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                                return Err(io_fault("cannot put back", &from_path)(error));
                            }
                            _ => {}
                        }
                    }
                    same
                }
                Change::Remove { name } => {
                    fs::remove_file(at(name)).map_err(io_fault("cannot remove", &at(name)))?;
                    true
                }
            };
            if !as_decided {
                return Ok(None);
            }
        }
        let said = changes.iter().map(|change| match change {
            Change::Write { name, .. } => format!("wrote {name}"),
            Change::Rename { from, to } => format!("renamed {from} to {to}"),
            Change::Remove { name } => format!("removed {name}"),
        });
        Ok(Some(format!("{}: {}", self.conf_dir.display(), said.collect::<Vec<_>>().join(", "))))
    }

    /// The files of the configuration folder.
    fn files(&self) -> Result<Vec<File>, PlaceFault> {
        let dir = &self.conf_dir;
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(io_fault("cannot read", dir))?.take(FILES_MAX) {
            let path = entry.map_err(io_fault("cannot read", dir))?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            // A file that goes while we look is as if it had gone before; folders are nobody's configuration.
            match fs::File::open(&path).and_then(|file| Ok((file.metadata()?.is_file(), file))) {
                Ok((true, file)) => {
                    let mut content = Vec::new();
                    io::Read::read_to_end(&mut io::Read::take(file, CONF_MAX), &mut content)
                        .map_err(io_fault("cannot read", &path))?;
                    files.push(File { name: name.to_owned(), content });
                }
                Ok((false, _)) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_fault("cannot read", &path)(error)),
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Whether the binary is this program.
    fn is_ours(&mut self, binary: &Path) -> Result<bool, PlaceFault> {
        let now = stamp(binary).map_err(io_fault("cannot read", binary))?;
        let Some(found) = now else { return Ok(false) };
        if self.left.as_ref() == Some(&found) {
            return Ok(true);
        }
        let ours = Path::new(OURSELVES);
        let length = fs::metadata(ours).map_err(io_fault("cannot read", ours))?.len();
        let same = found.mode & 0o111 == 0o111
            && found.length == length
            && fs::read(binary).map_err(io_fault("cannot read", binary))?
                == fs::read(ours).map_err(io_fault("cannot read", ours))?;
        if same {
            self.left = Some(found);
        }
        Ok(same)
    }
}

/// None: there is no such file.
fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(Stamp {
            inode: meta.ino(),
            length: meta.len(),
            mode: meta.mode(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
