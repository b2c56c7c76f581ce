//! Tile sizes of TL1 and TL2 files, which the files do not hold: as typed, from a `kernel_config.ini`, or a preset.
#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

use std::path::Path;
use std::str::FromStr;

use ternary_kernels::TlTile;

use crate::LoadError;
use crate::gguf::GgmlType;
use crate::mmap::read_bounded;

/// The longest `kernel_config.ini` accepted, bytes; real ones have a few hundred.
const MAX_INI: u64 = 1 << 20;

/// Tile sizes by the shape of a tensor, with which users complete TL1 and TL2 files.
///
/// ```
/// use loader::TlTiles;
/// // One for all shapes, and one for one shape, which goes before.
/// let tiles: TlTiles = "bm=160,bk=64,bmm=32; 3200x3200: bm=320,bk=128,bmm=64".parse()?;
/// # assert_eq!(tiles.len(), 2);
/// // What bitnet.cpp ships for one of its models.
/// let preset: TlTiles = "bitnet_b1_58-3B".parse()?;
/// # assert_eq!(preset.len(), 6);
/// # Ok::<(), loader::LoadError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlTiles {
    /// Later entries go before earlier ones.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// One of the two types; `None` is both.
    ty: Option<GgmlType>,
    /// `[rows, cols]`; `None` is every shape.
    shape: Option<(u64, u64)>,
    tile: TlTile,
}

/// Rows, columns, and `bm, bk, bmm` for TL1 and for TL2.
type PresetRow = (u64, u64, [usize; 3], [usize; 3]);

/// The configurations that bitnet.cpp ships (`preset_kernels/*/kernel_config_tl{1,2}.ini`).
static PRESETS: &[(&str, &[PresetRow])] = &[
    (
        "bitnet_b1_58-3B",
        &[
            (3200, 8640, [160, 64, 32], [160, 96, 32]),
            (3200, 3200, [320, 128, 64], [320, 96, 32]),
            (8640, 3200, [320, 64, 32], [320, 96, 32]),
        ],
    ),
    (
        "bitnet_b1_58-large",
        &[
            (1536, 4096, [256, 128, 32], [256, 96, 32]),
            (1536, 1536, [128, 64, 64], [128, 192, 32]),
            // The second one has a bmm that no TL2 file can have; it is rejected when it is used.
            (4096, 1536, [256, 128, 32], [256, 96, 64]),
        ],
    ),
    (
        "Llama3-8B-1.58",
        &[
            (14336, 4096, [256, 128, 64], [256, 96, 32]),
            (4096, 14336, [256, 128, 32], [128, 96, 32]),
            (1024, 4096, [128, 64, 64], [256, 96, 32]),
            (4096, 4096, [128, 64, 32], [128, 96, 32]),
        ],
    ),
];

impl TlTiles {
    /// One tile for tensors of both types and of every shape.
    pub fn uniform(tile: TlTile) -> Self {
        Self { entries: vec![Entry { ty: None, shape: None, tile }] }
    }

