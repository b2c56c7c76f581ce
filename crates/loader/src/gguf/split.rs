//! Models in several GGUF files, `NAME-00001-of-00003.gguf` and so on: the metadata are in the first one, tensors in
//! all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::reader::PartFile;
use super::value::Metadata;
use crate::LoadError;
use crate::mmap::map_file;
use crate::safetensors::{INDEX_NAME, SINGLE_NAME};

/// Keys of a part: its number from 0, how many there are, and how many tensors they hold together.
const KEYS: [&str; 3] = ["split.no", "split.count", "split.tensors.count"];
/// Whether a key mentions a file's place among the parts of a model; it means nothing in a whole file.
pub(crate) fn is_key(key: &str) -> bool {
    key.starts_with("split.")
}

/// Most parts of a model; their names have five digits, but no real model has more than some hundred.
pub const MAX_PARTS: u64 = 4096;

/// Metadata of a part about its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SplitPlace {
    /// From 0.
    no: u64,
    count: u64,
    tensors: Option<u64>,
}

impl SplitPlace {
    /// `None` for a whole file. Programs that merge parts leave a count of 0.
    pub(super) fn of(m: &Metadata) -> Result<Option<Self>, LoadError> {
        let [no, count, tensors] = KEYS;
        let Some(count) = m.u64(count)?.filter(|n| *n > 1) else { return Ok(None) };
        Ok(Some(Self { no: m.u64(no)?.unwrap_or(0), count, tensors: m.u64(tensors)? }))
    }

    /// The error if one part of a model is not enough.
    pub(super) fn alone(self) -> LoadError {
        let reason = format!(
            "this is part {} of {} of a split GGUF file; open it by its path, with all parts in one folder",
            self.no.saturating_add(1),
            self.count
        );
        LoadError::Split { path: PathBuf::from("(in memory)"), reason }
    }
}

/// The name of a part: the text before the numbers, its number from 1, and the number of parts.
pub(crate) fn parse_name(name: &str) -> Option<(&str, u64, u64)> {
    let stem = name.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, no) = rest.rsplit_once('-')?;
    let number = |s: &str| (s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok()).flatten();
    Some((prefix, number(no)?, number(count)?))
}

fn part_name(prefix: &str, no: u64, count: u64) -> String {
    format!("{prefix}-{no:05}-of-{count:05}.gguf")
}

