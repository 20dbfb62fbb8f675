//! Scenario 4: thousands of HTTPRoutes over a thousand hosts: what a request costs among them, what they weigh, and how soon a change is live, idle and
//! under load. It must not judge what a route means; it only asks whether the newest version answers.

use crate::{
    arena::{Arena, PROXY, Place},
    client::{Connection, connect},
    figures::{Figures, Sample},
    load::{Outcome, scripted},
    process::{Process, Usage},
    rival::{self, Fill, Programs, Rival, Running},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// After the routes have come: what a proxy gives back of what reading them took is given back.
const SETTLE: Duration = Duration::from_secs(2);
/// Hosts that the routes are spread over.
const HOSTS: u32 = 1_000;
/// Connections of the load.
const CONNECTIONS: u32 = 32;
/// A change that is not live by then never will be.
const LIVE_MAX: Duration = Duration::from_secs(20);
/// How often the client asks whether a change is live.
const ASK_EVERY: Duration = Duration::from_micros(250);
/// Between two changes, so that each is one.
const BETWEEN: Duration = Duration::from_millis(7);

/// Who can change one route without a restart: nginx and haproxy read a config only as a whole new process.
const PROXIES: [Rival; 2] = [Rival::Heddle, Rival::Envoy];

/// How much is done.
pub struct Effort {
    /// How many routes.
    counts: &'static [u32],
    /// Repetitions.
    pub rounds: u32,
    /// Each load.
    pub each: Duration,
    /// Changes of one route after another.
    pub changes: u32,
    /// The same for a rival that takes a second for one.
    pub rival_changes: u32,
}

impl Effort {
    /// Of a quick run or of a whole one.
    pub fn new(quick: bool) -> Self {
        match quick {
            true => Self { counts: &[5_000], rounds: 1, each: Duration::from_secs(2), changes: 200, rival_changes: 20 },
            false => Self {
                counts: &[10, 1_000, 5_000],
                rounds: 3,
                each: Duration::from_secs(2),
                changes: 1_000,
                rival_changes: 50,
            },
        }
    }
}

/// All of it.
pub fn run(programs: &Programs, effort: &Effort, only: &str) -> Result<Figures> {
    let mut figures = Figures::default();
    let counts: Vec<u32> = effort.counts.iter().copied().filter(|n| scenario(*n).contains(only)).collect();
    for round in 1..=effort.rounds {
        for count in &counts {
            for proxy in PROXIES {
                if let Err(error) = measure(programs, effort, proxy, *count, &mut figures) {
                    figures.fail(format!("{} with {}: {error:#}", scenario(*count), proxy.name()));
                }
                eprintln!("round {round} of {}: {count} routes, {}", effort.rounds, proxy.name());
            }
        }
    }
    Ok(figures)
}

fn scenario(routes: u32) -> String {
    format!("routes/{routes}")
}

fn measure(programs: &Programs, effort: &Effort, proxy: Rival, count: u32, figures: &mut Figures) -> Result<()> {
    let arena = Arena::new()?;
    let dir = tempfile::tempdir()?;
    rival::certificate(dir.path())?;
    let fill = Fill { dir: dir.path() };
    let _backend = rival::backend(programs, &arena, &fill)?;
    let mut world = World { count, versions: vec![0; count as usize], proxy, dir: dir.path().to_owned() };
    let running = world.start(programs, &arena, &fill)?;
    let script = dir.path().join("requests.lua");
    fs::write(&script, world.script())?;
    let url = format!("http://{PROXY}:8080/");
    let usage = || running.0.first().context("a proxy has a process").and_then(Process::usage);

    let mut add = |measure: &'static str, value: f64| {
        figures.add(Sample { scenario: scenario(count), proxy: proxy.name(), measure, value });
    };
    std::thread::sleep(SETTLE);
    add("memory_mib", mib(usage()?.memory));
    scripted(&arena, &url, CONNECTIONS, &script, Duration::from_secs(1)).context("warming up")?;
    let before = usage()?;
    let outcome = scripted(&arena, &url, CONNECTIONS, &script, effort.each)?;
    let after = usage()?;
    ensure!(outcome.failed == 0, "{} of {} requests failed", outcome.failed, outcome.requests);
    add("cpu_us_per_request", (after.cpu - before.cpu) as f64 / 1e3 / outcome.requests as f64);

    let changes = if proxy == Rival::Heddle { effort.changes } else { effort.rival_changes };
    let before = usage()?;
    let idle = arena.inside(|| world.change(changes))?;
    let Usage { cpu, .. } = usage()?;
    add("live_idle_p50_ms", percentile(&idle.millis, 50.0));
    add("live_idle_p99_ms", percentile(&idle.millis, 99.0));
    add("proxy_cpu_ms_per_change", (cpu - before.cpu) as f64 / 1e6 / f64::from(changes));
    add("failed_idle", idle.failed as f64);

    let (loaded, load) = world.change_under_load(&arena, &url, &script, changes)?;
    add("live_load_p50_ms", percentile(&loaded.millis, 50.0));
    add("live_load_p99_ms", percentile(&loaded.millis, 99.0));
    add("changes_under_load", f64::from(changes));
    add("requests_during_changes", load.requests as f64);
    add("failed_during_changes", (loaded.failed + load.failed) as f64);
    add("memory_after_mib", mib(usage()?.memory));
    Ok(())
}