    /// Names of the presets.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|p| p.0)
    }

    /// The preset with this name; upper and lower case are the same.
    pub fn preset(name: &str) -> Option<Self> {
        let (_, rows) = PRESETS.iter().find(|p| p.0.eq_ignore_ascii_case(name))?;
        let entries = rows.iter().flat_map(|&(m, k, tl1, tl2)| {
            [(GgmlType::Tl1, tl1), (GgmlType::Tl2, tl2)].map(|(ty, [bm, bk, bmm])| Entry {
                ty: Some(ty),
                shape: Some((m, k)),
                tile: TlTile { bm, bk, bmm },
            })
        });
        Some(Self { entries: entries.collect() })
    }

    /// Adds a tile for tensors of `rows` times `cols`, which takes precedence over existing ones.
    #[must_use]
    pub fn with(mut self, rows: u64, cols: u64, tile: TlTile) -> Self {
        self.entries.push(Entry { ty: None, shape: Some((rows, cols)), tile });
        self
    }

    /// Adds all tiles of `other`, which take precedence over existing ones.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self
    }

    /// A user's choice of tiles: the name of a preset, the path of a `kernel_config.ini`, or sizes as [`FromStr`] reads
    /// them.
    ///
    /// # Errors
    /// [`LoadError::Tiles`] for any other text; [`LoadError::Io`] for a file that cannot be read.
    pub fn from_argument(text: &str) -> Result<Self, LoadError> {
        if text.ends_with(".ini") {
            let path = Path::new(text);
            let bytes = read_bounded(path, "kernel_config.ini", MAX_INI)?;
            return Self::from_ini(&String::from_utf8_lossy(&bytes)).map_err(|e| e.in_file(path));
        }
        text.parse()
    }

    /// The sections of a `kernel_config.ini`: `m`, `k`, `bm`, `bk` and `bmm` each, other keys are ignored.
    ///
    /// # Errors
    /// [`LoadError::Tiles`] for a section that lacks one of them, a value that is not a number, or a file without
    /// sections.
    pub fn from_ini(text: &str) -> Result<Self, LoadError> {
        let mut tiles = Self::default();
        for section in text.split('[').skip(1) {
            let (name, body) = section.split_once(']').unwrap_or((section, ""));
            let fields = body.lines().filter_map(|line| line.split(['#', ';']).next()?.split_once('='));
            let fields = Fields::read(fields).map_err(|reason| bad(&format!("[{name}]"), reason))?;
            let tile = fields.tile().map_err(|reason| bad(&format!("[{name}]"), reason))?;
            let shape = fields.m.zip(fields.k).ok_or_else(|| bad(&format!("[{name}]"), "m or k is missing".into()))?;
            tiles.entries.push(Entry { ty: None, shape: Some(shape), tile });
        }
        if tiles.is_empty() {
            return Err(bad("the file", "it has no sections".to_owned()));
        }
        Ok(tiles)
    }

    /// The number of tiles.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no tiles.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tile for a tensor, if there is one.
    pub fn find(&self, ty: GgmlType, rows: u64, cols: u64) -> Option<TlTile> {
        let fits = |e: &&Entry| e.ty.is_none_or(|t| t == ty) && e.shape.is_none_or(|s| s == (rows, cols));
        // An entry for one shape takes precedence over entries for all; among equals the last one counts.
        let found = self.entries.iter().filter(fits).max_by_key(|e| e.shape.is_some());
        found.map(|e| e.tile)
    }

    /// The user's choice, for messages.
    pub(crate) fn describe(&self) -> String {
        let mut shapes: Vec<String> = Vec::new();
        for entry in &self.entries {
            let shape = entry.shape.map_or("every shape".to_owned(), |(m, k)| format!("{m}x{k}"));
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
        }
        if shapes.is_empty() {
            "none were named".to_owned()
        } else {
            format!("they were named for {}", shapes.join(", "))
        }
    }
}

impl FromStr for TlTiles {
    type Err = LoadError;

    /// The name of a preset, or `[MxK:]bm=N,bk=N,bmm=N`, several of these separated by semicolons.
    fn from_str(text: &str) -> Result<Self, LoadError> {
        if let Some(preset) = Self::preset(text.trim()) {
            return Ok(preset);
        }
        let mut tiles = Self::default();
        for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let (shape, sizes) = match part.split_once(':') {
                Some((shape, sizes)) => {
                    let numbers =
                        shape.trim().split_once('x').and_then(|(m, k)| Some((m.parse().ok()?, k.parse().ok()?)));
                    let reason = || "expected a shape before the colon, as 3200x8640 (rows x columns)".to_owned();
                    (Some(numbers.ok_or_else(|| bad(part, reason()))?), sizes)
                }
                None => (None, part),
            };
            if !sizes.contains('=') {
                let presets: Vec<&str> = Self::presets().collect();
                let reason = format!(
                    "it is neither a preset ({}), nor a file that ends in .ini, nor sizes as bm=160,bk=64,bmm=32",
                    presets.join(", ")
                );
                return Err(bad(part, reason));
            }
            let fields = sizes.split(',').map(|f| f.split_once('=').unwrap_or((f, "")));
            let fields = Fields::read(fields).map_err(|reason| bad(part, reason))?;
            let tile = fields.tile().map_err(|reason| bad(part, reason))?;
            tiles.entries.push(Entry { ty: None, shape, tile });
        }
        if tiles.is_empty() {
            return Err(bad(text, "it is empty".to_owned()));
        }
        Ok(tiles)
    }
}

/// The numbers of one section or one argument.
#[derive(Default)]
struct Fields {
    m: Option<u64>,
    k: Option<u64>,
    bm: Option<u64>,
    bk: Option<u64>,
    bmm: Option<u64>,
}

impl Fields {
    fn read<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut fields = Self::default();
        for (key, value) in pairs {
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            let field = match key.as_str() {
                "m" => &mut fields.m,
                "k" => &mut fields.k,
                "bm" => &mut fields.bm,
                "bk" => &mut fields.bk,
                "bmm" => &mut fields.bmm,
                _ => continue,
            };
            *field = Some(value.parse().map_err(|_| format!("{key} is {value:?}, which is not a number"))?);
        }
        Ok(fields)
    }

    fn tile(&self) -> Result<TlTile, String> {
        let size = |name: &str, value: Option<u64>| {
            let value = value.ok_or_else(|| format!("{name} is missing"))?;
            usize::try_from(value).map_err(|_| format!("{name} is too large"))
        };
        Ok(TlTile { bm: size("bm", self.bm)?, bk: size("bk", self.bk)?, bmm: size("bmm", self.bmm)? })
    }
}

