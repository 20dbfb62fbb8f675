//! The control socket: what `status`, `exec`, `down`, `run` and tests ask of a playground, and the client's side of it. It must not decide what is answered.

use super::{
    link,
    report::Report,
    request::{Outcome, Request},
    runtime_dir::RuntimeDir,
};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    time::Duration,
};

/// Asks the outer process for a listening socket.
#[derive(Debug, Serialize, Deserialize)]
pub struct Bind {
    /// Port of the listener.
    pub port: u16,
}

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// The report, now.
    Status,
    /// The report as soon as it is ready, or after so many milliseconds.
    Ready(u64),
    /// A command in a pod; stdin, stdout and stderr travel with it.
    Exec {
        /// `namespace/name`, a pod or the owner of some.
        pod: String,
        /// Command.
        argv: Vec<String>,
    },
    /// Requests from a pod.
    Request {
        /// `namespace/name`, a pod or the owner of some.
        pod: String,
        /// What to do.
        request: Box<Request>,
    },
    /// Access log lines of all proxies, each with the proxy's name.
    AccessLog,
    /// The end of a log: `controller`, `node/n1`, or a container's `namespace_pod_container`.
    Log {
        /// Its name.
        name: String,
        /// So many lines.
        lines: usize,
    },
    /// Stops, starts, kills, pauses or resumes a program of the mesh.
    Program {
        /// `controller`, `node/n1`, ….
        name: String,
        /// `stop`, `start`, `kill`, `pause`, `resume`, `replace`.
        order: String,
    },
    /// The programs that run and their pids inside.
    Programs,
    /// The end.
    Down,
}

/// A line of an access log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// The proxy that wrote it.
    pub proxy: String,
    /// The line.
    pub line: Value,
}

/// The client's end. Each question is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: RuntimeDir,
}

impl Client {
    /// Finds the playground.
    pub fn connect(runtime: &RuntimeDir) -> Result<Self> {
        let client = Self { runtime: runtime.clone() };
        client.stream()?;
        Ok(client)
    }

    fn stream(&self) -> Result<UnixStream> {
        UnixStream::connect(self.runtime.socket())
            .context("no playground of this folder is up (meshctl playground up DIR)")
    }

    /// Asks, with descriptors, and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&self, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<T> {
        let stream = self.stream()?;
        link::send(&stream, ask, fds)?;
        match link::receive::<Result<T, String>>(&stream)? {
            Some((answer, _)) => answer.map_err(anyhow::Error::msg),
            None => bail!("the playground ended"),
        }
    }

    /// The report.
    pub fn status(&self) -> Result<Report> {
        self.ask(&Ask::Status, &[])
    }

    /// The report when all runs; fails with what is missing.
    pub fn wait_ready(&self, limit: Duration) -> Result<Report> {
        let report: Report = self.ask(&Ask::Ready(u64::try_from(limit.as_millis())?), &[])?;
        if !report.ready {
            bail!("not ready after {limit:?}: waiting for {}\n{}", report.waiting_for.join("; "), report.text());
        }
        Ok(report)
    }

    /// Runs a command in a pod with these descriptors as stdin, stdout and stderr; its exit code.
    pub fn exec(&self, pod: &str, argv: &[String], stdio: [BorrowedFd<'_>; 3]) -> Result<i32> {
        self.ask(&Ask::Exec { pod: pod.into(), argv: argv.to_vec() }, &stdio)
    }

    /// Requests from a pod.
    pub fn request(&self, pod: &str, request: Request) -> Result<Vec<Outcome>> {
        self.ask(&Ask::Request { pod: pod.into(), request: Box::new(request) }, &[])
    }

    /// Access log lines of all proxies.
    pub fn access_log(&self) -> Result<Vec<LogLine>> {
        self.ask(&Ask::AccessLog, &[])
    }

    /// The end of a log.
    pub fn log(&self, name: &str, lines: usize) -> Result<String> {
        self.ask(&Ask::Log { name: name.into(), lines }, &[])
    }

    /// `stop`, `start`, `kill`, `pause`, `resume` or `replace` a program.
    pub fn program(&self, name: &str, order: &str) -> Result<()> {
        self.ask(&Ask::Program { name: name.into(), order: order.into() }, &[])
    }

    /// The programs that run, with their pids inside.
    pub fn programs(&self) -> Result<BTreeMap<String, i32>> {
        self.ask(&Ask::Programs, &[])
    }

    /// Ends it and waits until it is gone.
    pub fn down(&self) -> Result<()> {
        let stream = self.stream()?;
        link::send(&stream, &Ask::Down, &[])?;
        // The answer is the end of the stream.
        while let Ok(Some(_)) = link::receive::<Value>(&stream) {}
        let dir = self.runtime.path();
        for _ in 0..500 {
            if !dir.exists() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the playground ended, but {} is still there", dir.display())
    }
}
