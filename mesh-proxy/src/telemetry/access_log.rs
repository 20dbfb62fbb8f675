//! Access log: a bounded queue and the one thread that writes it. It must never make the data path wait: what does not fit is counted and dropped.

use super::{Record, line};
use prometheus_client::metrics::counter::Counter;
use std::{
    io::Write,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

/// Records that may wait for the writer: about 8 MiB of them, or 100 ms of 80,000 requests a second.
const QUEUE: usize = 8192;
/// Bytes gathered before one write: large enough that the disk sees few writes, small enough to stay in cache.
const BATCH: usize = 64 * 1024;
/// Pause of the writer after each batch. Whoever writes a line to a writer that waits must wake it, which costs more than the line; so it
/// gathers lines while it sleeps. Far shorter than the queue is long.
const GATHER: Duration = Duration::from_millis(5);

/// Where lines go.
#[derive(Clone, Debug)]
pub struct AccessLogSink {
    queue: Option<SyncSender<Message>>,
    dropped: Counter,
}

#[derive(Debug)]
enum Message {
    Line(Arc<Record>),
    Flush(SyncSender<()>),
}

impl AccessLogSink {
    /// Starts the writer thread over `out`. It ends when the last clone of the sink is gone.
    pub fn start(out: Box<dyn Write + Send>) -> std::io::Result<Self> {
        Self::bounded(out, QUEUE)
    }

    fn bounded(out: Box<dyn Write + Send>, queue: usize) -> std::io::Result<Self> {
        let (queue, messages) = sync_channel(queue);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write(&messages, out))?;
        Ok(Self { queue: Some(queue), dropped: Counter::default() })
    }

    /// Throws lines away.
    pub fn discard() -> Self {
        Self { queue: None, dropped: Counter::default() }
    }

    /// Lines that did not fit into the queue, or that came after the writer failed.
    pub(super) fn dropped(&self) -> Counter {
        self.dropped.clone()
    }

    pub(super) fn push(&self, record: Record) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            queue.try_send(Message::Line(Arc::new(record)))
        {
            self.dropped.inc();
        }
    }

    pub(super) fn flush(&self, patience: Duration) {
        let Some(queue) = &self.queue else { return };
        let (done, wait) = sync_channel(1);
        let end = std::time::Instant::now() + patience;
        let mut message = Message::Flush(done);
        // The queue may be full: try until it is not, or until patience ends.
        while let Err(TrySendError::Full(back)) = queue.try_send(message) {
            if std::time::Instant::now() >= end {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = wait.recv_timeout(end.saturating_duration_since(std::time::Instant::now()));
    }
}

fn write(messages: &Receiver<Message>, mut out: Box<dyn Write + Send>) {
    let mut buffer = Vec::with_capacity(BATCH + 4096);
    while let Ok(first) = messages.recv() {
        let mut waiters = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(record) => line::append(&record, &mut buffer),
                Message::Flush(done) => waiters.push(done),
            }
            next = if buffer.len() < BATCH { messages.try_recv().ok() } else { None };
        }
        let more = buffer.len() >= BATCH;
        if let Err(e) = out.write_all(&buffer).and_then(|()| out.flush()) {
            ::tracing::warn!(error = %e, "the access log cannot be written; lines are dropped from now on");
            return;
        }
        buffer.clear();
        for done in waiters {
            let _ = done.try_send(());
        }
        if !more {
            std::thread::sleep(GATHER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Direction, Kind};
    use std::sync::{Mutex, mpsc};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Blocks in its first write until told to go on.
    struct Stuck(mpsc::Receiver<()>, mpsc::SyncSender<()>);

    impl Write for Stuck {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            let _ = self.1.try_send(());
            let _ = self.0.recv();
            Ok(data.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_and_flush_waits_for_them() {
        let out = Shared::default();
        let sink = AccessLogSink::start(Box::new(out.clone())).unwrap();
        for attempts in 0..100 {
            let mut record = Record::new(Kind::Request, Direction::Outbound);
            record.attempts = attempts;
            sink.push(record);
        }
        sink.flush(Duration::from_secs(10));
        let written = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let attempts: Vec<u64> = written
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["attempts"].as_u64().unwrap())
            .collect();
        assert_eq!(attempts, (0..100).collect::<Vec<_>>());
        assert_eq!(sink.dropped.get(), 0);
    }

    #[test]
    fn a_stuck_disk_costs_lines_and_never_blocks() {
        let (go, wait) = mpsc::channel();
        let (writing, reached) = mpsc::sync_channel(1);
        let sink = AccessLogSink::bounded(Box::new(Stuck(wait, writing)), 2).unwrap();
        sink.push(Record::new(Kind::Request, Direction::Outbound));
        reached.recv_timeout(Duration::from_secs(10)).unwrap();
        for _ in 0..10 {
            sink.push(Record::new(Kind::Request, Direction::Outbound));
        }
        assert_eq!(sink.dropped.get(), 8);
        drop(go);
    }
}
