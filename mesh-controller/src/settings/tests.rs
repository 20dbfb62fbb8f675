//! What is said of wrong flags. Given values win over the environment's, so that a HOSTNAME of the machine does not matter.

use super::*;

fn check(flags: &[&str]) -> Result<Settings, BadSettings> {
    let program = std::iter::once("mesh-controller");
    Settings::check(Flags::try_parse_from(program.chain(flags.iter().copied())).expect("known flags"))
}

#[test]
fn all_errors_are_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let status = format!("{folder}/status.json");
    let bad = check(&[
        "--folder",
        folder,
        "--folder",
        folder,
        "--folder",
        "/no/such",
        "--state",
        "/s",
        "--tokens",
        "/t",
        "--status-file",
        &status,
        "--listen",
        "localhost:1",
        "--admin",
        "1.2.3.4",
        "--mesh-name",
        "A b",
        "--token-audience",
        "x",
    ]);
    assert_eq!(
        bad.unwrap_err().to_string().lines().collect::<Vec<_>>(),
        [
            "--listen localhost:1: is not of the form IP:PORT".to_owned(),
            "--admin 1.2.3.4: is not of the form IP:PORT".into(),
            "--mesh-name \"A b\": is not the name of an object".into(),
            "--token-audience: needs --kubernetes".into(),
            "--folder /no/such: is not a folder".into(),
            format!("--folder {folder}: is given twice"),
            format!("--status-file {status}: must not lie in a --folder"),
        ]
    );
    let same = check(&[
        "--folder",
        folder,
        "--state",
        "/s",
        "--tokens",
        "/t",
        "--status-file",
        "/x/y",
        "--admin",
        "127.0.0.1:15010",
    ]);
    assert_eq!(same.unwrap_err().to_string(), "--admin 127.0.0.1:15010: is the address of --listen");
    let good = check(&["--folder", folder, "--state", "/s", "--tokens", "/t", "--status-file", "/x/y"]).unwrap();
    assert_eq!((good.listen.port(), good.admin.port(), &*good.mesh_name), (15010, 15014, "heddle"));
    assert_eq!(good.server_names(), ["mesh-controller"]);
}

#[test]
fn missing_flags_are_named_together() {
    let error = check(&[]).unwrap_err().to_string();
    assert_eq!(
        error.lines().collect::<Vec<_>>(),
        [
            "--folder <DIR> or --kubernetes: is required",
            "--state <DIR>: is required with --folder",
            "--tokens <FILE>: is required with --folder",
            "--status-file <FILE>: is required with --folder",
        ]
    );
}

#[test]
fn a_cluster_and_folders_exclude_each_other() {
    let bad = check(&[
        "--kubernetes",
        "--folder",
        "/a",
        "--state",
        "/s",
        "--tokens",
        "/t",
        "--status-file",
        "/x/y",
        "--namespace",
        "A",
        "--token-audience",
        "",
        "--node-service-account",
        "mesh-proxy",
        "--exclude-namespaces",
        "kube-system,a.b",
        "--replica",
        "a b",
    ]);
    assert_eq!(
        bad.unwrap_err().to_string().lines().collect::<Vec<_>>(),
        [
            "--folder: cannot be used with --kubernetes",
            "--state: cannot be used with --kubernetes",
            "--tokens: cannot be used with --kubernetes",
            "--status-file: cannot be used with --kubernetes",
            "--namespace \"A\": is not the name of a namespace",
            "--token-audience: must not be empty, or tokens made for others would be taken",
            "--node-service-account mesh-proxy: is not of the form NAMESPACE/NAME",
            "--exclude-namespaces \"a.b\": is not the name of a namespace",
            "--replica: is required (in a pod, HOSTNAME says it), and must be like the name of a pod",
        ]
    );
}

#[test]
fn a_cluster_has_defaults_that_follow_its_namespace() {
    let good = check(&["--kubernetes", "--namespace", "mesh", "--replica", "mesh-controller-0"]).unwrap();
    let World::Kubernetes(cluster) = &good.world else { panic!("{good:?}") };
    assert_eq!(cluster.node_service_account, NsName::new("mesh", "mesh-proxy"));
    assert_eq!(cluster.excluded, BTreeSet::from(["kube-system".to_owned(), "mesh".to_owned()]));
    assert_eq!(cluster.token_audience, "heddle");
    assert_eq!(good.log, "info,kube_client::client::builder=off");
    assert_eq!(good.server_names()[2], "mesh-controller.mesh.svc");
    let none = check(&["--kubernetes", "--exclude-namespaces", "", "--replica", "r"]).unwrap();
    let World::Kubernetes(cluster) = &none.world else { panic!("{none:?}") };
    assert!(cluster.excluded.is_empty() && cluster.namespace == "heddle-system");
}