/// What came of changes.
#[derive(Default)]
struct Changes {
    /// From the write of the object to the first answer that shows it.
    millis: Vec<f64>,
    /// Requests that were not answered, or not with 200.
    failed: u64,
}

/// The routes as they are, and how this proxy is told of them.
struct World {
    count: u32,
    versions: Vec<u32>,
    proxy: Rival,
    dir: PathBuf,
}

impl World {
    fn start(&self, programs: &Programs, arena: &Arena, fill: &Fill<'_>) -> Result<Running> {
        let running = match self.proxy {
            Rival::Envoy => {
                fs::create_dir_all(self.dir.join("rds"))?;
                self.publish_to_envoy()?;
                let conf = fill.write("envoy-routes.yaml", include_str!("../rivals/envoy-routes.yaml"))?;
                let mut command = arena.command(&programs.envoy.to_string_lossy());
                command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]).arg(conf);
                let mut process = Process::start("envoy", command, fill.dir)?;
                process.listens(arena, format!("{PROXY}:8080").parse()?)?;
                Running(vec![process])
            }
            _ => rival::heddle(programs, arena, fill, |folder| {
                fs::create_dir_all(folder.join("routes"))?;
                (0..self.count).try_for_each(|n| self.write_object(folder, n))
            })?,
        };
        // Listening is not knowing all routes: the last one answers for them.
        let end = Instant::now() + LIVE_MAX;
        arena.inside(|| {
            let mut asking = Asking::open()?;
            while asking.version(self.count - 1)? != Some(0) {
                ensure!(Instant::now() < end, "route {} is not there within {LIVE_MAX:?}", self.count - 1);
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })?;
        Ok(running)
    }

    /// Changes one route after another, and asks until each is live.
    fn change(&mut self, changes: u32) -> Result<Changes> {
        let mut done = Changes::default();
        let mut asking = Asking::open()?;
        for change in 0..changes {
            // 7,919 is a prime: all routes get their turn, never neighbours.
            let route = (change * 7_919) % self.count;
            let version = self.versions[route as usize] + 1;
            self.versions[route as usize] = version;
            let began = Instant::now();
            self.publish(route)?;
            while asking.version(route)? != Some(version) {
                ensure!(began.elapsed() < LIVE_MAX, "change {change}, of route {route}, is not live in {LIVE_MAX:?}");
                thread::sleep(ASK_EVERY);
            }
            done.millis.push(began.elapsed().as_secs_f64() * 1e3);
            thread::sleep(BETWEEN);
        }
        done.failed = asking.failed;
        Ok(done)
    }

    /// The same while the generator asks for all that there is.
    fn change_under_load(
        &mut self,
        arena: &Arena,
        url: &str,
        script: &Path,
        changes: u32,
    ) -> Result<(Changes, Outcome)> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let load = scope.spawn(|| -> Result<Outcome> {
                let mut sum = Outcome::default();
                while !over.load(Ordering::Relaxed) {
                    let outcome = scripted(arena, url, CONNECTIONS, script, Duration::from_secs(2))?;
                    sum.requests += outcome.requests;
                    sum.failed += outcome.failed;
                }
                Ok(sum)
            });
            // Until it runs at full speed.
            thread::sleep(Duration::from_millis(500));
            let changed = arena.inside(|| self.change(changes));
            over.store(true, Ordering::Relaxed);
            let load = load.join().map_err(|_| anyhow::anyhow!("the load's thread panicked"))?;
            Ok((changed?, load?))
        })
    }

    fn publish(&self, route: u32) -> Result<()> {
        match self.proxy {
            Rival::Envoy => self.publish_to_envoy(),
            _ => self.write_object(&self.dir.join("heddle/objects"), route),
        }
    }

    fn write_object(&self, folder: &Path, route: u32) -> Result<()> {
        let path = folder.join(format!("routes/{route}.json"));
        Ok(fs::write(path, object(route, self.versions[route as usize]).to_string())?)
    }

    /// Envoy without a control plane of its own watches a file, in which all routes stand, and reads it when it is moved.
    fn publish_to_envoy(&self) -> Result<()> {
        let hosts = (0..self.count.min(HOSTS)).map(|host| {
            let routes = (host..self.count).step_by(HOSTS as usize);
            let routes: Vec<Value> = routes.flat_map(|n| envoy_routes(n, self.versions[n as usize])).collect();
            json!({"name": format!("h{host}"), "domains": [host_name(host)], "routes": routes})
        });
        let config = json!({"resources": [{
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "routes",
            "virtual_hosts": hosts.collect::<Vec<_>>(),
        }]});
        let new = self.dir.join("rds.new");
        fs::write(&new, config.to_string())?;
        Ok(fs::rename(new, self.dir.join("rds/routes.json"))?)
    }

    /// wrk's script: every request to a rule of some route.
    fn script(&self) -> String {
        let paths = r#"{"/r%d/x", "/r%d-exact", "/r%d-headed/x"}"#;
        format!(
            "local paths = {paths}\nrequest = function()\n  local n = math.random(0, {last})\n  local path = paths[math.random(1, 1 + n % 3)]\n  \
             return wrk.format('GET', string.format(path, n), {{Host = string.format('h%d.bench.example', n % {HOSTS}), ['x-a'] = '1'}})\nend\n",
            last = self.count - 1
        )
    }
}

