//! A kubelet's probes of a strict pod over real sockets: what passes, what the application sees of it, and that nothing else gets through.

use bytes::Bytes;
use mesh_core::{
    decide::{Plaintext, ProbePermit, admit_plaintext},
    fault::Fault,
    mesh::{Ask, HttpProbe, Limits, Probe, Workload},
};
use mesh_proxy::{inbound::probe, local::Local, tunnel::DialFault};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(5);

/// An application that tells all that each connection said and answers `answer`; and a door before it that serves one probe at a time.
struct Probed {
    door: SocketAddr,
    heard: mpsc::UnboundedReceiver<Vec<u8>>,
    outcomes: mpsc::UnboundedReceiver<Result<(), DialFault>>,
    application: JoinHandle<()>,
}

fn ask(path: &str, tls: bool) -> Ask {
    Ask::Http(HttpProbe { tls, target: path.parse().unwrap(), headers: vec![] })
}

impl Probed {
    async fn new(asks: Vec<Ask>, answer: &'static [u8]) -> Self {
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        let listener = TcpListener::bind(SocketAddr::new(address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, heard) = mpsc::unbounded_channel();
        let application = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut said = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    match timeout(Duration::from_millis(300), stream.read(&mut buffer)).await {
                        Ok(Ok(n)) if n > 0 => said.extend_from_slice(&buffer[..n]),
                        _ => break,
                    }
                    if said.ends_with(b"\r\n\r\n") {
                        break;
                    }
                }
                let _ = tell.send(said);
                let _ = stream.write_all(answer).await;
            }
        });
        let workload = Workload {
            probes: asks.into_iter().map(|ask| Probe { port, ask }).collect(),
            ..Workload::clone(&super::world::pod("a", address))
        };
        let permit = permit(&workload, SocketAddr::new(address, port));
        let (door, outcomes) = serve(workload, permit).await;
        Self { door, heard, outcomes, application }
    }

    /// Says something at the door; what came back.
    async fn say(&mut self, text: &[u8]) -> (Vec<u8>, Result<(), Fault>) {
        let mut stream = TcpStream::connect(self.door).await.unwrap();
        // The door may close before all is said.
        let _ = stream.write_all(text).await;
        let mut back = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut back)).await.expect("an end in time");
        drop(stream);
        (back, self.outcome().await)
    }

    async fn outcome(&mut self) -> Result<(), Fault> {
        let outcome = timeout(SOON, self.outcomes.recv()).await.expect("an outcome in time").unwrap();
        outcome.map_err(|fault| fault.fault)
    }
}

fn permit(workload: &Workload, wanted: SocketAddr) -> ProbePermit {
    let host: IpAddr = "127.0.0.1".parse().unwrap();
    match admit_plaintext(workload, host, &[host].into(), wanted) {
        Ok(Plaintext::Probe(permit)) => permit,
        other => panic!("{other:?}"),
    }
}

async fn serve(
    workload: Workload,
    permit: ProbePermit,
) -> (SocketAddr, mpsc::UnboundedReceiver<Result<(), DialFault>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door = listener.local_addr().unwrap();
    let (tell, outcomes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let local = Local::new(Arc::new(workload), None, 100);
        let limits = Limits { handshake: Duration::from_secs(1), ..Limits::default() };
        while let Ok((stream, peer)) = listener.accept().await {
            let _ = tell.send(probe(stream, peer, permit.clone(), &local, &limits).await);
        }
    });
    (door, outcomes)
}

const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\nset-cookie: secret=1\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nfine";

#[tokio::test]
async fn a_probe_is_asked_anew_and_only_its_answer_comes_back() {
    let mut probed = Probed::new(vec![ask("/ready?x=1", false)], OK).await;
    let head = b"GET /ready?x=1 HTTP/1.1\r\nHost: evil\r\nUser-Agent: kube-probe/1.34\r\nX-Original-URL: /admin\r\nConnection: close\r\n\r\n";
    let (back, outcome) = probed.say(head).await;
    let back = String::from_utf8(back).unwrap();
    assert_eq!(outcome, Ok(()));
    assert!(back.starts_with("HTTP/1.1 200 OK\r\n") && back.ends_with("\r\n\r\nfine"), "{back}");
    assert!(!back.contains("secret"), "{back}");
    let heard = String::from_utf8(probed.heard.recv().await.unwrap()).unwrap();
    assert!(heard.starts_with("GET /ready?x=1 HTTP/1.1\r\n"), "{heard}");
    assert!(!heard.contains("evil") && !heard.to_lowercase().contains("original"), "{heard}");
    assert!(heard.contains("kube-probe/1.34"), "{heard}");
}

