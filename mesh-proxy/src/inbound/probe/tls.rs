//! TLS of an httpGet probe with `scheme: HTTPS`, ended here and begun again, so that what is inside can be held to the probe.
//! It must not be used for anything else: neither side of it proves who it is.
//!
//! "If scheme field is set to HTTPS, the kubelet sends an HTTPS request skipping the certificate verification": the kubelet does not mind
//! whose certificate it sees, and asks the application as little for its own.

use super::late;
use crate::tunnel::DialFault;
use mesh_core::fault::Fault;
use rustls::{
    ClientConfig, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Both sides' settings; the key is this process's own and proves nothing.
struct Both {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

static BOTH: OnceLock<Option<Both>> = OnceLock::new();

/// Ends a kubelet's TLS.
pub(super) async fn accept(stream: TcpStream, wait: Duration) -> Result<server::TlsStream<TcpStream>, DialFault> {
    let accepted = TlsAcceptor::from(both()?.server.clone()).accept(stream);
    timeout(wait, accepted)
        .await
        .map_err(|_| late("the kubelet did not finish TLS"))?
        .map_err(|e| DialFault::new(Fault::BadRequest, e))
}

/// Begins TLS with the application inside the pod.
pub(super) async fn connect(
    stream: TcpStream,
    application: IpAddr,
    wait: Duration,
) -> Result<client::TlsStream<TcpStream>, DialFault> {
    let connected = TlsConnector::from(both()?.client.clone()).connect(application.into(), stream);
    timeout(wait, connected)
        .await
        .map_err(|_| late("the application did not finish TLS"))?
        .map_err(|e| DialFault::new(Fault::UpstreamProtocol, e))
}

fn both() -> Result<&'static Both, DialFault> {
    let made = BOTH.get_or_init(|| match make() {
        Ok(both) => Some(both),
        Err(error) => {
            tracing::error!(error = crate::fault::chain(&*error), "no TLS for HTTPS probes");
            None
        }
    });
    made.as_ref().ok_or_else(|| Fault::Internal.into())
}

fn make() -> Result<Both, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let own = rcgen::generate_simple_self_signed(["probe.heddle.dev".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)?;
    // As the kubelet does; the application is in the pod, and nothing is told to it but its own probe.
    let client = mesh_tls::unverified::client().with_no_client_auth();
    Ok(Both { server: Arc::new(server), client: Arc::new(client) })
}