/// Asks for the version of a route; a connection that is closed is opened again, and counts as failed if a request was under way.
struct Asking {
    connection: Connection<TcpStream>,
    failed: u64,
}

impl Asking {
    fn open() -> Result<Self> {
        let to: SocketAddr = format!("{PROXY}:8080").parse()?;
        Ok(Self { connection: Connection::new(connect(None, to)?), failed: 0 })
    }

    fn version(&mut self, route: u32) -> Result<Option<u32>> {
        match self.connection.get(&host_name(route % HOSTS), &format!("/r{route}/x")) {
            Ok(answer) => {
                self.failed += u64::from(answer.status != 200);
                Ok(answer.header("x-version").and_then(|v| v.parse().ok()))
            }
            Err(_) => {
                let failed = self.failed + 1;
                *self = Self { failed, ..Self::open()? };
                Ok(None)
            }
        }
    }
}

fn host_name(host: u32) -> String {
    format!("h{host}.bench.example")
}

/// Route `n`: one to three rules. The first says its version in a header of the answer.
fn object(n: u32, version: u32) -> Value {
    let backend = json!([{"name": "app", "port": 80}]);
    let header = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-version", "value": version.to_string()}]}});
    let rules = [
        json!({"matches": [{"path": {"type": "PathPrefix", "value": format!("/r{n}")}}], "filters": [header], "backendRefs": backend}),
        json!({"matches": [{"path": {"type": "Exact", "value": format!("/r{n}-exact")}}], "backendRefs": backend}),
        json!({"matches": [{"path": {"type": "PathPrefix", "value": format!("/r{n}-headed")}, "headers": [{"name": "x-a", "value": "1"}]}], "backendRefs": backend}),
    ];
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": format!("r{n}"), "namespace": "bench"},
        "spec": {"parentRefs": [{"name": "edge", "sectionName": "plain"}], "hostnames": [host_name(n % HOSTS)],
            "rules": rules[..=(n % 3) as usize]}})
}

/// The same for Envoy, in the order in which it must try them.
fn envoy_routes(n: u32, version: u32) -> Vec<Value> {
    let to = json!({"cluster": "backend", "timeout": "60s"});
    let header = json!([{"header": {"key": "x-version", "value": version.to_string()}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]);
    let mut rules = vec![
        json!({"match": {"path_separated_prefix": format!("/r{n}")}, "route": to, "response_headers_to_add": header}),
        json!({"match": {"path": format!("/r{n}-exact")}, "route": to}),
        json!({"match": {"path_separated_prefix": format!("/r{n}-headed"), "headers": [{"name": "x-a", "string_match": {"exact": "1"}}]}, "route": to}),
    ];
    rules.truncate((n % 3) as usize + 1);
    rules
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

/// The value below which so many percent lie.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_that_so_many_do_not_exceed() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((percentile(&values, 50.0), percentile(&values, 99.0)), (100.0, 198.0));
        assert!(percentile(&[], 50.0).is_nan());
    }

    #[test]
    fn both_proxies_are_told_of_the_same_rules() {
        for n in 0..6 {
            let rules = object(n, 3)["spec"]["rules"].as_array().unwrap().len();
            assert_eq!((rules, envoy_routes(n, 3).len()), ((n % 3) as usize + 1, rules));
        }
    }
}
