//! Access control: keys, and the host names for a server without a key.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};

use crate::api_error::ApiError;
use crate::cors;
use crate::routes::is_page;
use crate::state::Site;
use crate::{Options, ServerError};

/// Rules that decide whether a request may pass.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) site: Arc<Site>,
    /// Which names are answered; `None` for all.
    names: Option<Names>,
}

/// The names by which a server may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Names that always mean this machine.
    Loopback,
    /// These names, and numeric addresses: no other machine can use one as its name.
    Numbers,
}

impl Gate {
    /// For a server that listens at `address`; `None` if another program listens and decides.
    pub(crate) fn new(site: Arc<Site>, address: Option<SocketAddr>) -> Self {
        let names = match address {
            Some(address) if site.options.api_key.is_none() => {
                Some(if address.ip().is_loopback() { Names::Loopback } else { Names::Numbers })
            }
            _ => None,
        };
        Self { site, names }
    }

    /// Whether the request may pass.
    pub(crate) fn authorize(&self, request: &Request) -> Result<(), ApiError> {
        let hosts = hosts(request)?;
        if let Some(names) = self.names
            && !hosts.iter().all(|host| names.allow(host, &self.site.options.allow_hosts))
        {
            // A web page that someone opened on this machine can send requests here under a name of its own (DNS
            // rebinding).
            let message = "without an API key this server answers to names of this machine only (localhost, 127.0.0.1) and to \
                those it was started with (--allow-host); start it with a key to call it otherwise";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "permission_error", message).code("host_not_allowed"));
        }
        let Some(key) = &self.site.options.api_key else { return Ok(()) };
        let path = request.uri().path();
        // Health checks need no key, nor do the files of the page, which asks for it; browsers ask without one.
        if path == "/health"
            || cors::is_preflight(request, &self.site.options)
            || is_page(path, &self.site.options)
            || bearer(request.headers()).is_some_and(|given| key.is(given))
        {
            return Ok(());
        }
        let message = "missing or invalid API key: send `Authorization: Bearer KEY`";
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message).code("invalid_api_key"))
    }
}

/// The key that came with a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// The host names in a request: in its first line and in its header. A request without a name is not from a browser.
fn hosts(request: &Request) -> Result<Vec<&str>, ApiError> {
    let wrong = |what| ApiError::invalid(format!("the header Host {what}")).code("invalid_host");
    let mut hosts: Vec<&str> = request.uri().authority().map(|a| a.as_str()).into_iter().collect();
    let mut headers = request.headers().get_all(header::HOST).iter();
    if let Some(host) = headers.next() {
        hosts.push(host.to_str().map_err(|_| wrong("cannot be read: it must be a name or an address in ASCII"))?);
    }
    match headers.next() {
        Some(_) => Err(wrong("comes more than once")),
        None => Ok(hosts),
    }
}

/// The name without its port; `None` if the rest is not a port.
fn without_port(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    port.bytes().all(|b| b.is_ascii_digit()).then_some(name)
}

impl Names {
    /// Whether the server may be called `host`, or by a name in `allowed`.
    fn allow(self, host: &str, allowed: &[String]) -> bool {
        let Some(name) = without_port(host) else { return false };
        let number = || name.parse::<IpAddr>().is_ok_and(|ip| self == Names::Numbers || ip.is_loopback());
        name.eq_ignore_ascii_case("localhost") || number() || allowed.iter().any(|a| a.eq_ignore_ascii_case(name))
    }
}

/// Refuses names that no client can send.
pub(crate) fn check_names(options: &Options) -> Result<(), ServerError> {
    let sendable = |name: &str| {
        let bytes = |extra: &[u8]| name.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b));
        !name.is_empty() && (bytes(b"-._") || name.parse::<IpAddr>().is_ok())
    };
    match options.allow_hosts.iter().find(|name| !sendable(name)) {
        Some(name) => Err(ServerError::HostName { name: name.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn names_of_this_machine_are_known() {
        let allowed = ["box.example".to_owned()];
        let own = ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "127.0.0.2", "[::1]:8080", "[::1]"];
        for name in own.into_iter().chain(["box.example", "Box.Example:80"]) {
            assert!(Names::Loopback.allow(name, &allowed) && Names::Numbers.allow(name, &allowed), "{name}");
        }
        for name in ["192.168.0.1:8080", "[::2]", "[fe80::1]:9"] {
            assert!(!Names::Loopback.allow(name, &allowed) && Names::Numbers.allow(name, &allowed), "{name}");
        }
        let others = ["example.org", "example.org:8080", "localhost.example.org", "", "[", "[::1", "127.0.0.1.nip.io"];
        for name in
            others.into_iter().chain(["localhost:80:evil", "evil@localhost", "localhost:x", "::1", "a.box.example"])
        {
            assert!(!Names::Loopback.allow(name, &allowed) && !Names::Numbers.allow(name, &allowed), "{name}");
        }
    }

    #[test]
    fn a_host_that_cannot_be_read_or_comes_twice_is_refused() {
        let request = |values: &[&[u8]]| {
            let mut request = Request::builder().uri("/health");
            for value in values {
                request = request.header(header::HOST, *value);
            }
            request.body(Body::empty()).unwrap()
        };
        assert_eq!(hosts(&request(&[b"localhost"])).unwrap(), ["localhost"]);
        assert!(hosts(&request(&[])).unwrap().is_empty());
        for wrong in [&[&b"evil\xe9.com"[..]][..], &[b"localhost", b"evil.com"], &[b"localhost", b"localhost"]] {
            assert!(hosts(&request(wrong)).is_err(), "{wrong:?}");
        }
        let both = Request::builder().uri("http://evil.com/health").header(header::HOST, "localhost");
        assert_eq!(hosts(&both.body(Body::empty()).unwrap()).unwrap(), ["evil.com", "localhost"]);
    }

    #[test]
    fn only_names_can_be_allowed() {
        let check = |name: &str| {
            let options = Options { allow_hosts: vec![name.into()], ..Options::default() };
            check_names(&options).is_ok()
        };
        assert!(["box.example", "10.0.0.1", "::1", "my_host"].into_iter().all(check));
        assert!(!["", "http://box", "box:80", "bücher.example", "*", "a b"].into_iter().any(check));
    }

    #[test]
    fn other_names_are_refused_wherever_there_is_no_key() {
        let start = |key: Option<&str>| {
            let options = Options { api_key: key.map(crate::ApiKey::new), ..Options::default() };
            crate::Service::start(bitnet::Model::tiny().unwrap(), options).unwrap().site
        };
        let admits = |site: &Arc<Site>, address: [u8; 4], host: &str| {
            let gate = Gate::new(site.clone(), Some((address, 80).into()));
            let request = Request::builder().uri("/health").header(header::HOST, host).body(Body::empty()).unwrap();
            gate.authorize(&request).is_ok()
        };
        let open = start(None);
        for address in [[127, 0, 0, 1], [0, 0, 0, 0], [192, 168, 0, 1]] {
            assert!(admits(&open, address, "localhost") && !admits(&open, address, "evil.example"), "{address:?}");
            assert_eq!(admits(&open, address, "192.168.0.1:80"), address[0] != 127);
        }
        assert!(admits(&start(Some("k")), [0, 0, 0, 0], "box.example"));
    }
}
