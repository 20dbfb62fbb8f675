//! Settings of the process: flags and environment as they were given, then checked, all errors at once. It must not hold settings of the mesh; `MeshParameters` does.

use clap::Parser;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// First stage: what was given.
#[derive(Debug, Parser)]
#[command(name = "mesh-controller", version, about = "Plans the mesh and streams each proxy what it needs")]
pub struct Flags {
    /// Folder of YAML or JSON files to read and watch; several: an object in a later one replaces the same object in an earlier one
    #[arg(long = "folder", env = "HEDDLE_FOLDER", value_name = "DIR", value_delimiter = ',', required = true)]
    pub folders: Vec<PathBuf>,
    /// Folder that holds the root certificate and key of the mesh
    #[arg(long, env = "HEDDLE_STATE", value_name = "DIR")]
    pub state: PathBuf,
    /// Address that proxies connect to
    #[arg(long, env = "HEDDLE_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:15010")]
    pub listen: String,
    /// Address of the admin server
    #[arg(long, env = "HEDDLE_ADMIN", value_name = "IP:PORT", default_value = "127.0.0.1:15014")]
    pub admin: String,
    /// File of lines TOKEN PROXYNAME; read anew for each caller
    #[arg(long, env = "HEDDLE_TOKENS", value_name = "FILE")]
    pub tokens: PathBuf,
    /// File to which the statuses of all objects are written
    #[arg(long, env = "HEDDLE_STATUS_FILE", value_name = "FILE")]
    pub status_file: PathBuf,
    /// Name of the XMesh that this controller runs
    #[arg(long, env = "HEDDLE_MESH_NAME", value_name = "NAME", default_value = "heddle")]
    pub mesh_name: String,
    /// Filter of the process's own log
    #[arg(long, env = "HEDDLE_LOG", value_name = "DIRECTIVES", default_value = "info")]
    pub log: String,
}

/// Second stage: what can be worked with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where objects come from; at least one.
    pub folders: Vec<PathBuf>,
    /// Of the authority.
    pub state: PathBuf,
    /// For proxies.
    pub listen: SocketAddr,
    /// For people and scrapers.
    pub admin: SocketAddr,
    /// See [`crate::authenticate::TokenFile`].
    pub tokens: PathBuf,
    /// See [`crate::status::StatusFile`].
    pub status_file: PathBuf,
    /// Name of the XMesh.
    pub mesh_name: String,
    /// Directives of the log.
    pub log: String,
}

/// All that is wrong with the flags.
#[derive(Debug, PartialEq, thiserror::Error)]
pub struct BadSettings(pub Vec<String>);

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Settings {
    /// Checks the flags; says everything that is wrong with them. It looks at folders, so that a mistyped one is named before anything starts.
    pub fn check(flags: Flags) -> Result<Self, BadSettings> {
        let mut wrong = Vec::new();
        for folder in flags.folders.iter().filter(|folder| !folder.is_dir()) {
            wrong.push(format!("--folder {}: is not a folder", folder.display()));
        }
        for (i, folder) in flags.folders.iter().enumerate() {
            if flags.folders[..i].contains(folder) {
                wrong.push(format!("--folder {}: is given twice", folder.display()));
            }
        }
        let mut address = |flag: &str, text: &str| match text.parse::<SocketAddr>() {
            Ok(address) => address,
            Err(_) => {
                wrong.push(format!("{flag} {text}: is not of the form IP:PORT"));
                SocketAddr::from(([0; 4], 0))
            }
        };
        let (listen, admin) = (address("--listen", &flags.listen), address("--admin", &flags.admin));
        if listen == admin && listen.port() != 0 {
            wrong.push(format!("--admin {admin}: is the address of --listen"));
        }
        if flags.status_file.file_name().is_none() || flags.status_file.is_dir() {
            wrong.push(format!("--status-file {}: is not a file name", flags.status_file.display()));
        } else if flags.folders.iter().any(|folder| flags.status_file.starts_with(folder)) {
            // Written at each change of a folder, it would be read as a change.
            wrong.push(format!("--status-file {}: must not lie in a --folder", flags.status_file.display()));
        }
        let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        if flags.mesh_name.is_empty() || !flags.mesh_name.bytes().all(name) {
            wrong.push(format!("--mesh-name {:?}: is not the name of an object", flags.mesh_name));
        }
        if !wrong.is_empty() {
            return Err(BadSettings(wrong));
        }
        Ok(Self {
            folders: flags.folders,
            state: flags.state,
            listen,
            admin,
            tokens: flags.tokens,
            status_file: flags.status_file,
            mesh_name: flags.mesh_name,
            log: flags.log,
        })
    }

    /// Addresses that our server certificate must name: the one we listen at, or loopback if that is any.
    pub fn server_addresses(&self) -> Vec<IpAddr> {
        match self.listen.ip() {
            any if any.is_unspecified() => vec![[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()],
            ip => vec![ip],
        }
    }
}

#[cfg(test)]
mod tests {
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
        ]);
        assert_eq!(
            bad.unwrap_err().to_string().lines().collect::<Vec<_>>(),
            [
                "--folder /no/such: is not a folder".to_owned(),
                format!("--folder {folder}: is given twice"),
                "--listen localhost:1: is not of the form IP:PORT".into(),
                "--admin 1.2.3.4: is not of the form IP:PORT".into(),
                format!("--status-file {status}: must not lie in a --folder"),
                "--mesh-name \"A b\": is not the name of an object".into(),
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
    }

    #[test]
    fn missing_flags_are_named_together() {
        let error = Flags::try_parse_from(["mesh-controller"]).unwrap_err().to_string();
        for flag in ["--folder <DIR>", "--state <DIR>", "--tokens <FILE>", "--status-file <FILE>"] {
            assert!(error.contains(flag), "{error}");
        }
    }
}
