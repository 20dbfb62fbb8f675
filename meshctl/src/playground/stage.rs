//! The two steps between the outer process and the supervisor: `stage` makes the user and pid namespaces and cleans up behind them; `supervise` makes the mount and
//! network namespaces around itself as pid 1. Neither may touch anything of the host but the runtime directory.

use super::{Options, runtime_dir::RuntimeDir, supervisor};
use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl::set_pdeathsig,
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getegid, geteuid, getppid, setsid},
};
use std::{fs, os::fd::AsFd, os::unix::net::UnixStream, process::Command};

/// Makes the namespaces, runs the supervisor in them, and waits for its end. Killed by nothing that the terminal sends; ends when its parent ends.
pub fn stage(options: &Options) -> Result<u8> {
    let parent = getppid();
    set_pdeathsig(Signal::SIGTERM).context("cannot tie our life to the outer process")?;
    setsid().context("cannot leave the terminal's session")?;
    let runtime = RuntimeDir::at(&options.runtime);
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    if getppid() != parent {
        // It died before the line above could tell us.
        runtime.remove();
        return Ok(1);
    }
    enter_user_and_pid()?;
    let mut supervisor = Command::new("/proc/self/exe")
        .arg("playground-supervise")
        .arg(serde_json::to_string(options)?)
        .spawn()
        .context("cannot start the supervisor")?;
    let pid = Pid::from_raw(i32::try_from(supervisor.id())?);
    let code = loop {
        match signals.wait()? {
            Signal::SIGCHLD => match waitpid(pid, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(_, code) => break u8::try_from(code).unwrap_or(1),
                WaitStatus::Signaled(..) => break 1,
                _ => {}
            },
            // The kernel ends everything in the pid namespace with its pid 1.
            _ => {
                supervisor.kill()?;
                supervisor.wait()?;
                break 1;
            }
        }
    };
    runtime.remove();
    Ok(code)
}

/// A pid namespace for the next child; with a user namespace around it unless we have the privilege.
fn enter_user_and_pid() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        match unshare(CloneFlags::CLONE_NEWPID) {
            Ok(()) => return Ok(()),
            // Root of a container without CAP_SYS_ADMIN: as anyone else.
            Err(Errno::EPERM) => {}
            Err(error) => return Err(error).context("cannot make a pid namespace"),
        }
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID).context(
        "cannot make a user namespace: run as root, or allow them (sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)",
    )?;
    // An unprivileged process may map its own group only after it gave up setgroups.
    fs::write("/proc/self/setgroups", "deny").context("cannot deny setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("cannot map the user")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("cannot map the group")
}

/// Pid 1: makes the rest and becomes the supervisor. The link to the outer process is stdin.
pub fn supervise(options: Options) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot tie our life to the stage")?;
    SigSet::all().thread_unblock()?;
    if std::process::id() != 1 {
        bail!("the supervisor must be the first process of its pid namespace");
    }
    let link = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS).context(
        "cannot make mount and network namespaces (does kernel.apparmor_restrict_unprivileged_userns take the privilege away?)",
    )?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make the mounts private")?;
    let state = RuntimeDir::at(&options.runtime).state();
    mount(Some("heddle"), &state, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0700"))
        .with_context(|| format!("cannot mount {}", state.display()))?;
    // A container runtime's masked /proc forbids this; then the outer one, which shows the same processes under other numbers, has to do.
    let _ = mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>);
    supervisor::run(options, link)
}
