//! Turn: a shared connection waits for its turn behind all tasks that are ready now, so that what they send goes out together: one record, one
//! system call, one segment instead of one for each. It must not delay by the clock.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

/// Whether it is one's turn. A task that was just woken would else run before the others of the same batch, as the runtime thinks it does
/// them a favour.
#[derive(Debug, Default)]
pub struct Turn {
    mine: bool,
}

impl Turn {
    /// Ready from the second poll on: the first one goes to the end of the queue.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.mine {
            self.mine = true;
            // A task that wakes itself while it runs is put behind all that are ready.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// There is no more to do until it is woken again.
    pub fn over(&mut self) {
        self.mine = false;
    }

    /// Polls until ready, each time it is woken in its turn.
    pub async fn take<T>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        poll_fn(|cx| {
            ready!(self.poll(cx));
            let polled = poll(cx);
            if polled.is_pending() {
                self.over();
            }
            polled
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::sync::mpsc::unbounded_channel;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_tasks_of_one_batch_send_is_taken_together() {
        let (send, mut sent) = unbounded_channel();
        let batches = Arc::new(Mutex::new(Vec::new()));
        let seen = batches.clone();
        let taker = move |cx: &mut Context<'_>| {
            let mut taken = 0;
            let polled = loop {
                match sent.poll_recv(cx) {
                    Poll::Ready(Some(())) => taken += 1,
                    Poll::Ready(None) => break Poll::Ready(()),
                    Poll::Pending => break Poll::Pending,
                }
            };
            seen.lock().unwrap().push(taken);
            polled
        };
        let taker = tokio::spawn(async move { Turn::default().take(taker).await });
        tokio::spawn(async move {
            for _ in 0..10 {
                let send = send.clone();
                tokio::spawn(async move { send.send(()) });
            }
        })
        .await
        .unwrap();
        taker.await.unwrap();
        let batches = batches.lock().unwrap();
        assert_eq!(batches.iter().sum::<i32>(), 10);
        assert!(batches.iter().filter(|b| **b > 0).count() <= 2, "{batches:?}");
    }
}
