//! Rewrite: the path of a request after HTTPURLRewriteFilter. It must not rewrite hosts; that is one header.

use super::path::edited;
use crate::{
    mesh::{HttpMatch, Rewrite},
    route::RequestHead,
};
use http::uri::PathAndQuery;

/// The path and query after a rewrite; none: unchanged.
pub fn rewrite_path(rewrite: &Rewrite, head: RequestHead<'_>, condition: &HttpMatch) -> Option<PathAndQuery> {
    let path = edited(rewrite.path.as_ref()?, head.path, condition)?;
    let text = match head.query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    PathAndQuery::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{PathEdit, PathMatch};
    use http::{HeaderMap, Method};

    #[test]
    fn the_query_survives_a_rewrite() {
        let (headers, method) = (HeaderMap::new(), Method::GET);
        let head =
            RequestHead { host: "", method: &method, path: "/prefix/one", query: Some("a=b?c"), headers: &headers };
        let condition =
            HttpMatch { path: PathMatch::Prefix("/prefix".into()), method: None, headers: vec![], query: vec![] };
        let rewrite = |path| Rewrite { hostname: None, path };
        let new = |path| rewrite_path(&rewrite(path), head, &condition).map(|p| p.to_string());
        assert_eq!(new(Some(PathEdit::Prefix("/".into()))).unwrap(), "/one?a=b?c");
        assert_eq!(new(Some(PathEdit::Full("/two".into()))).unwrap(), "/two?a=b?c");
        assert_eq!(new(None), None);
    }
}
