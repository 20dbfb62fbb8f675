//! Probes and hooks of a pod's containers as requests that its kubelet will make. It must not fail: what no kubelet could send, nobody is to be let in for.

use http::{HeaderName, HeaderValue, header, uri::PathAndQuery};
use mesh_core::mesh::{Ask, HttpProbe, Probe};
use serde_json::Value;

/// Most probes of one pod that are told its node, as many as a proxy takes.
const PROBES_MAX: usize = 256;

/// Headers that belong to the connection and not to what is asked; "" or another value of them is not ours to repeat.
const OF_THE_CONNECTION: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What the kubelet asks of a pod over its network: probes and HTTP hooks of containers, and of init containers that stay (sidecars).
pub(super) fn of(spec: &Value) -> Vec<Probe> {
    let list = |field: &str| spec[field].as_array().map_or(&[][..], Vec::as_slice).iter();
    let sidecars = list("initContainers").filter(|c| c["restartPolicy"] == "Always");
    let mut probes: Vec<Probe> = Vec::new();
    for container in list("containers").chain(sidecars) {
        let hooks = &container["lifecycle"];
        let probed = ["startupProbe", "livenessProbe", "readinessProbe"].map(|p| read(&container[p], container));
        // A hook's tcpSocket is "NOT supported as a LifecycleHandler".
        let hooked = ["postStart", "preStop"].map(|h| http(&hooks[h]["httpGet"], container));
        for probe in probed.into_iter().chain(hooked).flatten() {
            if !probes.contains(&probe) && probes.len() < PROBES_MAX {
                probes.push(probe);
            }
        }
    }
    probes
}

fn read(probe: &Value, container: &Value) -> Option<Probe> {
    if probe["httpGet"].is_object() {
        return http(&probe["httpGet"], container);
    }
    // With a host it is not the pod that is asked.
    if probe["tcpSocket"].is_object() && names_no_host(&probe["tcpSocket"]) {
        return Some(Probe { port: port(&probe["tcpSocket"]["port"], container)?, ask: Ask::Tcp });
    }
    let grpc = &probe["grpc"];
    let number = grpc["port"].as_u64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)?;
    let service = grpc["service"].as_str().unwrap_or_default();
    Some(Probe { port: number, ask: Ask::Grpc { service: service.into() } })
}

fn http(get: &Value, container: &Value) -> Option<Probe> {
    if !get.is_object() || !names_no_host(get) {
        return None;
    }
    let tls = match get["scheme"].as_str() {
        None | Some("HTTP" | "") => false,
        Some("HTTPS") => true,
        Some(_) => return None,
    };
    let mut headers = Vec::new();
    for given in get["httpHeaders"].as_array().into_iter().flatten() {
        let name: HeaderName = given["name"].as_str()?.parse().ok()?;
        let value = HeaderValue::from_str(given["value"].as_str().unwrap_or_default()).ok()?;
        // An empty Accept asks the kubelet to send none.
        let no_accept = name == header::ACCEPT && value.is_empty();
        if !no_accept && !OF_THE_CONNECTION.contains(&name) {
            headers.push((name, value));
        }
    }
    let target = target(get["path"].as_str().unwrap_or("/"))?;
    Some(Probe { port: port(&get["port"], container)?, ask: Ask::Http(HttpProbe { tls, target, headers }) })
}

fn names_no_host(action: &Value) -> bool {
    action["host"].as_str().is_none_or(str::is_empty)
}

/// A port by number, or by the name that the same container gives it.
fn port(port: &Value, container: &Value) -> Option<u16> {
    let number = match port {
        Value::String(name) => {
            let mut ports = container["ports"].as_array().into_iter().flatten();
            match ports.find(|p| p["name"] == *name) {
                Some(named) => named["containerPort"].as_u64(),
                None => name.parse().ok(),
            }
        }
        number => number.as_u64(),
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|p| *p > 0)
}