/// Reads all parts of the model to which the part at `path` belongs, in order.
pub(super) fn read_all(path: &Path, place: SplitPlace) -> Result<Vec<PartFile>, LoadError> {
    let wrong = |path: &Path, reason: String| LoadError::Split { path: path.to_path_buf(), reason };
    let SplitPlace { no, count, .. } = place;
    if count > MAX_PARTS || no >= count {
        let reason =
            format!("it says that it is part {} of {count}; at most {MAX_PARTS} are read", no.saturating_add(1));
        return Err(wrong(path, reason));
    }
    let number = no.saturating_add(1);
    let name = path.file_name().and_then(|n| n.to_str()).and_then(parse_name);
    let prefix = match name {
        Some((prefix, n, m)) if (n, m) == (number, count) => prefix,
        _ => {
            let expected = part_name("NAME", number, count);
            return Err(wrong(
                path,
                format!(
                    "it is part {number} of {count} of a split GGUF file, so its name should end as {expected:?} does, and those of \
                     the other parts likewise; give the files their names back, or merge them (llama-gguf-split --merge)"
                ),
            ));
        }
    };
    let mut parts: Vec<PartFile> = Vec::new();
    let mut architecture = None;
    for n in 1..=count {
        // A plain name in the same folder, made of numbers that were checked.
        let file = path.with_file_name(part_name(prefix, n, count));
        if !file.is_file() {
            let reason = format!(
                "this part of a split GGUF file ({n} of {count}) is missing; download all parts into one folder"
            );
            return Err(wrong(&file, reason));
        }
        let part = PartFile::read(map_file(&file)?, architecture.as_deref()).map_err(|e| e.in_file(&file))?.at(&file);
        match SplitPlace::of(&part.metadata).map_err(|e| e.in_file(&file))? {
            Some(p) if (p.no, p.count) == (n.saturating_sub(1), count) => {
                if let (Some(a), Some(b)) = (p.tensors, place.tensors)
                    && a != b
                {
                    return Err(wrong(
                        &file,
                        format!("it belongs to a model of {a} tensors, other parts to one of {b}"),
                    ));
                }
            }
            Some(p) => {
                let said = p.no.saturating_add(1);
                return Err(wrong(
                    &file,
                    format!("its name says part {n} of {count}, but it says part {said} of {}", p.count),
                ));
            }
            None => {
                return Err(wrong(&file, format!("its name says part {n} of {count}, but it is a whole GGUF file")));
            }
        }
        let own = part.metadata.str("general.architecture").map_err(|e| e.in_file(&file))?.map(str::to_owned);
        match (&architecture, own) {
            (Some(first), Some(own)) if *first != own => {
                return Err(wrong(&file, format!("its architecture is {own:?}, that of the first part is {first:?}")));
            }
            (None, own) => architecture = own,
            _ => {}
        }
        parts.push(part);
    }
    let held = parts.iter().map(|p| p.tensors.len() as u64).sum::<u64>();
    if let Some(said) = place.tensors
        && said != held
    {
        return Err(wrong(
            path,
            format!(
                "the {count} parts hold {held} tensors, but split.tensors.count is {said}: they are not of one model"
            ),
        ));
    }
    Ok(parts)
}

/// The GGUF file that `path` stands for: itself, or the only model in a folder without safetensors. `None` if it is
/// neither.
///
/// # Errors
/// [`LoadError::NoModel`] for a folder with several models; [`LoadError::Io`] if it cannot be listed.
pub fn locate(path: &Path) -> Result<Option<PathBuf>, LoadError> {
    if path.is_file() {
        let other = path.extension().is_some_and(|e| e == "safetensors" || e == "json");
        return Ok((!other).then(|| path.to_path_buf()));
    }
    if !path.is_dir() || [SINGLE_NAME, INDEX_NAME].iter().any(|name| path.join(name).is_file()) {
        return Ok(None);
    }
    // Whole files by their names, parts by the name and the number that they share.
    let (mut whole, mut split) = (BTreeSet::new(), BTreeMap::new());
    for entry in std::fs::read_dir(path).map_err(LoadError::io("list", path))? {
        let file = entry.map_err(LoadError::io("list", path))?.path();
        let Some(name) = file.file_name().and_then(|n| n.to_str()).filter(|n| n.ends_with(".gguf")) else { continue };
        // An encoder of images next to a model does not count.
        if name.starts_with("mmproj") || !file.is_file() {
            continue;
        }
        match parse_name(name) {
            Some((prefix, _, count)) => {
                let first: &mut String = split.entry((prefix.to_owned(), count)).or_insert_with(|| name.to_owned());
                if name < first.as_str() {
                    *first = name.to_owned();
                }
            }
            None => {
                whole.insert(name.to_owned());
            }
        }
    }
    let mut models: Vec<String> = split.into_values().chain(whole).collect();
    match models.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(path.join(one))),
        _ => {
            models.truncate(4);
            let reason = format!("the folder holds several GGUF models ({} ...); name one of them", models.join(", "));
            Err(LoadError::NoModel { path: path.to_path_buf(), reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        assert_eq!(parse_name("a-b-00002-of-00003.gguf"), Some(("a-b", 2, 3)));
        assert_eq!(part_name("a-b", 2, 3), "a-b-00002-of-00003.gguf");
        for other in ["a.gguf", "a-2-of-3.gguf", "a-00002-of-00003.bin", "a-+0002-of-00003.gguf"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
