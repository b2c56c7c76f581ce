//! Requests: redirects by hand, so that the token stays with the server it is for; bounded retries; typed errors.

use std::time::Duration;

use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::settings::Settings;
use super::{HubError, PullOptions};

/// Redirects that are followed; hubs need two.
const MAX_REDIRECTS: usize = 8;
/// Longest wait that a server can ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Longest list of files.
const MAX_LISTING_BYTES: u64 = 64 << 20;

/// Purpose of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Headers only, without following redirects to other servers: the hub's own headers are needed.
    Head,
    /// The content, from a byte on.
    Get { from: u64 },
}

/// A client for one server.
#[derive(Debug)]
pub(super) struct Http {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    attempts: u32,
    wait: Duration,
}

/// Scheme, host and port.
fn origin(uri: &Uri) -> Option<(&str, &str, u16)> {
    let scheme = uri.scheme_str()?;
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?, port))
}

/// The target of a redirect, including relative ones.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let target: Uri = location.parse().ok()?;
    if target.scheme().is_some() {
        return Some(target);
    }
    // "//host/path", "/path" and "path".
    let scheme = base.scheme_str()?;
    if location.starts_with("//") {
        return format!("{scheme}:{location}").parse().ok();
    }
    let authority = base.authority()?;
    let path = match location.strip_prefix('/') {
        Some(path) => path.to_owned(),
        None => {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{}/{location}", folder.trim_start_matches('/')).trim_start_matches('/').to_owned()
        }
    };
    format!("{scheme}://{authority}/{path}").parse().ok()
}

/// A header as text.
pub(super) fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// The certificates of `SSL_CERT_FILE`, which networks with their own authority set.
fn own_roots() -> Option<RootCerts> {
    let file = std::path::PathBuf::from(std::env::var_os("SSL_CERT_FILE")?);
    let pem = crate::files::read(&file, crate::files::Kind::new("a list of certificates", 64 << 20)).ok()?;
    let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    (!certificates.is_empty()).then(|| RootCerts::from(certificates))
}

