//! A small HTTP client of our own, so that tests of a server see every byte: whole answers, streams of events,
//! connections that are dropped, requests that are wrong.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// The longest pause of a server; a test that hangs would report nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// The server to ask, and the key.
#[derive(Clone, Debug)]
pub struct Client {
    /// The server.
    pub address: SocketAddr,
    /// Sent as `Authorization: Bearer KEY`.
    pub key: Option<String>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// The assembled body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|h| h.0 == name).map(|h| h.1.as_str())
    }

    /// The body as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The body as JSON of an answer that went well.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

/// An answer that comes in pieces.
#[derive(Debug)]
pub struct Stream {
    /// The status.
    pub status: u16,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    chunked: bool,
    length: Option<usize>,
    /// Bytes of the body that were read and not given out.
    body: Vec<u8>,
    ended: bool,
}

impl Client {
    /// A client without a key.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, key: None }
    }

    /// A connection.
    ///
    /// # Errors
    /// If there is no connection.
    pub fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, SILENCE)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The bytes of a request.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if let Some(key) = &self.key {
            head += &format!("Authorization: Bearer {key}\r\n");
        }
        if method == "POST" {
            head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        [head.as_bytes(), b"\r\n", body].concat()
    }

    /// Sends bytes as they are, and reads the head of the answer.
    ///
    /// # Errors
    /// If the connection ends before.
    pub fn send(&self, bytes: &[u8]) -> Result<Stream> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        Stream::read_head(stream)
    }

    /// Reads something.
    ///
    /// # Errors
    /// If the connection ends too soon.
    pub fn get(&self, path: &str) -> Result<Reply> {
        self.send(&self.request("GET", path, b""))?.whole()
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// If the connection ends too soon.
    pub fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(&self.request("POST", path, body.to_string().as_bytes()))?.whole()
    }

    /// Sends JSON, and gives the answer as it comes.
    ///
    /// # Errors
    /// If the connection ends too soon.
    pub fn stream(&self, path: &str, body: &Value) -> Result<Stream> {
        self.send(&self.request("POST", path, body.to_string().as_bytes()))
    }
}

fn broken(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

impl Stream {
    /// Reads the head of an answer.
    ///
    /// # Errors
    /// If the connection ends before, or the answer is not HTTP.
    pub fn read_head(stream: TcpStream) -> Result<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| broken("no status line"))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None if line == "\r\n" => break,
                None => return Err(broken("a broken head")),
            }
        }
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let chunked = header("transfer-encoding") == Some("chunked");
        let length = header("content-length").and_then(|v| v.parse().ok());
        Ok(Self { status, headers, reader, chunked, length, body: Vec::new(), ended: false })
    }

    /// Reads more of the body; `false` if there is no more.
    fn more(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if !self.chunked {
            self.ended = true;
            match self.length {
                Some(length) => {
                    let before = self.body.len();
                    self.body.resize(before + length, 0);
                    self.reader.read_exact(&mut self.body[before..])?;
                }
                None => drop(self.reader.read_to_end(&mut self.body)?),
            }
            return Ok(true);
        }
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16).map_err(|_| broken("a broken chunk"))?;
        let before = self.body.len();
        self.body.resize(before + length, 0);
        self.reader.read_exact(&mut self.body[before..])?;
        self.reader.read_exact(&mut [0; 2])?;
        self.ended = length == 0;
        Ok(!self.ended)
    }

    /// The whole answer.
    ///
    /// # Errors
    /// If the connection ends too soon.
    pub fn whole(mut self) -> Result<Reply> {
        while self.more()? {}
        Ok(Reply { status: self.status, headers: self.headers, body: self.body })
    }

    /// The next event's `data:`; `None` at the end of the body.
    ///
    /// # Errors
    /// If the connection ends too soon, or an event is broken.
    pub fn event(&mut self) -> Result<Option<String>> {
        loop {
            let end = self.body.windows(2).position(|w| w == b"\n\n");
            let Some(end) = end else {
                match self.more()? {
                    true => continue,
                    false if self.body.is_empty() => return Ok(None),
                    false => return Err(broken("half an event")),
                }
            };
            let event: Vec<u8> = self.body.drain(..end + 2).collect();
            let text = std::str::from_utf8(&event[..end]).map_err(|_| broken("an event that is not UTF-8"))?;
            match text.strip_prefix("data: ") {
                Some(data) => return Ok(Some(data.to_owned())),
                // A comment.
                None if text.starts_with(':') => {}
                None => return Err(broken("an event without data")),
            }
        }
    }

    /// All events that are left, up to `[DONE]`.
    ///
    /// # Panics
    /// If there is none, or an event is not JSON.
    ///
    /// # Errors
    /// The errors of [`Stream::event`].
    pub fn events(mut self) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        loop {
            match self.event()?.as_deref() {
                Some("[DONE]") => break,
                Some(data) => events.push(serde_json::from_str(data).expect("an event is JSON")),
                None => return Err(broken("no [DONE]")),
            }
        }
        assert_eq!(self.event()?, None, "something follows [DONE]");
        Ok(events)
    }
}
