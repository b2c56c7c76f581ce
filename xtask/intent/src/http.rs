//! The same calls over HTTP/1.1: as little of a client as there can be, so that the server is what is measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::error::IntentError;

/// The largest answer that is read, bytes.
const MOST_BYTES: usize = 1 << 24;

/// A connection to a server that speaks the completions interface.
#[derive(Debug)]
pub struct Client {
    host: String,
    path: String,
    connection: Option<BufReader<TcpStream>>,
    /// A new connection for each call instead of one for all.
    pub reconnect: bool,
}

impl Client {
    /// For `http://HOST:PORT/PATH`.
    ///
    /// # Errors
    /// Another form of address.
    pub fn new(url: &str, reconnect: bool) -> Result<Self, IntentError> {
        let rest = url.strip_prefix("http://");
        let rest = rest.ok_or_else(|| IntentError::Usage(format!("{url}: it must begin with http://")))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !host.contains(':') {
            return Err(IntentError::Usage(format!(
                "{url}: a port is missing, as in http://127.0.0.1:8080/v1/completions"
            )));
        }
        Ok(Self { host: host.to_owned(), path: format!("/{path}"), connection: None, reconnect })
    }

    /// Sends `body` and returns the body of the answer.
    ///
    /// # Errors
    /// A connection that fails, an answer that is not HTTP or no success.
    pub fn post(&mut self, body: &str) -> Result<String, IntentError> {
        let io = || IntentError::io(&self.host);
        let mut connection = match self.connection.take() {
            Some(open) => open,
            None => {
                let stream = TcpStream::connect(&self.host).map_err(io())?;
                stream.set_nodelay(true).map_err(io())?;
                stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(io())?;
                BufReader::new(stream)
            }
        };
        let close = if self.reconnect { "close" } else { "keep-alive" };
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {close}\r\n\r\n{body}",
            self.path,
            self.host,
            body.len()
        );
        connection.get_mut().write_all(request.as_bytes()).map_err(io())?;
        let (text, stays) = read_answer(&mut connection).map_err(|problem| match problem {
            Problem::Io(e) => IntentError::io(&self.host)(e),
            Problem::Said(what) => IntentError::unreadable(format!("http://{}{}", self.host, self.path), what),
        })?;
        if stays && !self.reconnect {
            self.connection = Some(connection);
        }
        Ok(text)
    }
}

enum Problem {
    Io(std::io::Error),
    Said(String),
}

impl From<std::io::Error> for Problem {
    fn from(e: std::io::Error) -> Self {
        Self::Io(e)
    }
}

/// The body of an answer, and whether the connection stays open.
fn read_answer(from: &mut dyn BufRead) -> Result<(String, bool), Problem> {
    let said = |what: &str| Problem::Said(what.to_owned());
    let status = line(from)?;
    let code = status.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut chunked, mut stays) = (None, false, true);
    loop {
        let header = line(from)?.to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        match header.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("content-length", n)) => {
                length = Some(n.parse::<usize>().map_err(|_| said("a length that is no number"))?)
            }
            Some(("transfer-encoding", "chunked")) => chunked = true,
            Some(("connection", "close")) => stays = false,
            _ => {}
        }
    }
    let mut body = Vec::new();
    let mut take = |from: &mut dyn BufRead, n: usize| -> Result<(), Problem> {
        if body.len().saturating_add(n) > MOST_BYTES {
            return Err(said("an answer of more than 16 MiB"));
        }
        let at = body.len();
        body.resize(at + n, 0);
        Ok(from.read_exact(&mut body[at..])?)
    };
    if chunked {
        loop {
            let size = line(from)?;
            let size = size.split(';').next().unwrap_or_default();
            let n = usize::from_str_radix(size.trim(), 16).map_err(|_| said("a chunk without a size"))?;
            take(from, n)?;
            line(from)?;
            if n == 0 {
                break;
            }
        }
    } else {
        take(from, length.ok_or_else(|| said("an answer without a length"))?)?;
    }
    let text = String::from_utf8(body).map_err(|_| said("an answer that is no text"))?;
    if code != "200" {
        return Err(Problem::Said(format!("{status}: {text}")));
    }
    Ok((text, stays))
}

/// A line without its end.
fn line(from: &mut dyn BufRead) -> Result<String, Problem> {
    let mut line = String::new();
    if Read::take(from, 1 << 16).read_line(&mut line)? == 0 {
        return Err(Problem::Said("the connection was closed before an answer".into()));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<(String, bool), String> {
        read_answer(&mut text.as_bytes()).map_err(|e| match e {
            Problem::Io(e) => e.to_string(),
            Problem::Said(what) => what,
        })
    }

    #[test]
    fn answers_of_both_forms_are_read() {
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(answer(plain), Ok(("hello".into(), true)));
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        assert_eq!(answer(chunks), Ok(("hello".into(), false)));
        for (text, problem) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "404 Not Found: no"),
            ("HTTP/1.1 200 OK\r\n\r\n", "without a length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "more than 16 MiB"),
            ("", "closed"),
        ] {
            assert!(answer(text).unwrap_err().contains(problem), "{text}");
        }
    }

    #[test]
    fn calls_go_over_one_connection_or_over_many() {
        for reconnect in [false, true] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/v1/completions", listener.local_addr().unwrap());
            let served = std::thread::spawn(move || {
                let (mut connections, mut calls) = (0, 0);
                while calls < 3 {
                    let (stream, _) = listener.accept().unwrap();
                    connections += 1;
                    let mut stream = BufReader::new(stream);
                    // A connection without a further request is over.
                    while let Ok(first) = line(&mut stream) {
                        assert_eq!(first, "POST /v1/completions HTTP/1.1");
                        while !line(&mut stream).unwrap_or_default().is_empty() {}
                        let mut body = [0; 2];
                        stream.read_exact(&mut body).unwrap();
                        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                        calls += 1;
                        if calls == 3 || reconnect {
                            break;
                        }
                    }
                }
                connections
            });
            let mut client = Client::new(&url, reconnect).unwrap();
            for _ in 0..3 {
                assert_eq!(client.post("{}").unwrap(), "ok");
            }
            assert_eq!(served.join().unwrap(), if reconnect { 3 } else { 1 });
        }
        assert!(Client::new("https://x:1/", false).is_err() && Client::new("http://x/", false).is_err());
    }
}
