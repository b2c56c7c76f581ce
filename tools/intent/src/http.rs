//! Calls over HTTP/1.1, on a connection that stays open or on a new one for each.

use std::time::Duration;

use ureq::Agent;

use crate::error::IntentError;

/// The largest answer that is read, bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 24;

/// A client of a server with the completions interface.
#[derive(Debug)]
pub struct Client {
    url: String,
    agent: Agent,
}

impl Client {
    /// For `http://HOST:PORT/PATH`; `reconnect` opens a connection for each call instead of one for all.
    ///
    /// # Errors
    /// [`IntentError::Usage`] for another form of address.
    pub fn new(url: &str, reconnect: bool) -> Result<Self, IntentError> {
        let rest = url.strip_prefix("http://");
        let rest = rest.ok_or_else(|| IntentError::Usage(format!("{url}: it must begin with http://")))?;
        if !rest.split('/').next().unwrap_or_default().contains(':') {
            return Err(IntentError::Usage(format!(
                "{url}: a port is missing, as in http://127.0.0.1:8080/v1/completions"
            )));
        }
        let idle = if reconnect { 0 } else { 1 };
        let config = Agent::config_builder()
            // A proxy would be measured instead of the server.
            .proxy(None)
            .http_status_as_error(false)
            .max_idle_connections(idle)
            .max_idle_connections_per_host(idle)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Ok(Self { url: url.to_owned(), agent: config.into() })
    }

    /// Sends `body` and returns the body of the answer.
    ///
    /// # Errors
    /// [`IntentError::Unreadable`] for a connection that fails, an answer that is too large or no text, and a status
    /// other than 200.
    pub fn post(&self, body: &str) -> Result<String, IntentError> {
        let failed = |problem: String| IntentError::unreadable(&self.url, problem);
        let request = self.agent.post(&self.url).content_type("application/json");
        let mut response = request.send(body).map_err(|e| failed(e.to_string()))?;
        let text = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string();
        let text = text.map_err(|e| failed(e.to_string()))?;
        match response.status().as_u16() {
            200 => Ok(text),
            _ => Err(failed(format!("{}: {text}", response.status()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};

    use super::*;

    /// A server that answers `calls` calls, and the number of connections that it took.
    fn serve(answer: &'static str, calls: usize, reconnect: bool) -> (String, std::thread::JoinHandle<usize>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/completions", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut connections, mut served) = (0, 0);
            while served < calls {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                connections += 1;
                let mut line = String::new();
                // A connection without a further request is over.
                while stream.read_line(&mut line).is_ok_and(|n| n > 0) {
                    assert_eq!(line.trim_end(), "POST /v1/completions HTTP/1.1");
                    while line.trim_end() != "" {
                        line.clear();
                        stream.read_line(&mut line).unwrap();
                    }
                    stream.read_exact(&mut [0; 2]).unwrap();
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                    line.clear();
                    served += 1;
                    if served == calls || reconnect {
                        break;
                    }
                }
            }
            connections
        });
        (url, server)
    }

    #[test]
    fn calls_go_over_one_connection_or_over_many() {
        for reconnect in [false, true] {
            let (url, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 3, reconnect);
            let client = Client::new(&url, reconnect).unwrap();
            for _ in 0..3 {
                assert_eq!(client.post("{}").unwrap(), "ok");
            }
            assert_eq!(server.join().unwrap(), if reconnect { 3 } else { 1 });
        }
    }

    #[test]
    fn a_refusal_is_an_error_with_its_text() {
        let (url, server) = serve("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", 1, true);
        let said = Client::new(&url, false).unwrap().post("{}").unwrap_err().to_string();
        assert!(said.contains("404") && said.ends_with("no"), "{said}");
        server.join().unwrap();
        assert!(Client::new("https://x:1/", false).is_err() && Client::new("http://x/", false).is_err());
    }
}