#[tokio::test]
async fn a_failing_application_and_a_redirect_are_answered_as_they_are_without_a_way_on() {
    let mut probed = Probed::new(vec![ask("/", false)], b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
    assert!(probed.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.0.starts_with(b"HTTP/1.1 503"));
    let redirect = b"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n";
    let mut probed = Probed::new(vec![ask("/", false)], redirect).await;
    let back = String::from_utf8(probed.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.0).unwrap();
    assert!(back.starts_with("HTTP/1.1 302") && !back.contains("login"), "{back}");
    probed.application.abort();
    let _ = (&mut probed.application).await;
    let (back, outcome) = probed.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((back, outcome), (vec![], Err(Fault::ConnectFailed)), "nobody listens");
}

#[tokio::test]
async fn nothing_but_the_probe_reaches_the_application() {
    let mut probed = Probed::new(vec![ask("/ready", false)], OK).await;
    for text in [
        &b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"GET /ready/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ready?x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/ready HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        b"DELETE /ready HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD /ready HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        b"GET /ready HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /ready HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /ready HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        b"GET /ready HTTP/0.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x16\x03\x01\0\x05hello",
        b"SSH-2.0-x\r\n",
        b"\0\0\0\0",
    ] {
        let (back, outcome) = probed.say(text).await;
        let said = String::from_utf8_lossy(text).into_owned();
        assert!(outcome.is_err(), "{said}");
        assert!(!back.starts_with(b"HTTP/1.1 2") && !back.windows(4).any(|w| w == b"fine"), "{said}: {back:?}");
    }
    assert!(probed.heard.try_recv().is_err(), "the application heard of none");
}

#[tokio::test]
async fn a_second_request_behind_a_probe_is_not_served() {
    let mut probed = Probed::new(vec![ask("/ready", false)], OK).await;
    let two = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\nGET /ready HTTP/1.1\r\nHost: a\r\n\r\nDELETE /all HTTP/1.1\r\nHost: a\r\n\r\n";
    let (back, _) = probed.say(two).await;
    assert!(back.windows(9).filter(|w| w == b"HTTP/1.1 ").count() <= 1, "{back:?}");
    let heard = probed.heard.recv().await.unwrap();
    assert!(heard.windows(4).filter(|w| w == b"GET ").count() == 1 && !heard.windows(6).any(|w| w == b"DELETE"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(probed.heard.try_recv().is_err(), "one probe, one request");
}

#[tokio::test]
async fn tcp_asks_whether_somebody_listens_and_says_nothing() {
    let mut probed = Probed::new(vec![Ask::Tcp], OK).await;
    drop(TcpStream::connect(probed.door).await.unwrap());
    assert_eq!(probed.outcome().await, Ok(()));
    assert_eq!(probed.heard.recv().await.unwrap(), b"");
    for text in [&b"G"[..], b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0", b"\x16", b"x"] {
        assert_eq!(probed.say(text).await, (vec![], Err(Fault::PlaintextRefused)));
    }
    // One that stays and is silent is no probe either.
    let stream = TcpStream::connect(probed.door).await.unwrap();
    assert_eq!(probed.outcome().await, Err(Fault::Limit));
    drop(stream);
    assert!(probed.heard.try_recv().is_err());
    let mut http_only = Probed::new(vec![ask("/", false)], OK).await;
    drop(TcpStream::connect(http_only.door).await.unwrap());
    assert_eq!(http_only.outcome().await, Err(Fault::PlaintextRefused));
}

/// A gRPC server of health, and one call to the door before it.
async fn check(
    service: &str,
    path: &str,
    body: &'static [u8],
) -> (Result<Option<String>, String>, Result<(), Fault>, u32) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = listener.local_addr().unwrap();
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = calls.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                    let mut send = respond.send_response(head, false).unwrap();
                    send.send_data(Bytes::from_static(b"\0\0\0\0\x02\x08\x01"), false).unwrap();
                    send.send_trailers([("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect())
                        .unwrap();
                }
            });
        }
    });
    let workload = Workload {
        probes: [Probe { port: application.port(), ask: Ask::Grpc { service: service.into() } }].into(),
        ..Workload::clone(&super::world::pod("a", application.ip()))
    };
    let permit = permit(&workload, application);
    let (door, mut outcomes) = serve(workload, permit).await;
    let stream = TcpStream::connect(door).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{door}{path}")).header("content-type", "application/grpc");
    let called = async {
        let (response, mut send) = client.send_request(request.body(()).unwrap(), false).map_err(|e| e.to_string())?;
        send.send_data(Bytes::from_static(body), true).map_err(|e| e.to_string())?;
        let mut body = response.await.map_err(|e| e.to_string())?.into_body();
        while let Some(chunk) = body.data().await {
            chunk.map_err(|e| e.to_string())?;
        }
        let trailers = body.trailers().await.map_err(|e| e.to_string())?;
        Ok(trailers.map(|t| t["grpc-status"].to_str().unwrap().to_owned()))
    };
    let called = timeout(SOON, called).await.expect("an answer in time");
    drop(client);
    let outcome = timeout(SOON, outcomes.recv()).await.expect("an outcome in time").unwrap();
    driver.abort();
    (called, outcome.map_err(|f| f.fault), calls.load(std::sync::atomic::Ordering::SeqCst))
}

