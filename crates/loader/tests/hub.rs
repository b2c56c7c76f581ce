//! Pulls from a small server on the loopback interface that each test starts.
#![cfg(feature = "hub")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use loader::hub::{HubError, Progress, PullOptions, Pulled, Selection, cached, pull};
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";

#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

#[derive(Debug, Clone, Default)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    cut: Option<usize>,
    /// Be silent for so long before the body.
    stall: Duration,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

type Handler = dyn Fn(&Request, usize) -> Answer + Send + Sync;

/// A server that answers one request for each connection and remembers all of them.
struct Server {
    address: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `handler` gets the request, and how many with the same method and path came before.
    fn start(handler: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = format!("http://{}", listener.local_addr().expect("address"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handler, shared): (Arc<Handler>, _) = (Arc::new(handler), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, log) = (handler.clone(), shared.clone());
                std::thread::spawn(move || serve(stream, &*handler, &log));
            }
        });
        Self { address, log }
    }

    fn requests(&self, method: &str, part: &str) -> Vec<Request> {
        let log = self.log.lock().expect("log");
        log.iter().filter(|request| request.method == method && request.path.contains(part)).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = Request { method, path, headers };
    let before = {
        let mut log = log.lock().ok()?;
        let before = log.iter().filter(|r| r.method == request.method && r.path == request.path).count();
        log.push(request.clone());
        before
    };
    let answer = handler(&request, before);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if request.method != "HEAD" {
        std::thread::sleep(answer.stall);
        stream.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())]).ok()?;
    }
    stream.flush().ok()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that differ everywhere, so that a wrong offset shows.
fn content(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A hub with one repository `o/m` whose files are these; large files are redirected to `/cdn/SHA256`.
struct Hub {
    files: Vec<(String, Vec<u8>)>,
    large: usize,
}

impl Hub {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        Self { files: files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect(), large: 1000 }
    }

    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.as_str();
        if let Some(revision) = path.strip_prefix("/api/models/o/m/revision/") {
            let commit = match revision {
                "main" | COMMIT => COMMIT,
                "v2" | "refs%2Fpr%2F1" => OTHER,
                _ => return Answer::new(404).with("X-Error-Code", "RevisionNotFound"),
            };
            let siblings: Vec<_> = self.files.iter().map(|(name, _)| serde_json::json!({"rfilename": name})).collect();
            let body = serde_json::json!({"sha": commit, "siblings": siblings}).to_string();
            return Answer { body: body.into_bytes(), ..Answer::new(200) };
        }
        if let Some(tag) = path.strip_prefix("/cdn/") {
            let found = self.files.iter().find(|(_, bytes)| sha256(bytes) == tag);
            return found.map_or(Answer::new(404), |(_, bytes)| ranged(request, bytes));
        }
        for commit in [COMMIT, OTHER] {
            let Some(name) = path.strip_prefix(&format!("/o/m/resolve/{commit}/")) else { continue };
            let name = name.replace("%20", " ");
            let Some((_, bytes)) = self.files.iter().find(|(known, _)| *known == name) else { continue };
            let answer = if bytes.len() >= self.large {
                let tag = sha256(bytes);
                let answer = Answer::new(302).with("Location", format!("/cdn/{tag}"));
                answer.with("X-Linked-Etag", format!("\"{tag}\"")).with("X-Linked-Size", bytes.len())
            } else {
                let answer = ranged(request, bytes);
                answer.with("ETag", format!("\"{}\"", &sha256(bytes)[..40]))
            };
            return answer.with("X-Repo-Commit", commit);
        }
        Answer::new(404).with("X-Error-Code", "EntryNotFound")
    }
}

/// A body, or the part of it that a Range header requests.
fn ranged(request: &Request, bytes: &[u8]) -> Answer {
    let from = request
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) if from < bytes.len() => Answer { body: bytes[from..].to_vec(), ..Answer::new(206) }
            .with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
        Some(_) => Answer::new(416),
        None => Answer { body: bytes.to_vec(), ..Answer::new(200) },
    }
}

fn checkpoint() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", content(300_000)),
        ("tokenizer.json", b"{\"t\": 1}".to_vec()),
        ("onnx/model.onnx", content(50)),
    ]
}

