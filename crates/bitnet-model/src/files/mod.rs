//! Files named by users: read within bounds, written all or nothing.
//!
//! Everything in this workspace that opens a path from outside uses this module, so that one place decides what may be
//! read and how a file is created.
//!
//! **Reading.** [`read`], [`read_text`], [`open`] and [`Lines`] check a path before they open it: a named pipe would
//! wait for a writer, a device may never end. Anything but a regular file is rejected with [`FileError::NotRegular`],
//! and a [`Kind`] limits the number of bytes that are read. A descriptor that the caller passes (`/dev/stdin`,
//! `/dev/fd/N`) may be a pipe, and is read within the same bounds.
//!
//! **Writing.** [`write()`] and [`Pending`] write next to the target, flush to the disk and rename, so that a reader
//! sees the old file or the new one. The temporary names are `.tmp-*.partial`; their writer holds a lock on them that
//! the system releases when it dies, and the next write into the same folder removes what dead processes left
//! ([`sweep`]). Anything but a regular file is never replaced. A full disk is [`FileError::Full`].
//!
//! **Holding a folder.** [`FolderLock`] keeps a second process out.
//!
//! ```
//! use bitnet_model::files::{self, FileError, Kind};
//! # let folder = std::env::temp_dir().join(format!("bitnet-files-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let path = folder.join("note.txt");
//! files::write(&path, b"kept as a whole")?;
//! assert_eq!(files::read_text(&path, Kind::TEXT)?, "kept as a whole");
//! assert!(matches!(files::read(&folder, Kind::TEXT), Err(FileError::NotRegular { found: "a folder", .. })));
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod folder;
mod lines;
mod lock;
mod pending;
mod read;
mod stale;

pub use error::FileError;
pub use folder::PendingFolder;
pub use lines::Lines;
pub use lock::FolderLock;
pub use pending::{Pending, replace_with, replaceable, resolve, write};
pub use read::{Kind, open, read, read_stream, read_text, regular, text};
pub use stale::{is_temporary, sweep};
