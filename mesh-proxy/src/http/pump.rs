//! Pump: a body into a native HTTP/2 stream, as fast as the peer's window allows. It must not read ahead of the window.

use super::body::{Body, BodyError};
use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body as _, Frame};
use std::{future::poll_fn, pin::Pin, task::Poll};

/// Why a body did not go through.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The side that we read from broke off.
    #[error("the sender broke off")]
    Source(#[source] BodyError),
    /// The peer reset the stream: it wants no more.
    #[error("the peer reset the stream ({0})")]
    Reset(Reason),
    /// The connection failed.
    #[error("the connection failed")]
    Connection(#[from] h2::Error),
}

/// Sends all of `body`, with its trailers, and ends the stream. If `body` breaks off, the stream is reset, so that the peer cannot take
/// a part for the whole. Cancelling it resets the stream when its other half is dropped too.
/// The first bytes, if they are no more than `unasked`, do not wait for the window; the HTTP/2 library keeps them until it may send them.
/// `seen` is shown each frame before it goes.
pub async fn pump(
    mut body: Body,
    mut stream: SendStream<Bytes>,
    mut unasked: usize,
    mut seen: impl FnMut(&Frame<Bytes>),
) -> Result<(), PumpError> {
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Err(reset_or_failed(reset)));
            }
            Pin::new(&mut body).poll_frame(cx).map(Ok)
        })
        .await?;
        let frame = match frame {
            None => {
                stream.send_data(Bytes::new(), true)?;
                return Ok(());
            }
            Some(Ok(frame)) => frame,
            Some(Err(e)) => {
                stream.send_reset(Reason::CANCEL);
                return Err(PumpError::Source(e));
            }
        };
        seen(&frame);
        match frame.into_data() {
            Ok(data) => {
                let last = body.is_end_stream();
                match std::mem::take(&mut unasked) {
                    most if data.len() <= most && !data.is_empty() => stream.send_data(data, last)?,
                    _ => send(&mut stream, data, last).await?,
                }
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    stream.send_trailers(trailers)?;
                    return Ok(());
                }
            }
        }
    }
}

async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, last: bool) -> Result<(), PumpError> {
    if data.is_empty() && !last {
        return Ok(());
    }
    loop {
        stream.reserve_capacity(data.len());
        if !data.is_empty() && stream.capacity() == 0 {
            poll_fn(|cx| {
                if let Poll::Ready(reset) = stream.poll_reset(cx) {
                    return Poll::Ready(Err(reset_or_failed(reset)));
                }
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => Poll::Ready(Ok(())),
                    Poll::Ready(Some(Err(e))) => Poll::Ready(Err(PumpError::Connection(e))),
                    // The stream is closed for sending; the reset says why, if there is one.
                    Poll::Ready(None) => Poll::Ready(Err(PumpError::Reset(Reason::CANCEL))),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await?;
            if stream.capacity() == 0 {
                continue;
            }
        }
        let chunk = data.split_to(data.len().min(stream.capacity()));
        let done = data.is_empty();
        stream.send_data(chunk, done && last)?;
        if done {
            return Ok(());
        }
    }
}

fn reset_or_failed(reset: Result<Reason, h2::Error>) -> PumpError {
    match reset {
        Ok(reason) => PumpError::Reset(reason),
        Err(e) => PumpError::Connection(e),
    }
}
