//! Enters the namespaces of a pod or node and becomes the program that is to run there: what a container runtime does between `fork` and `exec`.
//! It runs in a process of its own, before any thread; it must not return to the caller's work.

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    unistd::setsid,
};
use serde::{Deserialize, Serialize};
use std::{
    convert::Infallible,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// What to enter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enter {
    /// Network namespace.
    pub netns: PathBuf,
    /// Own mount and UTS namespaces with these contents; none: the supervisor's, as for node proxies, which must see later mounts.
    pub pod: Option<PodView>,
    /// Working directory.
    pub workdir: Option<PathBuf>,
}

/// What a process sees differently in a pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodView {
    /// Host name.
    pub hostname: String,
    /// Directory with `resolv.conf` and `hosts`.
    pub etc: PathBuf,
    /// Directory of pinned network namespaces; a pod must not keep other pods' namespaces alive.
    pub hide: PathBuf,
}

impl Enter {
    /// The command line that enters and then runs `argv`.
    pub fn command(&self, meshctl: &Path, argv: &[String]) -> Result<Command> {
        let mut command = Command::new(meshctl);
        command.arg("playground-enter").arg(serde_json::to_string(self)?).arg("--").args(argv);
        Ok(command)
    }

    /// Enters and becomes `argv`.
    pub fn become_program(&self, argv: &[String]) -> Result<Infallible> {
        // A session of its own: ending the container ends the whole process group. A process that is a group leader already has one.
        let _ = setsid();
        let netns = File::open(&self.netns).with_context(|| format!("{}", self.netns.display()))?;
        setns(&netns, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
        if let Some(pod) = &self.pod {
            pod.apply()?;
        }
        if let Some(dir) = &self.workdir {
            std::env::set_current_dir(dir).with_context(|| format!("workingDir {}", dir.display()))?;
        }
        let [program, args @ ..] = argv else { bail!("no command given") };
        let error = Command::new(program).args(args).exec();
        Err(error).with_context(|| format!("cannot run {program}"))
    }
}

impl PodView {
    fn apply(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).context("cannot make the pod's namespaces")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .context("cannot make the mounts private")?;
        umount2(&self.hide, MntFlags::MNT_DETACH).context("cannot hide the other namespaces")?;
        rustix::system::sethostname(self.hostname.as_bytes()).context("cannot set the host name")?;
        for file in ["resolv.conf", "hosts"] {
            let target = fs::canonicalize(Path::new("/etc").join(file))
                .with_context(|| format!("this machine has no /etc/{file} to mount the pod's one over"))?;
            mount(Some(&self.etc.join(file)), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .with_context(|| format!("cannot mount the pod's /etc/{file}"))?;
        }
        Ok(())
    }
}