#[tokio::test]
async fn a_health_check_of_that_service_passes_and_no_other_call() {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    let (called, outcome, calls) = check("", CHECK, b"\0\0\0\0\0").await;
    assert_eq!((called, outcome, calls), (Ok(Some("0".into())), Ok(()), 1));
    let (called, outcome, calls) = check("cart", CHECK, b"\0\0\0\0\x06\x0a\x04cart").await;
    assert_eq!((called, outcome, calls), (Ok(Some("0".into())), Ok(()), 1));
    for (service, path, body) in [
        ("", "/grpc.health.v1.Health/Watch", &b"\0\0\0\0\0"[..]),
        ("", "/shop.Cart/Empty", b"\0\0\0\0\0"),
        ("cart", CHECK, b"\0\0\0\0\0"),
        ("", CHECK, b"\0\0\0\0\x06\x0a\x04cart"),
        ("", CHECK, b"\0\0\0\0\0\0\0\0\0\0"),
    ] {
        let (called, outcome, calls) = check(service, path, body).await;
        assert!(
            called.is_err() && outcome == Err(Fault::PlaintextRefused) && calls == 0,
            "{path} {body:?}: {called:?}"
        );
    }
}

#[tokio::test]
async fn an_https_probe_is_held_to_its_path_inside_tls() {
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    let own = rcgen::generate_simple_self_signed(["app".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = listener.local_addr().unwrap();
    let (tell, mut heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(stream).await else { continue };
            let mut said = vec![0; 4096];
            let n = tls.read(&mut said).await.unwrap_or_default();
            said.truncate(n);
            tell.send(said).unwrap();
            let _ = tls.write_all(OK).await;
            let _ = tls.shutdown().await;
        }
    });
    let workload = Workload {
        probes: [Probe { port: application.port(), ask: ask("/tls", true) }].into(),
        ..Workload::clone(&super::world::pod("a", application.ip()))
    };
    let permit = permit(&workload, application);
    let (door, mut outcomes) = serve(workload, permit).await;
    let mut say = async |text: &str| {
        let client = std::sync::Arc::new(mesh_tls::unverified::client().with_no_client_auth());
        let tcp = TcpStream::connect(door).await.unwrap();
        let name = door.ip().into();
        let mut tls = tokio_rustls::TlsConnector::from(client).connect(name, tcp).await.unwrap();
        tls.write_all(text.as_bytes()).await.unwrap();
        let mut back = Vec::new();
        let _ = timeout(SOON, tls.read_to_end(&mut back)).await.expect("an end in time");
        (String::from_utf8(back).unwrap(), outcomes.recv().await.unwrap().map_err(|f| f.fault))
    };
    let (back, outcome) = say("GET /tls HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(outcome == Ok(()) && back.ends_with("fine"), "{back} {outcome:?}");
    assert!(heard.recv().await.unwrap().starts_with(b"GET /tls HTTP/1.1\r\n"));
    for text in ["GET /other HTTP/1.1\r\nHost: a\r\n\r\n", "POST /tls HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let (back, outcome) = say(text).await;
        assert_eq!((back.as_str(), outcome), ("", Err(Fault::PlaintextRefused)), "{text}");
    }
    assert!(heard.try_recv().is_err());
}
