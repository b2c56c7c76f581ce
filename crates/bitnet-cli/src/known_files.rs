//! Public files of ternary models by size and sha256, from the pages of their publishers and from programs that pin
//! them. Files whose hash is uncertain are not included.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use crate::error::CliError;

/// A public file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KnownFile {
    /// Its name in the repository.
    name: &'static str,
    /// The repository that publishes it.
    repo: &'static str,
    bytes: u64,
    /// In lower case.
    sha256: &'static str,
}

const fn file(name: &'static str, repo: &'static str, bytes: u64, sha256: &'static str) -> KnownFile {
    KnownFile { name, repo, bytes, sha256 }
}

/// All of them. No two have the same size.
const FILES: &[KnownFile] = &[
    file(
        "ggml-model-i2_s.gguf",
        "microsoft/bitnet-b1.58-2B-4T-gguf",
        1_187_801_280,
        "4221b252fdd5fd25e15847adfeb5ee88886506ba50b8a34548374492884c2162",
    ),
    file(
        "ggml-model-i2_s.gguf",
        "tiiuae/Falcon-E-1B-Instruct-GGUF",
        666_324_256,
        "feb7478007e916d26bb807cb1a01cc45ac16f197e355d8c30aed25e550ecd73b",
    ),
    file(
        "ggml-model-i2_s.gguf",
        "tiiuae/Falcon-E-3B-Instruct-GGUF",
        999_908_608,
        "acef6896311c5d0713d80e4c7f7bc2ffa1fa183d905e2ca9236545372f434255",
    ),
    file(
        "ggml-model-i2_s.gguf",
        "tiiuae/Falcon3-1B-Instruct-1.58bit-GGUF",
        1_361_904_672,
        "0ecef8ad9bcb1b7d3b73bac7b0237daf2faa962b60cbbaf62c86ff51a39444b4",
    ),
    file(
        "ggml-model-i2_s.gguf",
        "tiiuae/Falcon3-3B-Instruct-1.58bit-GGUF",
        2_221_465_632,
        "2ee9723dc1abcc53f231ef1637bdd7c1ec1dbaf132c2c59873100cfb48b41455",
    ),
    file(
        "ggml-model-i2_s.gguf",
        "tiiuae/Falcon3-7B-Instruct-1.58bit-GGUF",
        3_278_680_768,
        "612ab67d4c5fb77d9f810eb521eb4a477dae46df1a85ca501018490e2dac35c6",
    ),
    file(
        "ggml-model-i2_s.gguf",
        "tiiuae/Falcon3-10B-Instruct-1.58bit-GGUF",
        3_991_393_696,
        "e37945ee82693a6541b5fa5484f0e24787c04a9ce95e6e377f68a6b15f139c1f",
    ),
    file(
        "Ternary-Bonsai-1.7B-Q2_0.gguf",
        "prism-ml/Ternary-Bonsai-1.7B-gguf",
        463_290_464,
        "d97d94eb564590c9f0300e54d3f87bbbb25a78693d0ade9f6e177973dcb8228a",
    ),
    file(
        "Ternary-Bonsai-4B-Q2_0.gguf",
        "prism-ml/Ternary-Bonsai-4B-gguf",
        1_074_969_344,
        "4e0bf8b737b0431552f8c2c97695ab7c0cb214c94bcdeb4f5f267e67ddf28b8b",
    ),
    file(
        "Ternary-Bonsai-8B-Q2_0.gguf",
        "prism-ml/Ternary-Bonsai-8B-gguf",
        2_182_184_672,
        "3c8d70470a5d97e5a2b9410ddd899cb740116591462626c60cb2fead6448f60b",
    ),
    file(
        "Ternary-Bonsai-27B-Q2_0.gguf",
        "prism-ml/Ternary-Bonsai-27B-gguf",
        7_165_121_600,
        "868c11714cf8fe47f5ec9eeb2be0ab1a337112886f92ee0ede6b855c4fa31757",
    ),
    file(
        "Bonsai-1.7B-Q1_0.gguf",
        "prism-ml/Bonsai-1.7B-gguf",
        248_302_272,
        "3d7c6c90dd98717a203adb22d5eacd2581850e40aa5327e144b97766cae5f7e3",
    ),
    file(
        "Bonsai-4B-Q1_0.gguf",
        "prism-ml/Bonsai-4B-gguf",
        572_270_624,
        "4524b3f997f0f06444e568d1f26e2efd69effa3218c7ad3047432fb171e42168",
    ),
    file(
        "Bonsai-8B-Q1_0.gguf",
        "prism-ml/Bonsai-8B-gguf",
        1_158_654_496,
        "284a335aa3fb2ced3b1b01fcb40b08aa783e3b70832767f0dd2e3fdfa134bd54",
    ),
    file(
        "Hy-MT2-1.8B-1.25Bit.gguf",
        "tencent/Hy-MT2-1.8B-1.25Bit-GGUF",
        461_860_800,
        "cc497fe8f033b52b3b8b00a7669e9661435432f9d4cd43f7ed24400c01507a93",
    ),
];

impl KnownFile {
    pub(crate) fn json(&self) -> Json {
        json!({ "name": self.name, "repository": self.repo, "bytes": self.bytes, "sha256": self.sha256 })
    }
}

impl std::fmt::Display for KnownFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.name, self.repo)
    }
}

/// The public file with the size of this one. Equal sizes do not prove that it is the same.
pub(crate) fn identify(path: &Path) -> Option<&'static KnownFile> {
    let meta = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    of_size(meta.len())
}

fn of_size(bytes: u64) -> Option<&'static KnownFile> {
    FILES.iter().find(|f| f.bytes == bytes)
}

/// The sha256 of a file.
///
/// # Errors
/// A file that cannot be read, or is not a file.
pub(crate) fn sha256(path: &Path) -> Result<String, CliError> {
    let (mut file, _) = loader::files::open(path, "a model")?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(n) => hash.update(&block[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(CliError::io("read", path.display().to_string())(e)),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Identifies a file by its hash, or reports that the known file of this size has another hash.
pub(crate) fn verdict(path: &Path, sha256: &str) -> String {
    match (FILES.iter().find(|f| f.sha256 == sha256), identify(path)) {
        (Some(known), _) => format!("that of {known}"),
        (None, Some(known)) => {
            format!("not that of {known}, which has this size: another revision, or a damaged download")
        }
        (None, None) => "of no file that is known here".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_and_every_size_stands_for_one_file() {
        for (i, f) in FILES.iter().enumerate() {
            assert!(f.sha256.len() == 64 && f.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            assert!(f.repo.split('/').count() == 2 && f.name.ends_with(".gguf"), "{f}");
            assert!(FILES[..i].iter().all(|g| g.sha256 != f.sha256 && g.bytes != f.bytes), "{f}");
            assert_eq!(of_size(f.bytes), Some(f));
        }
        assert_eq!(of_size(0), None);
    }

    #[test]
    fn files_are_hashed_and_judged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let hash = sha256(&path).unwrap();
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(verdict(&path, &hash), "of no file that is known here");
        assert!(verdict(&path, FILES[0].sha256).contains("that of ggml-model-i2_s.gguf of microsoft/"));
        // A file with the size of a known one, without its contents: sparse, so that it takes no space.
        let sparse = dir.path().join("sparse.gguf");
        std::fs::File::create(&sparse).unwrap().set_len(FILES[7].bytes).unwrap();
        assert_eq!(identify(&sparse), Some(&FILES[7]));
        assert!(verdict(&sparse, &hash).contains("damaged download"));
        assert_eq!(identify(dir.path()), None);
        assert!(sha256(dir.path()).is_err());
    }
}
