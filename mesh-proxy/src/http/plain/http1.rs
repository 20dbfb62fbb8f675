//! An HTTP/1.1 connection to an application, driven by the request that has it, so that no task of its own must be woken for each step.
//! It must not dial or pool.

use crate::http::{
    body::{Body, BodyError},
    gathered::Gathered,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};
use tokio::{net::TcpStream, task::unconstrained};

/// A response head; or why there is none, with the request if nothing of it was sent.
pub(super) type Answer = Result<Response<Incoming>, TrySendError<Request<Body>>>;

/// A connection with both its halves: who asks and who moves the bytes. Nothing moves unless it is polled.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Body>,
    /// None: it has ended.
    driver: Option<http1::Connection<TokioIo<Gathered<TcpStream>>, Body>>,
    address: SocketAddr,
}

impl Connection {
    pub(super) fn new(
        address: SocketAddr,
        sender: SendRequest<Body>,
        driver: http1::Connection<TokioIo<Gathered<TcpStream>>, Body>,
    ) -> Box<Self> {
        Box::new(Self { sender, driver: Some(driver), address })
    }

    /// Moves bytes both ways as far as they go; `cx` is woken when they may go further.
    fn drive(&mut self, cx: &mut Context<'_>) {
        let Some(driver) = &mut self.driver else { return };
        if let Poll::Ready(ended) = Pin::new(driver).poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(address = %self.address, %error, "connection to an application ended");
            }
            // Whoever waits for an answer hears of the end by this drop.
            self.driver = None;
        }
    }

    /// Sends a request; `poll_answer` brings what comes of it. Dropping that leaves a connection that is of no more use.
    pub(super) fn send(&mut self, request: Request<Body>) -> impl Future<Output = Answer> + use<> {
        // Out of budget it would ask to be woken, which nobody hears.
        unconstrained(self.sender.try_send_request(request))
    }

    /// The response head of what was sent.
    pub(super) fn poll_answer(
        &mut self,
        answer: Pin<&mut impl Future<Output = Answer>>,
        cx: &mut Context<'_>,
    ) -> Poll<Answer> {
        self.drive(cx);
        // Only `drive` can bring the answer, so nobody needs to be woken by it.
        answer.poll(&mut unheard())
    }

    /// The next frame of the body that came as the answer.
    pub(in crate::http) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut next = Pin::new(&mut *body).poll_frame(&mut unheard());
        if next.is_pending() {
            self.drive(cx);
            next = Pin::new(body).poll_frame(&mut unheard());
        }
        Poll::Ready(ready!(next).map(|frame| frame.map_err(BodyError::Hyper)))
    }

    /// What can be done with it now that its answer was read. Whoever had it is not woken by it any more.
    pub(super) fn after_use(mut self: Box<Self>) -> AfterUse {
        self.drive(&mut unheard());
        match (&self.driver, self.sender.is_ready()) {
            (None, _) => AfterUse::Ended,
            (Some(_), true) => AfterUse::Idle(self),
            (Some(_), false) => AfterUse::Busy(self),
        }
    }

    /// Drives it until it can be asked again; false: it has ended.
    pub(super) async fn settle(&mut self) -> bool {
        poll_fn(|cx| {
            self.drive(cx);
            let settled = self.driver.is_none() || self.sender.is_ready();
            if settled { Poll::Ready(self.driver.is_some()) } else { Poll::Pending }
        })
        .await
    }
}

/// What a connection is after an exchange.
#[derive(Debug)]
pub(super) enum AfterUse {
    /// It can be asked again.
    Idle(Box<Connection>),
    /// The application answered before it had all of the request, and may want the rest.
    Busy(Box<Connection>),
    /// It is closed.
    Ended,
}

/// A context that wakes nobody.
fn unheard() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
