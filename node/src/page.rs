//! The two pages that every node serves out of its own binary: the chat page on the public port, and the operators' page on
//! theirs. Their sources are `node/page/`: plain modules, styles and HTML, as the browser runs them.
//!
//! Knows nothing of conversations: the pages speak the public API, and `/cluster` and `/metrics`, like any other client.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use crate::http::ApiError;

/// Nothing but this node's own files runs, nothing is loaded from elsewhere, and text becomes elements through the sanitizer
/// alone (its trusted-types policy is the only one).
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types dompurify";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of a page, as it is sent.
#[derive(Clone)]
struct File {
    kind: HeaderValue,
    tag: HeaderValue,
    bytes: &'static [u8],
}

#[derive(Clone)]
struct Pages(Arc<BTreeMap<&'static str, File>>);

/// Files by their paths under `/page/`, each with its type.
macro_rules! files {
    ($($kind:ident: $($path:literal)+;)+) => {
        [$($(($path, $kind, include_bytes!(concat!("../page/", $path)).as_slice()),)+)+]
    };
}

/// The chat page: `/`, and its files under `/page/`.
pub fn chat<S: Clone + Send + Sync + 'static>() -> Router<S> {
    router(
        "chat/index.html",
        &files! {
            HTML: "chat/index.html";
            SVG: "style/icon.svg";
            CSS: "style/base.css" "style/chat.css" "style/thread.css" "style/dialogs.css";
            SCRIPT: "chat/theme.js" "chat/main.js" "chat/api.js" "chat/composer.js" "chat/credentials.js" "chat/dialogs.js" "chat/dom.js"
                "chat/drafts.js" "chat/events.js" "chat/failure.js" "chat/icons.js" "chat/keys.js" "chat/markdown.js" "chat/message.js"
                "chat/notices.js" "chat/session.js" "chat/sidebar.js" "chat/thread.js" "chat/thread_view.js" "chat/turn.js"
                "vendor/marked.esm.js" "vendor/purify.es.mjs";
        },
    )
}

/// The operators' page, likewise.
pub fn operators<S: Clone + Send + Sync + 'static>() -> Router<S> {
    router(
        "operators/index.html",
        &files! {
            HTML: "operators/index.html";
            SVG: "style/icon.svg";
            CSS: "style/base.css" "style/operators.css";
            SCRIPT: "chat/theme.js" "chat/dom.js" "operators/main.js" "operators/metrics.js" "operators/shards.js" "operators/nodes.js"
                "operators/history.js";
        },
    )
}

