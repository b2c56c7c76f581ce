//! The page at `/`: a front end for browsers, built from `web/` into the folder `page` of this crate and embedded.
//!
//! It is a client like any other: its files are the same for everyone, and its requests pass the same rules.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;

use crate::routes::Route;

/// The rules that a browser applies to the page: scripts, styles and requests of this server only; no inline script and
/// no inline style; no frame around it; no text becomes markup (Trusted Types without any policy).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// Headers of every file.
fn headers() -> [(HeaderName, &'static str); 7] {
    [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // Another version of the program may have another page.
        (header::CACHE_CONTROL, "no-cache"),
    ]
}

/// A file of the page.
struct File {
    kind: &'static str,
    bytes: &'static [u8],
}

static INDEX: File = File { kind: "text/html; charset=utf-8", bytes: include_bytes!("../page/index.html") };
static SCRIPT: File = File { kind: "text/javascript; charset=utf-8", bytes: include_bytes!("../page/assets/app.js") };
static STYLE: File = File { kind: "text/css; charset=utf-8", bytes: include_bytes!("../page/assets/app.css") };
static ICON: File = File { kind: "image/svg+xml", bytes: include_bytes!("../page/assets/icon.svg") };

/// The files by their paths.
pub(crate) static ROUTES: &[Route] = &[
    Route::get("/", "/", || get(async |headers: HeaderMap| INDEX.answer(&headers))),
    Route::get("/assets/app.js", "/assets", || get(async |headers: HeaderMap| SCRIPT.answer(&headers))),
    Route::get("/assets/app.css", "/assets", || get(async |headers: HeaderMap| STYLE.answer(&headers))),
    Route::get("/assets/icon.svg", "/assets", || get(async |headers: HeaderMap| ICON.answer(&headers))),
];

impl File {
    /// The name of these bytes; the same in every process of one program.
    fn tag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }

    /// The file, or only its name if the browser has it.
    fn answer(&self, request: &HeaderMap) -> Response {
        let tag = self.tag();
        let known = request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let mut response = Response::new(if known { Body::empty() } else { Body::from(self.bytes) });
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.extend(self::headers().map(|(name, value)| (name, HeaderValue::from_static(value))));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.extend(HeaderValue::try_from(tag).ok().map(|tag| (header::ETAG, tag)));
        response
    }
}