/// Options that touch nothing but the folder and the server.
fn options(server: &Server, dir: &Path) -> PullOptions {
    let mut options = PullOptions::default();
    options.cache_dir = Some(dir.to_owned());
    options.endpoint = Some(server.address.clone());
    options.token = Some(String::new());
    options.offline = Some(false);
    options.retry_wait = Duration::from_millis(1);
    options.timeout = Duration::from_secs(10);
    options
}

fn names(pulled: &Pulled) -> Vec<String> {
    let name = |path: &PathBuf| path.strip_prefix(&pulled.path).unwrap_or(path).to_str().expect("name").to_owned();
    pulled.files.iter().map(name).collect()
}

fn blobs(dir: &Path) -> Vec<String> {
    let blobs = std::fs::read_dir(dir.join("models--o--m").join("blobs"));
    let mut names: Vec<String> =
        blobs.into_iter().flatten().map(|e| e.expect("entry").file_name().into_string().expect("name")).collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_is_pulled_into_the_shared_cache_layout() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, _| hub.answer(request));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut options = options(&server, dir.path());
    let log = seen.clone();
    options.progress = Some(Arc::new(move |p: &Progress<'_>| {
        assert!(p.file_done <= p.file_bytes && p.done <= p.bytes && p.index < p.files);
        log.lock().expect("log").push((p.file.to_owned(), p.done, p.bytes));
        ControlFlow::Continue(())
    }));
    let pulled = pull("o/m", &options).expect("pull");
    assert_eq!(names(&pulled), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(pulled.commit, COMMIT);
    assert_eq!(pulled.path, dir.path().join("models--o--m/snapshots").join(COMMIT));
    assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).expect("file"), content(300_000));
    let seen = seen.lock().expect("log").clone();
    assert!(seen.windows(2).all(|pair| pair[0].1 <= pair[1].1), "progress goes forward");
    assert_eq!(seen.last().map(|(_, done, bytes)| (*done, *bytes)), Some((300_010, 300_010)));
    assert!(seen.iter().filter(|(file, ..)| file == "model.safetensors").count() > 1);

    // The reader of the hf-hub crate finds the same files: the layout is the shared one.
    let reader = hf_hub::Cache::new(dir.path().to_owned()).model("o/m".to_owned());
    for file in names(&pulled) {
        let found = reader.get(&file).expect("hf-hub finds it");
        assert_eq!(std::fs::read(found).expect("file"), std::fs::read(pulled.path.join(&file)).expect("file"));
    }
    #[cfg(unix)]
    {
        let link = std::fs::read_link(pulled.path.join("model.safetensors")).expect("a link");
        assert_eq!(link, Path::new("../../blobs").join(sha256(&content(300_000))));
    }

    // Again: nothing is transferred, only requested.
    let before = server.requests("GET", "/o/m/resolve").len();
    assert_eq!(pull("o/m", &options).expect("again"), pulled);
    assert_eq!(server.requests("GET", "/o/m/resolve").len(), before);
    assert_eq!(cached("o/m", &options).expect("cached"), Some(pulled));
}

#[test]
fn a_gguf_file_is_the_result_itself() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&[("README.md", vec![1]), ("sub dir/m.gguf", content(2000))]);
    let server = Server::start(move |request, _| hub.answer(request));
    let options = options(&server, dir.path());
    let pulled = pull("o/m", &options).expect("pull");
    assert_eq!(pulled.path, dir.path().join("models--o--m/snapshots").join(COMMIT).join("sub dir/m.gguf"));
    assert_eq!(std::fs::read(&pulled.path).expect("file"), content(2000));
}

#[test]
fn a_connection_that_is_lost_is_resumed_with_a_range() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, before| {
        let mut answer = hub.answer(request);
        // The first transfer stops half-way, the second one after another third.
        if request.method == "GET" && request.path.starts_with("/cdn/") && before < 1 {
            answer.cut = Some(150_000);
        } else if request.method == "GET" && request.path.starts_with("/cdn/") && before < 2 {
            answer.cut = Some(50_000);
        }
        answer
    });
    let pulled = pull("o/m", &options(&server, dir.path())).expect("pull");
    assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).expect("file"), content(300_000));
    let ranges: Vec<_> =
        server.requests("GET", "/cdn/").iter().map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=150000-".into()), Some("bytes=200000-".into())]);
}