fn bad(what: &str, reason: String) -> LoadError {
    LoadError::Tiles { what: what.to_owned(), reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test may.
mod tests {
    use super::*;

    const TILE: TlTile = TlTile { bm: 160, bk: 64, bmm: 32 };

    #[test]
    fn presets_depend_on_type_and_shape() {
        let p: TlTiles = "BITNET_b1_58-3b".parse().unwrap();
        assert_eq!(p.find(GgmlType::Tl1, 3200, 8640), Some(TILE));
        assert_eq!(p.find(GgmlType::Tl2, 3200, 8640), Some(TlTile { bm: 160, bk: 96, bmm: 32 }));
        assert_eq!(p.find(GgmlType::Tl1, 2560, 2560), None);
        assert_eq!(TlTiles::presets().count(), 3);
        // Every tile of every preset fits its shape, but for the one that its own converter cannot use.
        let mut refused = Vec::new();
        for name in TlTiles::presets() {
            for e in TlTiles::preset(name).unwrap().entries {
                let (m, k) = e.shape.unwrap();
                let format = match e.ty.unwrap() {
                    GgmlType::Tl1 => ternary_kernels::FileFormat::Tl1(e.tile),
                    _ => ternary_kernels::FileFormat::Tl2(e.tile),
                };
                if format.byte_len(usize::try_from(m).unwrap(), usize::try_from(k).unwrap()).is_err() {
                    refused.push((name, format.name(), m, k));
                }
            }
        }
        assert_eq!(refused, [("bitnet_b1_58-large", "TL2", 4096, 1536)]);
    }

    #[test]
    fn what_is_said_of_one_shape_goes_before_what_is_said_of_all() {
        let tiles: TlTiles = " 64x96 : bmm=32, bm=64, bk=32; bm=160,bk=64,bmm=32".parse().unwrap();
        assert_eq!(tiles.find(GgmlType::Tl2, 64, 96), Some(TlTile { bm: 64, bk: 32, bmm: 32 }));
        assert_eq!(tiles.find(GgmlType::Tl1, 96, 64), Some(TILE));
        // The later of two equally specific entries.
        let twice = TlTiles::uniform(TILE).and(TlTiles::uniform(TlTile { bm: 1, ..TILE }));
        assert_eq!(twice.find(GgmlType::Tl1, 1, 1).unwrap().bm, 1);
        assert_eq!(
            TlTiles::uniform(TILE).with(3, 4, TlTile { bm: 3, ..TILE }).find(GgmlType::Tl1, 3, 4).unwrap().bm,
            3
        );
    }

    #[test]
    fn the_configuration_of_a_build_is_read() {
        let ini = "[Kernels_0]\nm = 3200\nk = 8640 # columns\nbm = 160\nbk = 64\nbmm = 32\n\n[Kernels_1]\nm=64\nk=96\nbm=64\nbk=32\nbmm=64\n";
        let tiles = TlTiles::from_ini(ini).unwrap();
        assert_eq!((tiles.len(), tiles.find(GgmlType::Tl1, 3200, 8640)), (2, Some(TILE)));
        assert_eq!(tiles.find(GgmlType::Tl2, 64, 96), Some(TlTile { bm: 64, bk: 32, bmm: 64 }));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel_config.ini");
        std::fs::write(&path, ini).unwrap();
        assert_eq!(TlTiles::from_argument(path.to_str().unwrap()).unwrap(), tiles);
        assert!(matches!(TlTiles::from_argument("no-such.ini"), Err(LoadError::Io { .. })));
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        let says = |result: Result<TlTiles, LoadError>, what: &str| {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(what), "{what:?} is not in {message:?}");
        };
        for (text, what) in [
            ("", "empty"),
            ("bitnet_b1_58-2B", "Llama3-8B-1.58"),
            ("bm=160,bk=64", "bmm is missing"),
            ("bm=160,bk=x,bmm=32", "\"x\""),
            ("bm=-1,bk=64,bmm=32", "\"-1\""),
            ("3200: bm=160,bk=64,bmm=32", "3200x8640"),
            ("axb: bm=160,bk=64,bmm=32", "3200x8640"),
        ] {
            says(text.parse(), what);
        }
        for (ini, what) in [
            ("", "no sections"),
            ("[a]\nm=1\nk=1\nbm=1\nbk=1\n", "bmm is missing"),
            ("[a]\nbm=1\nbk=1\nbmm=1\n", "m or k is missing"),
            ("[a", "bm is missing"),
        ] {
            says(TlTiles::from_ini(ini), what);
        }
    }
}