/// The request target that a kubelet makes of `path`: it parses it as a URL reference and writes it again (Go's net/url), so what a path
/// cannot hold is escaped. None for what would not be a path of this pod or of no form that we could repeat byte for byte.
fn target(path: &str) -> Option<PathAndQuery> {
    let (path, _fragment) = path.split_once('#').unwrap_or((path, ""));
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    // A scheme, or an authority.
    let first = path.split('/').next().unwrap_or_default();
    if (!path.starts_with('/') && first.contains(':')) || path.starts_with("//") {
        return None;
    }
    if path.bytes().chain(query.unwrap_or_default().bytes()).any(|b| b.is_ascii_control()) {
        return None;
    }
    let mut text = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        text.push('/');
    }
    text.push_str(&escaped(path)?);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    let parsed: PathAndQuery = text.parse().ok()?;
    (parsed.as_str() == text && text.is_ascii()).then_some(parsed)
}

/// As it is if every byte of it may stand in a path; otherwise unescaped and escaped anew, which also touches what was escaped before.
fn escaped(path: &str) -> Option<String> {
    let unescaped = unescape(path)?;
    let stays = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b);
    if path.bytes().all(|b| stays(b) || b"%!'()*[]".contains(&b)) {
        return Some(path.to_owned());
    }
    let mut out = String::new();
    for byte in unescaped {
        if stays(byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(out)
}

/// The bytes behind a path; none where a `%` is not followed by two hexadecimal digits.
fn unescape(path: &str) -> Option<Vec<u8>> {
    let mut bytes = path.bytes();
    let mut out = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || (bytes.next()? as char).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_target_is_what_a_kubelet_writes() {
        for (path, want) in [
            ("/", "/"),
            ("", "/"),
            ("healthz", "/healthz"),
            ("/healthz?a=b&c", "/healthz?a=b&c"),
            ("/x?", "/x?"),
            ("?deep", "/?deep"),
            ("/a#b", "/a"),
            ("/a b", "/a%20b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2Fb c", "/a/b%20c"),
            ("/(a)*!", "/(a)*!"),
            ("/ä", "/%C3%A4"),
            ("/a:b@c;d=e", "/a:b@c;d=e"),
        ] {
            assert_eq!(target(path).unwrap().as_str(), want, "{path}");
        }
        for path in ["http://elsewhere/", "a:b", "//elsewhere/x", "/a\r\nx: y", "/%zz", "/a?b c", "/%2"] {
            assert_eq!(target(path), None, "{path}");
        }
    }

    #[test]
    fn probes_and_hooks_of_containers_and_sidecars_are_read() {
        let spec = json!({
            "initContainers": [
                {"name": "once", "readinessProbe": {"tcpSocket": {"port": 1}}},
                {"name": "side", "restartPolicy": "Always", "startupProbe": {"grpc": {"port": 50051, "service": "s"}}},
            ],
            "containers": [{
                "name": "main",
                "ports": [{"name": "web", "containerPort": 8080}],
                "livenessProbe": {"httpGet": {"path": "/live", "port": "web", "httpHeaders": [{"name": "X-A", "value": "1"}, {"name": "Connection", "value": "x"}]}},
                "readinessProbe": {"tcpSocket": {"port": 8080}},
                "startupProbe": {"exec": {"command": ["true"]}},
                "lifecycle": {
                    "preStop": {"httpGet": {"path": "/bye", "port": 8443, "scheme": "HTTPS"}},
                    "postStart": {"tcpSocket": {"port": 2}},
                },
            }, {
                "name": "odd",
                "livenessProbe": {"httpGet": {"path": "/x", "port": "nosuch"}},
                "readinessProbe": {"httpGet": {"path": "/x", "port": 80, "host": "elsewhere"}},
                "startupProbe": {"tcpSocket": {"port": 8080}},
            }],
        });
        let http = |port, tls, path: &str, headers| Probe {
            port,
            ask: Ask::Http(HttpProbe { tls, target: path.parse().unwrap(), headers }),
        };
        let header = (HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
        assert_eq!(
            of(&spec),
            [
                http(8080, false, "/live", vec![header]),
                Probe { port: 8080, ask: Ask::Tcp },
                http(8443, true, "/bye", vec![]),
                Probe { port: 50051, ask: Ask::Grpc { service: "s".into() } },
            ]
        );
        assert_eq!(of(&json!({"containers": "x"})), []);
    }
}