fn router<S: Clone + Send + Sync + 'static>(
    index: &'static str,
    files: &[(&'static str, &'static str, &'static [u8])],
) -> Router<S> {
    let file = |(path, kind, bytes): &(&'static str, &'static str, &'static [u8])| (*path, File::new(kind, bytes));
    let pages = Pages(Arc::new(files.iter().map(file).collect()));
    let named =
        async |State(pages): State<Pages>, headers: HeaderMap, Path(path): Path<String>| pages.show(&path, &headers);
    let first = async move |State(pages): State<Pages>, headers: HeaderMap| pages.show(index, &headers);
    Router::new().route("/", get(first)).route("/page/{*path}", get(named)).with_state(pages)
}

impl Pages {
    fn show(&self, path: &str, asked: &HeaderMap) -> Response {
        match self.0.get(path) {
            Some(file) => file.show(asked),
            None => ApiError::no_route().into_response(),
        }
    }
}

impl File {
    fn new(kind: &'static str, bytes: &'static [u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let tag = HeaderValue::from_str(&format!("\"{hex}\"")).expect("hex digits are fit for a header");
        Self { kind: HeaderValue::from_static(kind), tag, bytes }
    }

    /// Asked for again each time, and sent only where it changed: nodes of two versions stand side by side during an upgrade.
    fn show(&self, asked: &HeaderMap) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.kind.clone()),
            (header::ETAG, self.tag.clone()),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY)),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        ];
        match self.is_known(asked) {
            true => (StatusCode::NOT_MODIFIED, headers).into_response(),
            false => (headers, self.bytes).into_response(),
        }
    }

    /// A proxy that compresses makes the tag a weak one.
    fn is_known(&self, asked: &HeaderMap) -> bool {
        let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut tags = known.flat_map(|value| value.split(',')).map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == self.tag.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn get_with(router: Router, path: &str, known: Option<&str>) -> Response {
        let mut request = Request::get(path);
        if let Some(known) = known {
            request = request.header("if-none-match", known);
        }
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_page_is_sent_once_and_then_only_asked_for() {
        for router in [chat(), operators()] {
            let first = get_with(router.clone(), "/", None).await;
            assert_eq!((first.status(), &first.headers()["content-type"]), (StatusCode::OK, &HTML.parse().unwrap()));
            let tag = first.headers()["etag"].to_str().unwrap().to_owned();
            for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
                let again = get_with(router.clone(), "/", Some(&known)).await;
                assert_eq!(
                    (again.status(), again.headers()["etag"].to_str().unwrap()),
                    (StatusCode::NOT_MODIFIED, &*tag)
                );
                assert!(again.headers().contains_key("content-security-policy"), "{known}");
            }
            assert_eq!(get_with(router, "/", Some("\"other\"")).await.status(), StatusCode::OK);
        }
    }

    #[tokio::test]
    async fn nothing_inline_may_run() {
        for router in [chat(), operators()] {
            let first = get_with(router, "/", None).await;
            let policy = first.headers()["content-security-policy"].to_str().unwrap().to_owned();
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            let html = text(first).await;
            assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains("<script>"), "{html}");
        }
    }

    /// Every file that the pages name is served, and each that is in the binary is named by one of them.
    #[tokio::test]
    async fn the_files_are_those_that_the_pages_name() {
        for (router, index) in [(chat(), "chat/index.html"), (operators(), "operators/index.html")] {
            let (mut named, mut unread) = (BTreeSet::new(), vec![index.to_owned()]);
            while let Some(path) = unread.pop() {
                if !named.insert(path.clone()) {
                    continue;
                }
                let answer = get_with(router.clone(), &format!("/page/{path}"), None).await;
                assert_eq!(answer.status(), StatusCode::OK, "{path}");
                let text = text(answer).await;
                unread.extend(named_in(&path, &text));
            }
            let all = embedded(index);
            assert_eq!(named.iter().map(String::as_str).collect::<Vec<_>>(), all);
        }
    }

    fn embedded(index: &str) -> Vec<&'static str> {
        let source = include_str!("page.rs");
        let list = source.split(&format!("HTML: \"{index}\"")).nth(1).unwrap().split("},").next().unwrap();
        let mut paths: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        paths.push(if index.starts_with("chat") { "chat/index.html" } else { "operators/index.html" });
        paths.sort_unstable();
        paths
    }

    fn named_in(path: &str, text: &str) -> Vec<String> {
        if path.starts_with("vendor/") {
            return Vec::new();
        }
        let folder = path.split('/').next().unwrap();
        let absolute = text.split("\"/page/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        let imports = text.split("from '").skip(1).map(|rest| rest.split('\'').next().unwrap());
        let relative = imports.map(|import| match import.strip_prefix("../") {
            Some(rest) => rest.to_owned(),
            None => format!("{folder}/{}", import.trim_start_matches("./")),
        });
        absolute.chain(relative).collect()
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_found() {
        for path in ["/page/", "/page/chat/../../Cargo.toml", "/page/vendor/README.md", "/page/operators/main.js"] {
            assert_eq!(get_with(chat(), path, None).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(get_with(operators(), "/page/chat/main.js", None).await.status(), StatusCode::NOT_FOUND);
    }
}
