//! Copy: the one copy loop between two connections, for bulk and for single bytes, beside the same bytes without it. It must not measure TLS, tunnels or dials.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mesh_proxy::tcp::{Stream, carry};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

const CHUNK: usize = 64 * 1024;

/// Longer than any measurement.
const IDLE: Duration = Duration::from_secs(3600);

/// Both ends of something that carries bytes.
struct Ends<T>(T, T);

impl<T: AsyncRead + AsyncWrite + Unpin> Ends<T> {
    /// The time in which `n` chunks written at one end have been read at the other.
    async fn bulk(&mut self, n: u64) -> Duration {
        let Self(near, far) = self;
        let begun = Instant::now();
        let write = async {
            let chunk = vec![7; CHUNK];
            for _ in 0..n {
                near.write_all(&chunk).await.expect("the other end lives");
            }
        };
        let read = async {
            let mut chunk = vec![0; CHUNK];
            for _ in 0..n {
                far.read_exact(&mut chunk).await.expect("the other end lives");
            }
        };
        tokio::join!(write, read);
        begun.elapsed()
    }

    /// The time in which one byte has gone forth and back `n` times.
    async fn ping_pong(&mut self, n: u64) -> Duration {
        let Self(near, far) = self;
        let begun = Instant::now();
        for _ in 0..n {
            near.write_u8(1).await.expect("the other end lives");
            let ping = far.read_u8().await.expect("the other end lives");
            far.write_u8(ping + 1).await.expect("the other end lives");
            assert_eq!(near.read_u8().await.expect("the other end lives"), 2);
        }
        begun.elapsed()
    }
}

async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free loopback port");
    let near = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("it listens");
    let (far, _) = listener.accept().await.expect("it was dialled");
    for end in [&near, &far] {
        end.set_nodelay(true).expect("a living socket");
    }
    (near, far)
}

async fn direct() -> Ends<TcpStream> {
    let (near, far) = connection().await;
    Ends(near, far)
}

/// Two connections with the copy loop between them.
async fn carried() -> Ends<TcpStream> {
    let ((near, mut first), (mut second, far)) = (connection().await, connection().await);
    tokio::spawn(async move { carry(&mut first, &mut second, IDLE).await });
    Ends(near, far)
}

/// As [`carried`], with memory instead of sockets; what is left is the copy loop and the wakes of the runtime.
async fn in_memory() -> Ends<DuplexStream> {
    let ((near, first), (second, far)) = (duplex(CHUNK), duplex(CHUNK));
    tokio::spawn(async move { carry(&mut Stream(first), &mut Stream(second), IDLE).await });
    Ends(near, far)
}

fn measure<T: AsyncRead + AsyncWrite + Unpin>(c: &mut Criterion, runtime: &Runtime, name: &str, mut ends: Ends<T>) {
    let mut group = c.benchmark_group("copy");
    group.bench_function(format!("{name}: one byte forth and back"), |b| {
        b.iter_custom(|n| runtime.block_on(ends.ping_pong(n)));
    });
    group.throughput(Throughput::Bytes(CHUNK as u64));
    group.bench_function(format!("{name}: 64 KiB"), |b| b.iter_custom(|n| runtime.block_on(ends.bulk(n))));
    group.finish();
}

fn copy(c: &mut Criterion) {
    // One thread writes, carries and reads: what is measured is work, not the scheduler of a shared machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ends = runtime.block_on(direct());
    measure(c, &runtime, "loopback without the proxy", ends);
    let ends = runtime.block_on(carried());
    measure(c, &runtime, "loopback, carried", ends);
    let ends = runtime.block_on(in_memory());
    measure(c, &runtime, "memory, carried", ends);
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(30);
    targets = copy
}
criterion_main!(benches);
