//! The location of the cache, the account, and the server: options first, then the environment variables of Hugging
//! Face's own tools.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{HubError, PullOptions};
use crate::files::{self, Kind};

/// The default server.
const ENDPOINT: &str = "https://huggingface.co";

/// Settings of one call.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) cache_dir: PathBuf,
    /// Without a slash at the end.
    pub(super) endpoint: String,
    pub(super) token: Option<String>,
    pub(super) offline: bool,
}

/// A path in a variable that is set to something, with `~`, `$NAME` and `${NAME}` written out, as the hub's own tools
/// do.
fn path_of(env: &impl Fn(&str) -> Option<OsString>, home: Option<&Path>, name: &str) -> Option<PathBuf> {
    let value = env(name).filter(|value| !value.is_empty())?;
    let path = match value.to_str() {
        Some(text) => PathBuf::from(expanded(text, env)),
        None => PathBuf::from(value),
    };
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Some(home.join(rest)),
        _ => Some(path),
    }
}

/// A text with the values of the variables in it; anything else stays.
fn expanded(text: &str, env: &impl Fn(&str) -> Option<OsString>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let plain = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        let (name, remainder) = match after.strip_prefix('{').and_then(|a| a.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(plain),
        };
        match env(name).filter(|_| !name.is_empty()).and_then(|value| value.into_string().ok()) {
            Some(value) => {
                out.push_str(&value);
                rest = remainder;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out + rest
}

impl Settings {
    /// Resolves options against an environment.
    pub(super) fn resolve(
        options: &PullOptions,
        env: impl Fn(&str) -> Option<OsString>,
        home: Option<&Path>,
    ) -> Result<Self, HubError> {
        let text = |name: &str| {
            let value = env(name).and_then(|value| value.into_string().ok());
            value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let hf_home = path_of(&env, home, "HF_HOME")
            .or_else(|| path_of(&env, home, "XDG_CACHE_HOME").map(|dir| dir.join("huggingface")))
            .or_else(|| home.map(|home| home.join(".cache").join("huggingface")));
        let cache_dir = options
            .cache_dir
            .clone()
            .or_else(|| path_of(&env, home, "HF_HUB_CACHE"))
            .or_else(|| path_of(&env, home, "HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|dir| dir.join("hub")))
            .ok_or(HubError::NoCacheDir)?;
        let token_file = || {
            let path = path_of(&env, home, "HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")))?;
            let token = files::read_text(&path, Kind::KEY).ok()?.trim().to_owned();
            (!token.is_empty()).then_some(token)
        };
        let token = options.token.clone().map(|token| token.trim().to_owned());
        let token = match token {
            // An empty token explicitly means none.
            Some(token) => Some(token).filter(|token| !token.is_empty()),
            None => text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(token_file),
        };
        let endpoint = options.endpoint.clone().or_else(|| text("HF_ENDPOINT")).unwrap_or_else(|| ENDPOINT.to_owned());
        // The second counts if the first is not set, or is empty or `0`.
        let flag = text("HF_HUB_OFFLINE")
            .or_else(|| text("TRANSFORMERS_OFFLINE"))
            .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()));
        Ok(Self {
            cache_dir,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            offline: options.offline.unwrap_or(flag),
        })
    }

    /// Resolves options against the environment of this process.
    pub(super) fn from_process(options: &PullOptions) -> Result<Self, HubError> {
        Self::resolve(options, |name| std::env::var_os(name), std::env::home_dir().as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(options: &PullOptions, env: &[(&str, &str)]) -> Settings {
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        Settings::resolve(options, env, Some(Path::new("/home/x"))).expect("settings")
    }

    #[test]
    fn the_environment_of_hugging_face_is_obeyed() {
        let none = PullOptions::default();
        let settings = resolve(&none, &[]);
        assert_eq!(settings.cache_dir, Path::new("/home/x/.cache/huggingface/hub"));
        assert_eq!((settings.endpoint.as_str(), settings.token, settings.offline), (ENDPOINT, None, false));
        assert_eq!(resolve(&none, &[("XDG_CACHE_HOME", "/c")]).cache_dir, Path::new("/c/huggingface/hub"));
        let home = ("HF_HOME", "/h");
        assert_eq!(resolve(&none, &[home, ("XDG_CACHE_HOME", "/c")]).cache_dir, Path::new("/h/hub"));
        assert_eq!(resolve(&none, &[home, ("HF_HUB_CACHE", "/k")]).cache_dir, Path::new("/k"));
        let settings = resolve(&none, &[("HF_ENDPOINT", "http://m/"), ("HF_TOKEN", " t\n"), ("HF_HUB_OFFLINE", "1")]);
        assert_eq!((settings.endpoint.as_str(), settings.token.as_deref()), ("http://m", Some("t")));
        assert!(settings.offline);
        assert!(!resolve(&none, &[("HF_HUB_OFFLINE", "0")]).offline);
        assert!(!resolve(&none, &[("HF_HUB_OFFLINE", "")]).offline);
        assert!(resolve(&none, &[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(resolve(&none, &[("TRANSFORMERS_OFFLINE", "ON"), ("HF_HUB_OFFLINE", "")]).offline);
        assert!(!resolve(&none, &[("TRANSFORMERS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "0")]).offline);
        let nowhere = Settings::resolve(&none, |_| None, None);
        assert!(matches!(nowhere, Err(HubError::NoCacheDir)));
    }

    #[test]
    fn homes_and_variables_in_paths_are_written_out() {
        let dir = |env: &[(&str, &str)]| resolve(&PullOptions::default(), env).cache_dir;
        assert_eq!(dir(&[("HF_HOME", "~/x")]), Path::new("/home/x/x/hub"));
        assert_eq!(dir(&[("HF_HOME", "~")]), Path::new("/home/x/hub"));
        assert_eq!(dir(&[("HF_HUB_CACHE", "~/c")]), Path::new("/home/x/c"));
        assert_eq!(dir(&[("XDG_CACHE_HOME", "~/c")]), Path::new("/home/x/c/huggingface/hub"));
        let big = ("BIG", "/disk");
        assert_eq!(dir(&[("HF_HOME", "$BIG/hf"), big]), Path::new("/disk/hf/hub"));
        assert_eq!(dir(&[("HF_HOME", "${BIG}2"), big]), Path::new("/disk2/hub"));
        // Anything but a home or a variable is an ordinary name.
        assert_eq!(dir(&[("HF_HOME", "/a/~/$NONE/$")]), Path::new("/a/~/$NONE/$/hub"));
        assert_eq!(dir(&[("HF_HOME", "~other/x")]), Path::new("~other/x/hub"));
    }

    #[test]
    fn options_come_before_the_environment() {
        let options = PullOptions {
            cache_dir: Some("/o".into()),
            endpoint: Some("http://o".into()),
            token: Some(String::new()),
            offline: Some(false),
            ..PullOptions::default()
        };
        let env = [("HF_HUB_CACHE", "/k"), ("HF_ENDPOINT", "http://m"), ("HF_TOKEN", "t"), ("HF_HUB_OFFLINE", "1")];
        let settings = resolve(&options, &env);
        assert_eq!((settings.cache_dir.as_path(), settings.endpoint.as_str()), (Path::new("/o"), "http://o"));
        assert_eq!((settings.token, settings.offline), (None, false));
    }

    #[test]
    fn the_token_file_is_read() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("token"), "secret\n").expect("write");
        let home = dir.path().to_str().expect("path");
        assert_eq!(resolve(&PullOptions::default(), &[("HF_HOME", home)]).token.as_deref(), Some("secret"));
        let env = [("HF_HOME", home), ("HF_TOKEN", "first")];
        assert_eq!(resolve(&PullOptions::default(), &env).token.as_deref(), Some("first"));
        let path = dir.path().join("token");
        let env = [("HF_TOKEN_PATH", path.to_str().expect("path"))];
        assert_eq!(resolve(&PullOptions::default(), &env).token.as_deref(), Some("secret"));
    }
}
