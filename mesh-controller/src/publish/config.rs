//! The Config service: carries a session over a gRPC stream. It must not decide what is sent; `session` does.

use super::publisher::{Membership, Publisher};
use crate::authenticate::Callers;
use mesh_core::name::ProxyName;
use mesh_wire::{
    MESSAGE_MAX, PROTOCOL,
    proto::{Hello, ToController, to_controller::Message},
    sender::{
        Outgoing,
        service::config_server::{Config, ConfigServer},
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, Streaming};

/// How long a proxy may take to say Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest life of a session. A caller is known by its token when it comes, so it must come again now and then: a token of a pod that is gone
/// buys nothing for longer than this. Half the life of a token and of a certificate; a session that is resumed costs one message.
pub const SESSION_LIFE: Duration = Duration::from_secs(30 * 60);

/// Part of its life after which a session may be ended, so that the proxies of a large cluster do not all come again at once.
const LIFE_SPREAD: std::ops::Range<f64> = 0.7..1.0;

/// Longest text of a proxy that goes into our log.
const QUOTE_MAX: usize = 300;

/// Serves `heddle.config.v1.Config`.
#[derive(Clone)]
pub struct ConfigService {
    publisher: Arc<Publisher>,
    callers: Callers,
    tasks: TaskTracker,
    drain: CancellationToken,
    life: Duration,
}

impl ConfigService {
    /// Sessions are tasks of `tasks` and end in good order after at most `life`, or when `drain` is cancelled.
    pub fn new(
        publisher: Arc<Publisher>,
        callers: Callers,
        tasks: TaskTracker,
        drain: CancellationToken,
        life: Duration,
    ) -> ConfigServer<Self> {
        let service = Self { publisher, callers, tasks, drain, life };
        ConfigServer::new(service).max_decoding_message_size(MESSAGE_MAX)
    }
}

#[tonic::async_trait]
impl Config for ConfigService {
    type StreamStream = ReceiverStream<Result<Outgoing, Status>>;

    async fn stream(&self, request: Request<Streaming<ToController>>) -> Result<Response<Self::StreamStream>, Status> {
        let proxy = self.callers.caller(request.metadata()).await?;
        // One delta is in flight, so one place is enough.
        let (out, stream) = mpsc::channel(1);
        let service = self.clone();
        let life = self.life.mul_f64(rand::random_range(LIFE_SPREAD));
        self.tasks.spawn(async move {
            let end = tokio::select! {
                end = service.serve(&proxy, request.into_inner(), &out) => end,
                () = service.drain.cancelled() => Err(Status::unavailable("the controller is going away")),
                () = out.closed() => Ok(()),
                () = tokio::time::sleep(life) => return tracing::debug!("{proxy}: to be known again"),
            };
            match end {
                Ok(()) => tracing::info!("{proxy}: disconnected"),
                Err(status) => {
                    tracing::info!("{proxy}: session ends: {}", status.message());
                    // If the proxy does not read any more, it does not need to hear it either.
                    let _ = out.try_send(Err(status));
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl ConfigService {
    async fn serve(
        &self,
        proxy: &ProxyName,
        mut incoming: Streaming<ToController>,
        out: &mpsc::Sender<Result<Outgoing, Status>>,
    ) -> Result<(), Status> {
        let hello = tokio::time::timeout(HELLO_TIMEOUT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello in time"))??;
        let Some(ToController { message: Some(Message::Hello(hello)) }) = hello else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        check(proxy, &hello).inspect_err(|status| {
            if status.code() == Code::PermissionDenied {
                self.callers.impostor();
                tracing::warn!(%proxy, reason = "other_proxy", "refused a caller: {}", status.message());
            }
        })?;
        self.publisher.ready().await;
        let session =
            self.publisher.join(proxy, &hello.known).map_err(|e| Status::resource_exhausted(e.to_string()))?;
        tracing::info!("{proxy}: connected, holds {} resources", hello.known.len());
        drop(hello);
        loop {
            while let Some(delta) = session.next(Instant::now()) {
                if out.send(Ok(Outgoing { delta: Some(delta) })).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                message = incoming.message() => match message? {
                    Some(message) => self.take(proxy, &session, message)?,
                    None => return Ok(()),
                },
                () = session.changed() => {}
            }
        }
    }

    fn take(&self, proxy: &ProxyName, session: &Membership, message: ToController) -> Result<(), Status> {
        let Some(Message::Ack(ack)) = message.message else {
            return Err(Status::invalid_argument("only Ack may follow Hello"));
        };
        let answered = session.answer(&ack, Instant::now()).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let metrics = self.publisher.metrics();
        metrics.ack_lag.observe(answered.lag.as_secs_f64());
        metrics.refusals.inc_by(answered.refused.len() as u64);
        for (id, refusal) in &answered.refused {
            let quote = |text: &str| text.chars().take(QUOTE_MAX).collect::<String>();
            tracing::warn!(
                "{proxy}: refused {id} (version {:016x}): {}: {}; it keeps its last good state of it",
                refusal.version,
                quote(&refusal.field),
                quote(&refusal.reason)
            );
        }
        if answered.refused.is_empty() && !ack.errors.is_empty() {
            tracing::warn!("{proxy}: refused a delta without naming a resource of it; sending smaller ones");
        }
        Ok(())
    }
}

fn check(proxy: &ProxyName, hello: &Hello) -> Result<(), Status> {
    if hello.proxy.parse::<ProxyName>().as_ref() != Ok(proxy) {
        let claimed: String = hello.proxy.chars().take(QUOTE_MAX).collect();
        return Err(Status::permission_denied(format!("the token is of {proxy}, not of {claimed:?}")));
    }
    // A proxy that speaks more than we do can also speak this; one that speaks 0 has not filled in the field.
    if hello.protocol < PROTOCOL {
        return Err(Status::failed_precondition(format!(
            "protocol {} is too old; this controller speaks {PROTOCOL}",
            hello.protocol
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
