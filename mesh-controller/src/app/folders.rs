//! The parts of a controller of folders: files for objects, tokens, keys and statuses. It must not know of a cluster.

use super::parts::Parts;
use crate::{
    authenticate::{self, TokenFile},
    ca::FolderAuthority,
    settings::Folders as Settings,
    source::{Batch, Source, folder::Folders},
    status::StatusFile,
};
use anyhow::{Context, Result};
use std::{collections::BTreeSet, sync::Arc};
use tokio::task::JoinSet;

/// Folders that were read when they were opened.
struct Read {
    first: Option<Batch>,
    folders: Folders,
}

impl Source for Read {
    fn wait(&mut self) -> Option<Batch> {
        self.first.take().or_else(|| self.folders.wait())
    }
}

pub(super) async fn parts(settings: &Settings) -> Result<Parts> {
    let authority = Arc::new(FolderAuthority::open(&settings.state).context("the authority")?);
    report_tokens(settings).await;
    let status = Arc::new(StatusFile::open(&settings.status_file));
    let mut tasks = JoinSet::new();
    let keep = status.clone().keep();
    tasks.spawn(async move {
        keep.await;
        "the writer of the status file"
    });
    let paths = settings.folders.clone();
    let last = status.clone();
    Ok(Parts {
        authority,
        authenticate: Arc::new(TokenFile::new(&settings.tokens)),
        sink: status,
        excluded: BTreeSet::new(),
        open: Box::new(move || {
            let (folders, first) = Folders::open(&paths)?;
            let stop = folders.stopper();
            Ok((Box::new(Read { first: Some(first), folders }), Box::new(move || stop.stop())))
        }),
        tasks,
        finish: Box::pin(async move { last.write().with_context(|| format!("status file {}", last.path().display())) }),
    })
}

async fn report_tokens(settings: &Settings) {
    match tokio::fs::read_to_string(&settings.tokens).await {
        Ok(text) => {
            for (line, wrong) in authenticate::check(&text) {
                tracing::warn!("{}:{line}: {wrong}", settings.tokens.display());
            }
        }
        Err(e) => tracing::warn!("{}: cannot be read yet: {e}; nobody is authenticated", settings.tokens.display()),
    }
}
