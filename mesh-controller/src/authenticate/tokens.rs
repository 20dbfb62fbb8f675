//! The playground's way to know a caller: a file of tokens. It must not hold anything between two callers.

use super::{Authenticate, Unauthenticated};
use mesh_core::name::ProxyName;
use std::{io, path::PathBuf};

/// Largest token file: 10,000 proxies with 64-byte tokens and long names stay below it.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Shortest token that is taken: 16 random bytes in base64 are longer.
const TOKEN_MIN: usize = 16;

/// `--tokens FILE`: lines `TOKEN PROXYNAME`; empty lines and lines that begin with `#` say nothing. Read anew for each caller, so that a change counts at once.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// Tokens of a file, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    async fn read(&self) -> io::Result<String> {
        let size = tokio::fs::metadata(&self.path).await?.len();
        if size > FILE_MAX {
            return Err(io::Error::other(format!("is {size} bytes long, more than {FILE_MAX}")));
        }
        tokio::fs::read_to_string(&self.path).await
    }
}

#[tonic::async_trait]
impl Authenticate for TokenFile {
    async fn authenticate(&self, token: &str) -> Result<ProxyName, Unauthenticated> {
        let text = self
            .read()
            .await
            .map_err(|source| Unauthenticated::Unreadable { path: self.path.clone(), source: source.into() })?;
        // Broken lines authenticate nobody and are reported by `check`; the others still count.
        entries(&text)
            .filter_map(|(_, entry)| entry.ok())
            .filter(|(known, _)| same(known.as_bytes(), token.as_bytes()))
            .map(|(_, proxy)| proxy)
            .last()
            .ok_or(Unauthenticated::UnknownToken)
    }
}

/// The broken lines of a token file: line number and what is wrong.
pub fn check(text: &str) -> Vec<(usize, String)> {
    entries(text).filter_map(|(line, entry)| Some((line, entry.err()?))).collect()
}

fn entries(text: &str) -> impl Iterator<Item = (usize, Result<(&str, ProxyName), String>)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(i, line)| (i, entry(line)))
}

fn entry(line: &str) -> Result<(&str, ProxyName), String> {
    let mut words = line.split_whitespace();
    let (Some(token), Some(proxy), None) = (words.next(), words.next(), words.next()) else {
        return Err("is not TOKEN PROXYNAME".into());
    };
    if token.len() < TOKEN_MIN {
        return Err(format!("token is shorter than {TOKEN_MIN} bytes"));
    }
    let proxy = proxy.parse().map_err(|_| format!("{proxy:?} is not node/NAME or gateway/NAMESPACE/NAME"))?;
    Ok((token, proxy))
}

/// Equal, in a time that says nothing about where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_one_proxy_and_a_changed_file_counts_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let tokens = TokenFile::new(&path);
        assert!(matches!(tokens.authenticate("0123456789abcdef").await, Err(Unauthenticated::Unreadable { .. })));
        std::fs::write(&path, "# a comment\n0123456789abcdef node/n1\nbroken\n").unwrap();
        assert_eq!(tokens.authenticate("0123456789abcdef").await.unwrap(), ProxyName::Node("n1".into()));
        for wrong in ["", "0123456789abcde", "0123456789abcdeF", "node/n1"] {
            assert!(matches!(tokens.authenticate(wrong).await, Err(Unauthenticated::UnknownToken)), "{wrong}");
        }
        std::fs::write(&path, "fedcba9876543210 gateway/shop/front\n").unwrap();
        assert!(tokens.authenticate("0123456789abcdef").await.is_err());
        assert_eq!(tokens.authenticate("fedcba9876543210").await.unwrap().to_string(), "gateway/shop/front");
    }

    #[test]
    fn broken_lines_are_named() {
        let text = "short node/n1\n0123456789abcdef pod/x\n0123456789abcdef\n0123456789abcdef node/n1 more\n\n0123456789abcdef node/n1\n";
        assert_eq!(
            check(text),
            [
                (1, "token is shorter than 16 bytes".to_owned()),
                (2, "\"pod/x\" is not node/NAME or gateway/NAMESPACE/NAME".to_owned()),
                (3, "is not TOKEN PROXYNAME".to_owned()),
                (4, "is not TOKEN PROXYNAME".to_owned()),
            ]
        );
    }
}
