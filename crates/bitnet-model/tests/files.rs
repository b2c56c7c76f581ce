//! Files of other programs: unusual ones, large ones, and those that dead processes left.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bitnet_model::files::{self, FileError, FolderLock, Kind, Lines, Pending, PendingFolder};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[cfg(unix)]
fn fifo(path: &Path) -> PathBuf {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    path.to_path_buf()
}

/// Opening a pipe without a writer would wait forever.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_before_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = fifo(&dir.path().join("pipe"));
    std::os::unix::fs::symlink(&pipe, dir.path().join("link")).unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, what) in [
        (pipe.clone(), "a named pipe"),
        (dir.path().join("link"), "a named pipe"),
        (socket, "a socket"),
        ("/dev/zero".into(), "a device"),
        ("/dev/full".into(), "a device"),
        (dir.path().to_path_buf(), "a folder"),
    ] {
        let refused = |e: FileError| assert!(matches!(e, FileError::NotRegular { found, .. } if found == what), "{e}");
        refused(files::read(&path, Kind::TEXT).unwrap_err());
        refused(files::open(&path, "a model").unwrap_err());
        refused(Lines::open(&path, "a text", 10).unwrap_err());
        // Nor is it replaced.
        let kept = |e: FileError| assert!(matches!(e, FileError::NotReplaced { found, .. } if found == what), "{e}");
        kept(files::write(&path, b"x").unwrap_err());
    }
    assert!(files::read(&dir.path().join("none"), Kind::TEXT).unwrap_err().is_absent());
    assert!(pipe.exists() && names(dir.path()) == ["link", "pipe", "socket"]);
}

#[test]
fn no_more_is_read_than_a_kind_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    let kind = Kind::new("a note", 4);
    fs::write(&path, "abcd").unwrap();
    assert_eq!(files::read_text(&path, kind).unwrap(), "abcd");
    fs::write(&path, "abcde").unwrap();
    assert!(matches!(files::read(&path, kind), Err(FileError::TooLarge { len: 5, max: 4, .. })));
    // A stream without an end.
    let endless = files::read_stream(std::io::repeat(b'x'), Path::new("stdin"), Kind::KEY);
    assert!(matches!(endless, Err(FileError::TooLarge { .. })));
    // Nothing is read of a sparse file of a terabyte.
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(files::read(&path, Kind::TEXT), Err(FileError::TooLarge { .. })));
    fs::write(&path, b"ab\xff").unwrap();
    assert!(matches!(files::read_text(&path, kind), Err(FileError::NotUtf8 { at: 2, .. })));
}

#[test]
fn lines_are_bounded_and_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let mut lines = Lines::open(&path, "a text", 8).unwrap();
        let mut all = Vec::new();
        loop {
            match lines.next_text() {
                Ok(Some((n, line))) => all.push(format!("{n} {line}")),
                Ok(None) => return (all, String::new()),
                Err(e) => return (all, e.to_string()),
            }
        }
    };
    assert_eq!(read(b"ab\n\n1234567\nend").0, ["1 ab\n", "2 \n", "3 1234567\n", "4 end"]);
    assert_eq!(read(b"").0, Vec::<String>::new());
    assert!(read(b"ab\n123456789\n").1.contains("line 2: it is longer than 8 bytes"));
    assert!(read(b"ab\nx\xff\n").1.contains("line 2: this is not UTF-8 text"));
    assert!(read(b"a\0b\0\n").1.contains("line 1: a NUL byte"));
}

#[cfg(unix)]
#[test]
fn a_file_is_replaced_as_a_whole_and_stays_what_it_was() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    let mut pending = Pending::create(&link).unwrap();
    pending.write_all(b"new").unwrap();
    assert_eq!(fs::read_to_string(&link).unwrap(), "old");
    assert!(files::is_temporary(pending.temporary()));
    pending.commit().unwrap();
    // Through the link, which is kept, with the permissions that the file had.
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    // A link to what does not exist yet.
    std::os::unix::fs::symlink("later", dir.path().join("link2")).unwrap();
    files::write(&dir.path().join("link2"), b"x").unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("later")).unwrap(), "x");
    // A file that is dropped before it is complete leaves nothing, and a private file is private.
    drop(Pending::create(&file).unwrap());
    let secret = dir.path().join("secret");
    Pending::private(&secret).unwrap().commit().unwrap();
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(dir.path()), ["file", "later", "link", "link2", "secret"]);
}

/// The file of a live writer stays, even if other processes write there; that of a dead one is removed at the next
/// write.
#[test]
fn what_dead_processes_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let live = Pending::create(&at("live")).unwrap();
    let folder = PendingFolder::create(&at("made")).unwrap();
    fs::write(folder.temporary().join("x"), "x").unwrap();
    fs::write(at(".tmp-1-a-0.partial"), "half").unwrap();
    fs::create_dir(at(".tmp-1-b-0.partial")).unwrap();
    fs::write(at(".tmp-1-b-0.partial/x"), "half").unwrap();
    fs::write(at(".tmp-1-b-0.lock.partial"), "").unwrap();
    // Names that are not ours.
    fs::write(at("a.partial"), "x").unwrap();
    fs::write(at(".tmp-x"), "x").unwrap();
    files::write(&at("next"), b"x").unwrap();
    assert!(live.temporary().exists() && folder.temporary().join("x").exists());
    live.commit().unwrap();
    folder.commit().unwrap();
    assert_eq!(names(dir.path()), [".tmp-x", "a.partial", "live", "made", "next"]);
    assert_eq!(names(&at("made")), ["x"]);
}

#[test]
fn a_folder_is_held_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let held = FolderLock::take(dir.path()).unwrap();
    let refused = FolderLock::take(dir.path()).unwrap_err();
    let us = std::process::id();
    assert!(matches!(refused, FileError::InUse { holder: Some(pid), .. } if pid == us), "{refused}");
    assert!(refused.to_string().contains(&us.to_string()));
    drop(held);
    FolderLock::take(dir.path()).unwrap();
}