impl Http {
    /// A client with the time limits of the options.
    pub(super) fn new(settings: &Settings, options: &PullOptions) -> Self {
        let mut tls = TlsConfig::builder();
        if settings.endpoint.starts_with("https:")
            && let Some(roots) = own_roots()
        {
            tls = tls.root_certs(roots);
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .user_agent(concat!("bitnet-loader/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(options.timeout))
            .timeout_recv_response(Some(options.timeout))
            // No limit on a whole body, which may take hours, but on every pause in it.
            .timeout_per_read(Some(options.timeout))
            .build()
            .into();
        Self {
            agent,
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            attempts: options.retries.saturating_add(1),
            wait: options.retry_wait,
        }
    }

    /// The server.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The maximum number of times that a request is sent.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Something the server said that makes no sense.
    pub(super) fn bad_response(&self, what: &str, detail: impl Into<String>) -> HubError {
        HubError::BadResponse { what: what.to_owned(), detail: detail.into(), endpoint: self.endpoint.clone() }
    }

    /// Waits before attempt `number` (from 1): longer every time, or as long as the server requests.
    pub(super) fn pause(&self, number: u32, asked: Option<Duration>) {
        let wait = self.wait.saturating_mul(1 << number.saturating_sub(1).min(10));
        std::thread::sleep(asked.unwrap_or(wait).min(MAX_WAIT));
    }

    /// Sends a request once, following redirects. Any status below 400 and 416 are answers, the others errors.
    fn once(&self, url: &str, method: Method, what: &str) -> Result<Response<Body>, HubError> {
        let mut uri: Uri = url.parse().map_err(|_| self.bad_response(what, format!("{url:?} is not a valid URL")))?;
        let home: Option<Uri> = self.endpoint.parse().ok();
        for _ in 0..MAX_REDIRECTS {
            let at_home = home.as_ref().and_then(origin) == origin(&uri);
            let mut request = match method {
                Method::Head => self.agent.head(&uri),
                Method::Get { .. } => self.agent.get(&uri),
            };
            if let Some(token) = self.token.as_deref().filter(|_| at_home) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if let Method::Get { from } = method
                && from > 0
            {
                request = request.header("Range", format!("bytes={from}-"));
            }
            // The bytes on the wire must be those of the file: a compressed body has no ranges.
            request = request.header("Accept-Encoding", "identity");
            let response = request.call().map_err(|error| self.failed(what, error))?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return self.checked(response, what);
            }
            let target = header(&response, "location").and_then(|location| resolve(&uri, location));
            let target = target.ok_or_else(|| self.bad_response(what, "a redirect to nowhere"))?;
            let leaves = home.as_ref().and_then(origin) != origin(&target);
            if method == Method::Head && (leaves || header(&response, "x-linked-etag").is_some()) {
                return Ok(response);
            }
            if uri.scheme_str() == Some("https") && target.scheme_str() != Some("https") {
                return Err(self.bad_response(what, "a redirect from https to http"));
            }
            uri = target;
        }
        Err(self.bad_response(what, "too many redirects"))
    }

    /// Sends a request until it is answered, repeating it as often as allowed if the failure may be temporary.
    pub(super) fn send(&self, url: &str, method: Method, what: &str) -> Result<Response<Body>, HubError> {
        let mut number = 1;
        loop {
            match self.once(url, method, what) {
                Err(error) if number < self.attempts && passes(&error) => {
                    self.pause(number, None);
                    number = number.saturating_add(1);
                }
                other => return other,
            }
        }
    }

    /// The JSON of an address.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, url: &str, what: &str) -> Result<T, HubError> {
        let mut number = 1;
        loop {
            let mut response = self.send(url, Method::Get { from: 0 }, what)?;
            match response.body_mut().with_config().limit(MAX_LISTING_BYTES).read_to_vec() {
                Ok(bytes) => {
                    return serde_json::from_slice(&bytes).map_err(|error| self.bad_response(what, error.to_string()));
                }
                Err(error) => {
                    let error = self.failed(what, error);
                    if number >= self.attempts || !passes(&error) {
                        return Err(error);
                    }
                    self.pause(number, None);
                    number = number.saturating_add(1);
                }
            }
        }
    }

    /// Turns statuses into errors.
    fn checked(&self, response: Response<Body>, what: &str) -> Result<Response<Body>, HubError> {
        let status = response.status().as_u16();
        let repo = || what.split_once(": ").map_or(what, |(repo, _)| repo).to_owned();
        match (status, header(&response, "x-error-code")) {
            (200..=299 | 416, _) => Ok(response),
            (401 | 403, Some("GatedRepo")) => Err(HubError::Gated { repo: repo(), endpoint: self.endpoint.clone() }),
            (401, _) => Err(HubError::Unauthorized {
                repo: repo(),
                hint: match self.token.is_some() {
                    true => "the token may not read it, or is no longer valid",
                    false => "for a private one set HF_TOKEN",
                },
            }),
            (403, _) => Err(HubError::Forbidden { what: what.to_owned() }),
            (404 | 410, code) => {
                let what = match code {
                    Some("RevisionNotFound") => format!("the revision of {what}"),
                    _ => what.to_owned(),
                };
                Err(HubError::NotFound { what, endpoint: self.endpoint.clone() })
            }
            _ => Err(HubError::Status { what: what.to_owned(), status }),
        }
    }

    /// Turns troubles of the transport into errors.
    pub(super) fn failed(&self, what: &str, error: ureq::Error) -> HubError {
        let what = what.to_owned();
        match error {
            ureq::Error::Timeout(part) => HubError::Timeout { what, reason: part.to_string() },
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                HubError::Timeout { what, reason: error.to_string() }
            }
            ureq::Error::BodyExceedsLimit(limit) => {
                self.bad_response(&what, format!("the answer is longer than {limit} bytes"))
            }
            error @ (ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::BadUri(_)) => {
                self.bad_response(&what, error.to_string())
            }
            error => HubError::Unreachable { what, reason: error.to_string() },
        }
    }
}

/// Whether a failure may be temporary.
pub(super) fn passes(error: &HubError) -> bool {
    match error {
        HubError::Timeout { .. } | HubError::Unreachable { .. } => true,
        HubError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved() {
        let base: Uri = "http://h:1/a/b?x=1".parse().expect("address");
        for (location, expected) in [
            ("http://o/p?q", "http://o/p?q"),
            ("/p?q=1", "http://h:1/p?q=1"),
            ("p", "http://h:1/a/p"),
            ("//o/p", "http://o/p"),
        ] {
            assert_eq!(resolve(&base, location).map(|uri| uri.to_string()).as_deref(), Some(expected));
        }
    }

    #[test]
    fn origins_differ_by_port_and_scheme() {
        let of =
            |text: &str| text.parse::<Uri>().ok().and_then(|uri| origin(&uri).map(|(s, h, p)| format!("{s} {h} {p}")));
        assert_eq!(of("https://h/a"), of("https://h:443/b"));
        assert_ne!(of("https://h"), of("http://h"));
        assert_ne!(of("http://h:1"), of("http://h:2"));
    }
}
