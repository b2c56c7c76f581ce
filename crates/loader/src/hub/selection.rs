//! Which files of a repository are pulled.

use super::HubError;

/// Files to take from a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Selection {
    /// The safetensors checkpoint if the repository has one, else its only GGUF file.
    #[default]
    Auto,
    /// A checkpoint as a folder: safetensors, configuration, tokenizer.
    Safetensors,
    /// A GGUF file: the named one, or the only one.
    Gguf(Option<String>),
    /// Every file whose name matches one of these patterns, in which `*` stands for any characters.
    Matching(Vec<String>),
}

/// The selected files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) names: Vec<String>,
    /// The result is this one file rather than the folder.
    pub(super) single: bool,
}

/// Files of a checkpoint other than its weights.
const COMPANIONS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "modules.json",
    "pooling_config.json",
    "1_Pooling/config.json",
    "LICENSE",
    "README.md",
];

/// Whether a name matches a pattern with `*`.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

impl Selection {
    /// Chooses among the files of a repository.
    pub(super) fn choose(&self, repo: &str, files: &[String]) -> Result<Chosen, HubError> {
        let nothing = |wanted: &str| HubError::NothingToPull {
            repo: repo.to_owned(),
            wanted: wanted.to_owned(),
            files: list(files),
        };
        let with = |extension: &str| -> Vec<String> {
            files.iter().filter(|name| name.ends_with(extension)).cloned().collect()
        };
        match self {
            Self::Auto => match self.has_weights(files) {
                true => Self::Safetensors.choose(repo, files),
                false if with(".gguf").is_empty() => Err(nothing("safetensors or GGUF file")),
                false => Self::Gguf(None).choose(repo, files),
            },
            Self::Safetensors => {
                if !self.has_weights(files) {
                    return Err(nothing("safetensors file"));
                }
                // The weights of a checkpoint are at the top; folders hold other formats and training states.
                let wanted = |name: &&String| {
                    !name.contains('/') && name.ends_with(".safetensors") || COMPANIONS.contains(&name.as_str())
                };
                Ok(Chosen { names: files.iter().filter(wanted).cloned().collect(), single: false })
            }
            Self::Gguf(Some(name)) => match files.contains(name) {
                true => Ok(Chosen { names: parts_of(name, files), single: true }),
                false => Err(nothing(name)),
            },
            Self::Gguf(None) => match with(".gguf") {
                names if names.is_empty() => Err(nothing("GGUF file")),
                names if names.len() == 1 => Ok(Chosen { names, single: true }),
                names => match names.first().map(|first| parts_of(first, &names)) {
                    Some(parts) if parts.len() == names.len() => Ok(Chosen { names: parts, single: true }),
                    _ => Err(HubError::Ambiguous { repo: repo.to_owned(), files: list(&names) }),
                },
            },
            Self::Matching(patterns) => {
                let wanted = |name: &&String| patterns.iter().any(|pattern| matches(pattern, name));
                let names: Vec<String> = files.iter().filter(wanted).cloned().collect();
                match names.is_empty() {
                    true => Err(nothing(&format!("file that matches {}", patterns.join(", ")))),
                    false => Ok(Chosen { names, single: false }),
                }
            }
        }
    }

    fn has_weights(&self, files: &[String]) -> bool {
        files.iter().any(|name| !name.contains('/') && name.ends_with(".safetensors"))
    }
}

/// The files of the model that `name` belongs to: itself, or all parts of a split one in order.
fn parts_of(name: &str, files: &[String]) -> Vec<String> {
    let Some(model) = part_of(name) else { return vec![name.to_owned()] };
    let mut parts: Vec<String> = files.iter().filter(|other| part_of(other) == Some(model)).cloned().collect();
    parts.sort();
    parts
}

/// The name (with its folders) and the number of files of a split model, if the file is a part of one.
fn part_of(file: &str) -> Option<(&str, u64)> {
    let (folder, name) = file.rsplit_once('/').map_or(("", file), |(folder, name)| (folder, name));
    let (prefix, _, count) = crate::gguf::parse_part_name(name)?;
    // The folder and the text before the numbers, as in the path.
    let len =
        if folder.is_empty() { prefix.len() } else { folder.len().saturating_add(prefix.len()).saturating_add(1) };
    Some((file.get(..len)?, count))
}

/// The first names of a list, for a message.
fn list(files: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = files.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if files.is_empty() {
        text.push_str("no files");
    }
    if files.len() > SHOWN {
        text.push_str(&format!(" and {} more", files.len().saturating_sub(SHOWN)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.json", "config.json", true),
            ("*.json", "config.jsonl", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("x", "x", true),
            ("x", "xy", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn choices() {
        let both = files(&["config.json", "m.safetensors", "a.gguf", "onnx/m.safetensors", "pytorch_model.bin"]);
        let chosen = Selection::Auto.choose("r", &both).expect("safetensors");
        assert_eq!(chosen, Chosen { names: files(&["config.json", "m.safetensors"]), single: false });
        let one = Selection::Gguf(None).choose("r", &both).expect("one");
        assert_eq!(one, Chosen { names: files(&["a.gguf"]), single: true });
        let two = files(&["a.gguf", "b.gguf", "README.md"]);
        assert!(matches!(Selection::Auto.choose("r", &two), Err(HubError::Ambiguous { .. })));
        let parts = files(&["x/m-00002-of-00002.gguf", "x/m-00001-of-00002.gguf", "m-00001-of-00002.gguf", "b.gguf"]);
        let chosen = Selection::Gguf(Some("x/m-00002-of-00002.gguf".into())).choose("r", &parts).expect("parts");
        assert_eq!(
            chosen,
            Chosen { names: files(&["x/m-00001-of-00002.gguf", "x/m-00002-of-00002.gguf"]), single: true }
        );
        let only = files(&["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "README.md"]);
        let chosen = Selection::Auto.choose("r", &only).expect("parts");
        assert_eq!(chosen, Chosen { names: files(&["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]), single: true });
        let named = Selection::Gguf(Some("b.gguf".into())).choose("r", &two).expect("named");
        assert_eq!(named.names, ["b.gguf"]);
        for nothing in
            [Selection::Safetensors, Selection::Gguf(Some("c.gguf".into())), Selection::Matching(vec!["c*".into()])]
        {
            assert!(matches!(nothing.choose("r", &two), Err(HubError::NothingToPull { .. })), "{nothing:?}");
        }
        assert!(matches!(Selection::Auto.choose("r", &[]), Err(HubError::NothingToPull { .. })));
    }
}
