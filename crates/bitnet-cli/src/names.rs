//! Short names of known ternary models.

use crate::source::HubSpec;

/// A model of the Hugging Face hub that many people mean.
pub(crate) struct Known {
    /// What is typed.
    pub(crate) name: &'static str,
    /// `OWNER/REPO[:FILE]`.
    pub(crate) hub: &'static str,
    /// What it is.
    pub(crate) what: &'static str,
}

/// All of them.
pub(crate) const KNOWN: &[Known] = &[
    known("2b4t", "microsoft/bitnet-b1.58-2B-4T-gguf:ggml-model-i2_s.gguf", "BitNet b1.58 2B4T, for conversation"),
    known("falcon3-1b", "tiiuae/Falcon3-1B-Instruct-1.58bit", "Falcon3 1B, for conversation"),
    known("falcon3-3b", "tiiuae/Falcon3-3B-Instruct-1.58bit", "Falcon3 3B, for conversation"),
    known("falcon3-7b", "tiiuae/Falcon3-7B-Instruct-1.58bit", "Falcon3 7B, for conversation"),
    known("falcon3-10b", "tiiuae/Falcon3-10B-Instruct-1.58bit", "Falcon3 10B, for conversation"),
    known("llama3-8b", "HF1BitLLM/Llama3-8B-1.58-100B-tokens", "Llama 3 8B, continues texts"),
    known("bitnet-large", "1bitLLM/bitnet_b1_58-large", "0.7 billion weights, continues texts"),
    known("bitnet-3b", "1bitLLM/bitnet_b1_58-3B", "3.3 billion weights, continues texts"),
];

const fn known(name: &'static str, hub: &'static str, what: &'static str) -> Known {
    Known { name, hub, what }
}

/// The repository that a short name stands for, in whatever case it was typed.
pub(crate) fn find(name: &str) -> Option<HubSpec> {
    let known = KNOWN.iter().find(|k| k.name.eq_ignore_ascii_case(name))?;
    let (repo, file) = match known.hub.split_once(':') {
        Some((repo, file)) => (repo, Some(file.to_owned())),
        None => (known.hub, None),
    };
    Some(HubSpec { repo: repo.to_owned(), file })
}

/// The short name of a repository.
#[cfg_attr(not(feature = "hub"), allow(dead_code))] // Without the hub nothing is listed from its cache.
pub(crate) fn of_repo(repo: &str) -> Option<&'static str> {
    KNOWN.iter().find(|k| k.hub.split(':').next() == Some(repo)).map(|k| k.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_repository_and_back() {
        for known in KNOWN {
            let spec = find(&known.name.to_uppercase()).unwrap();
            assert_eq!(known.hub.parse(), Ok(spec.clone()));
            assert_eq!(of_repo(&spec.repo), Some(known.name));
        }
        assert!(find("no-such-model").is_none() && of_repo("o/n").is_none());
    }
}