#[test]
fn a_pull_that_failed_is_continued_by_the_next_one() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Arc::new(Hub::new(&checkpoint()));
    let shared = hub.clone();
    let server = Server::start(move |request, _| {
        let mut answer = shared.answer(request);
        if request.path.starts_with("/cdn/") {
            answer.cut = Some(100_000.min(answer.body.len()));
        }
        answer
    });
    let mut once = options(&server, dir.path());
    once.retries = 0;
    let error = pull("o/m", &once).expect_err("cut off");
    assert!(matches!(error, HubError::ShortRead { got: 100_000, expected: 300_000, .. }), "{error}");
    assert_eq!(cached("o/m", &once).expect("cached"), None, "an unfinished pull is not a checkpoint");
    let server = Server::start(move |request, _| hub.answer(request));
    let pulled = pull("o/m", &options(&server, dir.path())).expect("continue");
    assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).expect("file"), content(300_000));
    let requests = server.requests("GET", "/cdn/");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].headers.get("range").map(String::as_str), Some("bytes=100000-"));
    assert!(!blobs(dir.path()).iter().any(|name| name.ends_with(".incomplete")));
}

#[test]
fn a_server_without_ranges_starts_again() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, before| {
        let mut request = request.clone();
        request.headers.remove("range");
        let mut answer = hub.answer(&request);
        if request.path.starts_with("/cdn/") && before == 0 {
            answer.cut = Some(1000);
        }
        answer
    });
    let pulled = pull("o/m", &options(&server, dir.path())).expect("pull");
    assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).expect("file"), content(300_000));
}

#[test]
fn wrong_content_is_thrown_away() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, _| {
        let mut answer = hub.answer(request);
        if request.path.starts_with("/cdn/") {
            answer.body[77] ^= 1;
        }
        answer
    });
    let error = pull("o/m", &options(&server, dir.path())).expect_err("a flipped bit");
    let expected = sha256(&content(300_000));
    assert!(
        matches!(&error, HubError::HashMismatch { file, expected: e, .. } if file == "model.safetensors" && *e == expected)
    );
    assert!(!blobs(dir.path()).iter().any(|name| name.contains(&expected)), "{:?}", blobs(dir.path()));
    assert_eq!(server.requests("GET", "/cdn/").len(), 1, "nothing was resumed, so nothing is tried again");
}

#[test]
fn a_wrong_beginning_from_an_earlier_time_is_replaced() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, _| hub.answer(request));
    let folder = dir.path().join("models--o--m/blobs");
    std::fs::create_dir_all(&folder).expect("folder");
    let partial = folder.join(format!("{}.incomplete", sha256(&content(300_000))));
    for rubbish in [vec![7; 1000], vec![7; 300_000], vec![7; 400_000]] {
        std::fs::write(&partial, rubbish).expect("write");
        let pulled = pull("o/m", &options(&server, dir.path())).expect("pull");
        let path = pulled.path.join("model.safetensors");
        assert_eq!(std::fs::read(&path).expect("file"), content(300_000));
        std::fs::remove_file(folder.join(sha256(&content(300_000)))).expect("remove");
    }
}

#[test]
fn revisions_have_their_own_snapshots() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, _| hub.answer(request));
    let mut options = options(&server, dir.path());
    for (revision, commit) in [("v2", OTHER), ("refs/pr/1", OTHER), (COMMIT, COMMIT)] {
        options.revision = Some(revision.to_owned());
        assert_eq!(pull("o/m", &options).expect(revision).commit, commit);
        assert_eq!(cached("o/m", &options).expect("cached").map(|pulled| pulled.commit).as_deref(), Some(commit));
    }
    options.revision = None;
    assert_eq!(cached("o/m", &options).expect("cached"), None, "main was never pulled");
    options.revision = Some("v3".to_owned());
    let error = pull("o/m", &options).expect_err("no such revision");
    assert!(matches!(&error, HubError::NotFound { what, .. } if what.contains("revision v3")), "{error}");
    options.revision = Some("../../x".to_owned());
    assert!(matches!(pull("o/m", &options), Err(HubError::BadRevision { .. })));
}

