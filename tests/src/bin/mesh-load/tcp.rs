//! Bytes over TCP: idle crowds, bursts, steady lines, and a server that is silent.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// How long one echo may take.
const ECHO_MAX: Duration = Duration::from_secs(20);

/// Dials at once; more would only measure the backlog.
const DIALS: usize = 64;

async fn echo(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    tokio::time::timeout(ECHO_MAX, async {
        stream.write_all(bytes).await?;
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).await.context("no echo")?;
        ensure!(back == bytes, "another echo");
        Ok(())
    })
    .await
    .context("no echo in time")?
}

pub async fn idle(target: &str, connections: usize) -> Result<String> {
    let address = crate::resolve(target).await?;
    let started = Instant::now();
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(DIALS));
    let mut dials = JoinSet::new();
    for _ in 0..connections {
        let permits = permits.clone();
        dials.spawn(async move {
            let _permit = permits.acquire().await?;
            let mut stream = TcpStream::connect(address).await?;
            echo(&mut stream, b"a").await?;
            anyhow::Ok(stream)
        });
    }
    let mut streams = Vec::with_capacity(connections);
    let mut failures = Vec::new();
    while let Some(dial) = dials.join_next().await {
        match dial? {
            Ok(stream) => streams.push(stream),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    eprintln!("{}", json!({"open": streams.len(), "seconds": started.elapsed().as_secs_f64()}));
    crate::stdin_ends().await;
    let mut alive = 0;
    let mut echoes = JoinSet::new();
    for mut stream in streams {
        echoes.spawn(async move { echo(&mut stream, b"b").await });
    }
    while let Some(result) = echoes.join_next().await {
        match result? {
            Ok(()) => alive += 1,
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    failures.truncate(20);
    Ok(json!({"alive": alive, "failures": failures}).to_string())
}

pub async fn burst(target: &str, bytes: usize) -> Result<String> {
    let stream = TcpStream::connect(crate::resolve(target).await?).await?;
    let (mut read, mut write) = stream.into_split();
    let sent = tokio::spawn(async move {
        let chunk: Vec<u8> = (0..65_536_usize).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect();
        let mut left = bytes;
        while left > 0 {
            let n = left.min(chunk.len());
            write.write_all(&chunk[..n]).await?;
            left -= n;
        }
        write.shutdown().await
    });
    let mut back = Vec::with_capacity(bytes);
    tokio::time::timeout(Duration::from_secs(60), read.read_to_end(&mut back))
        .await
        .context("the echo did not end in 60 s")??;
    sent.await??;
    let intact = back.iter().enumerate().all(|(i, b)| usize::from(*b) == (i % 65_536) % 251);
    Ok(json!({"sent": bytes, "received": back.len(), "intact": intact}).to_string())
}

pub async fn steady(target: &str, connections: usize) -> Result<String> {
    let address = crate::resolve(target).await?;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let stop = stop.clone();
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            let mut lines = 0_u64;
            while !stop.is_cancelled() {
                echo(&mut stream, b"are you there?\n").await?;
                lines += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(lines)
        });
    }
    crate::stdin_ends().await;
    stop.cancel();
    let (mut lines, mut cut) = (0, Vec::new());
    while let Some(task) = tasks.join_next().await {
        match task? {
            Ok(n) => lines += n,
            Err(error) => cut.push(format!("{error:#}")),
        }
    }
    Ok(json!({"lines": lines, "cut": cut}).to_string())
}

pub async fn silent(port: u16) -> Result<String> {
    let listener = TcpListener::bind(("::", port)).await?;
    let mut held = Vec::new();
    loop {
        held.push(listener.accept().await?);
    }
}