#[test]
fn the_token_goes_to_the_endpoint_and_nowhere_else() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Arc::new(Hub::new(&checkpoint()));
    let shared = hub.clone();
    let cdn = Server::start(move |request, _| shared.answer(request));
    let target = cdn.address.clone();
    let server = Server::start(move |request, _| {
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer secret") {
            return Answer::new(401);
        }
        let mut answer = hub.answer(request);
        for (name, value) in &mut answer.headers {
            if name == "Location" {
                *value = format!("{target}{value}?signature=1");
            }
        }
        answer
    });
    let mut options = options(&server, dir.path());
    let error = pull("o/m", &options).expect_err("no token");
    assert!(matches!(&error, HubError::Unauthorized { hint, .. } if hint.contains("HF_TOKEN")), "{error}");
    options.token = Some("secret".to_owned());
    assert!(!format!("{options:?}").contains("secret"));
    // The path at the other server has a query, which our little hub takes for a part of the hash.
    let error = pull("o/m", &options).expect_err("unknown to the other server");
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
    let elsewhere = cdn.requests("GET", "/cdn/");
    assert!(!elsewhere.is_empty());
    assert!(elsewhere.iter().all(|request| !request.headers.contains_key("authorization")));
    assert!(elsewhere.iter().all(|request| request.path.ends_with("?signature=1")));
}

#[test]
fn statuses_have_their_own_errors() {
    let dir = tempfile::tempdir().expect("folder");
    let check = |answer: Answer, requests: usize, is: fn(&HubError) -> bool| {
        let server = Server::start(move |_, _| answer.clone());
        let mut options = options(&server, dir.path());
        options.retries = 2;
        let error = pull("o/m", &options).expect_err("must fail");
        assert!(is(&error), "{error:?}");
        assert_eq!(server.requests("GET", "").len(), requests, "{error}");
        error
    };
    let error = check(Answer::new(404), 1, |e| matches!(e, HubError::NotFound { .. }));
    assert!(error.to_string().contains("o/m"), "{error}");
    check(Answer::new(401), 1, |e| matches!(e, HubError::Unauthorized { .. }));
    check(Answer::new(403), 1, |e| matches!(e, HubError::Forbidden { .. }));
    let gated = Answer::new(403).with("X-Error-Code", "GatedRepo");
    let error = check(gated, 1, |e| matches!(e, HubError::Gated { .. }));
    assert!(error.to_string().contains("/o/m"), "{error}");
    // Temporary failures are retried, but not forever.
    check(Answer::new(503), 3, |e| matches!(e, HubError::Status { status: 503, .. }));
    check(Answer::new(429), 3, |e| matches!(e, HubError::Status { status: 429, .. }));
    check(Answer::new(400), 1, |e| matches!(e, HubError::Status { status: 400, .. }));
    let html = Answer { body: b"<html>".to_vec(), ..Answer::new(200) };
    check(html, 1, |e| matches!(e, HubError::BadResponse { .. }));
    let no_commit = Answer { body: br#"{"sha": "../x", "siblings": []}"#.to_vec(), ..Answer::new(200) };
    check(no_commit, 1, |e| matches!(e, HubError::BadResponse { .. }));
    check(Answer::new(302).with("Location", "/round"), 8, |e| matches!(e, HubError::BadResponse { .. }));
    assert!(matches!(pull("not a repository", &PullOptions::default()), Err(HubError::BadRepo { .. })));
}

#[test]
fn a_server_that_recovers_is_enough() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, before| if before < 2 { Answer::new(500) } else { hub.answer(request) });
    assert!(pull("o/m", &options(&server, dir.path())).is_ok());
}

#[test]
fn hostile_names_and_tags_are_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&[("../../evil.gguf", content(10))]);
    let server = Server::start(move |request, _| hub.answer(request));
    let error = pull("o/m", &options(&server, dir.path())).expect_err("a hostile name");
    assert!(matches!(&error, HubError::UnsafeName { name } if name == "../../evil.gguf"), "{error}");
    for tag in ["../../evil", "a/b", ".hidden"] {
        let hub = Hub::new(&checkpoint());
        let server = Server::start(move |request, _| {
            let mut answer = hub.answer(request);
            for (name, value) in &mut answer.headers {
                if name.eq_ignore_ascii_case("etag") {
                    *value = format!("\"{tag}\"");
                }
            }
            answer
        });
        let error = pull("o/m", &options(&server, dir.path())).expect_err("a hostile tag");
        assert!(matches!(error, HubError::BadResponse { .. }), "{error}");
    }
    assert!(std::fs::read_dir(dir.path()).expect("folder").next().is_none(), "nothing was written");
}

#[test]
fn offline_means_the_cache_alone() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, _| hub.answer(request));
    let mut options = options(&server, dir.path());
    options.offline = Some(true);
    let error = pull("o/m", &options).expect_err("nothing in the cache");
    assert!(matches!(&error, HubError::Offline { repo, .. } if repo == "o/m"), "{error}");
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    assert!(server.log.lock().expect("log").is_empty(), "no request was made");
    options.offline = Some(false);
    let pulled = pull("o/m", &options).expect("pull");
    let made = server.log.lock().expect("log").len();
    options.offline = Some(true);
    assert_eq!(pull("o/m", &options).expect("offline"), pulled);
    assert_eq!(cached("o/m", &options).expect("cached"), Some(pulled));
    assert_eq!(server.log.lock().expect("log").len(), made, "no request was made");
}

#[test]
fn silence_and_closed_doors_are_told_apart() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, _| {
        let mut answer = hub.answer(request);
        if request.path.starts_with("/cdn/") {
            answer.stall = Duration::from_secs(5);
        }
        answer
    });
    let mut slow = options(&server, dir.path());
    slow.timeout = Duration::from_millis(200);
    slow.retries = 1;
    let started = Instant::now();
    let error = pull("o/m", &slow).expect_err("silence");
    assert!(matches!(error, HubError::Timeout { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());

    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let mut closed = options(&server, dir.path());
    closed.endpoint = Some(format!("http://{}", listener.local_addr().expect("address")));
    drop(listener);
    let error = pull("o/m", &closed).expect_err("no listener");
    assert!(matches!(error, HubError::Unreachable { .. }), "{error:?}");
}

#[test]
fn a_callback_can_stop_a_pull() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, _| hub.answer(request));
    let mut options = options(&server, dir.path());
    options.progress = Some(Arc::new(|p: &Progress<'_>| match p.file_done > 0 && p.file == "model.safetensors" {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }));
    let error = pull("o/m", &options).expect_err("stopped");
    assert!(matches!(&error, HubError::Cancelled { file } if file == "model.safetensors"), "{error}");
    options.progress = None;
    assert!(pull("o/m", &options).is_ok());
}

#[test]
fn two_pulls_at_once_agree() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, _| hub.answer(request));
    let options = options(&server, dir.path());
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| pull("o/m", &options))).collect();
        for pull in pulls {
            let pulled = pull.join().expect("thread").expect("pull");
            assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).expect("file"), content(300_000));
        }
    });
    assert_eq!(server.requests("GET", "/cdn/").len(), 1, "one of them transfers, the others wait");
}

#[test]
fn patterns_choose_files() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, _| hub.answer(request));
    let mut options = options(&server, dir.path());
    options.files = Selection::Matching(vec!["onnx/*".into(), "config.json".into()]);
    assert_eq!(names(&pull("o/m", &options).expect("pull")), ["config.json", "onnx/model.onnx"]);
    options.files = Selection::Gguf(None);
    let error = pull("o/m", &options).expect_err("no GGUF file");
    assert!(matches!(&error, HubError::NothingToPull { files, .. } if files.contains("config.json")), "{error}");
}

#[test]
fn requests_say_who_asks_and_want_plain_bytes() {
    let dir = tempfile::tempdir().expect("folder");
    let hub = Hub::new(&checkpoint());
    let server = Server::start(move |request, _| hub.answer(request));
    pull("o/m", &options(&server, dir.path())).expect("pull");
    for request in server.log.lock().expect("log").iter() {
        assert!(request.headers.get("user-agent").is_some_and(|agent| agent.starts_with("bitnet")), "{request:?}");
        assert_eq!(request.headers.get("accept-encoding").map(String::as_str), Some("identity"));
        assert!(!request.headers.contains_key("authorization"), "an empty token sends none");
    }
}
