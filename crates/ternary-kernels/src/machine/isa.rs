//! Instruction sets: their names, which of them this CPU has, and the tokens that prove it.
//!
//! Detection happens once per process. `BITNET_ISA` forces one instruction set; a name that is unknown or not available
//! is an error.

use std::sync::OnceLock;

use crate::KernelError;

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable Rust, on every CPU.
    Scalar,
    /// x86-64 with SSE4.1 and SSSE3 (128-bit `pmaddubsw` and `pshufb`).
    Sse41,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX2, FMA, F16C and AVX-VNNI (256-bit `vpdpbusd`, VEX encoded).
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL, DQ and VNNI (512-bit `vpdpbusd`).
    Avx512Vnni,
    /// 64-bit ARM with NEON, which every such CPU has.
    Neon,
    /// 64-bit ARM with NEON and the dot-product extension (`sdot`).
    NeonDot,
    /// 64-bit ARM with NEON, the dot-product and the matrix-multiplication extension (`smmla`).
    NeonI8mm,
    /// WebAssembly with 128-bit SIMD. There is no detection: a program is built with or without it.
    Simd128,
}

impl Isa {
    /// All sets, worst first.
    pub const ALL: &'static [Isa] = &[
        Isa::Scalar,
        Isa::Sse41,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512Vnni,
        Isa::Neon,
        Isa::NeonDot,
        Isa::NeonI8mm,
        Isa::Simd128,
    ];

    /// The name used in `BITNET_ISA`, `--isa` and kernel names.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Sse41 => "sse41",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Neon => "neon",
            Isa::NeonDot => "neondot",
            Isa::NeonI8mm => "neoni8mm",
            Isa::Simd128 => "simd128",
        }
    }

    /// The instruction sets that a CPU with this one also has, best first, including this one and [`Isa::Scalar`].
    ///
    /// ```
    /// use ternary_kernels::Isa;
    /// assert_eq!(Isa::NeonI8mm.included(), [Isa::NeonI8mm, Isa::NeonDot, Isa::Neon, Isa::Scalar]);
    /// assert!(!Isa::Avx512Vnni.included().contains(&Isa::AvxVnni)); // The same instruction in another encoding.
    /// ```
    pub fn included(self) -> &'static [Isa] {
        match self {
            Isa::Scalar => &[Isa::Scalar],
            Isa::Sse41 => &[Isa::Sse41, Isa::Scalar],
            Isa::Avx2 => &[Isa::Avx2, Isa::Sse41, Isa::Scalar],
            Isa::AvxVnni => &[Isa::AvxVnni, Isa::Avx2, Isa::Sse41, Isa::Scalar],
            Isa::Avx512Vnni => &[Isa::Avx512Vnni, Isa::Avx2, Isa::Sse41, Isa::Scalar],
            Isa::Neon => &[Isa::Neon, Isa::Scalar],
            Isa::NeonDot => &[Isa::NeonDot, Isa::Neon, Isa::Scalar],
            Isa::NeonI8mm => &[Isa::NeonI8mm, Isa::NeonDot, Isa::Neon, Isa::Scalar],
            Isa::Simd128 => &[Isa::Simd128, Isa::Scalar],
        }
    }

    /// Parses a name.
    ///
    /// # Errors
    /// [`KernelError::UnknownIsa`] for any other name.
    pub fn from_name(name: &str) -> Result<Self, KernelError> {
        Self::ALL
            .iter()
            .copied()
            .find(|i| i.name() == name)
            .ok_or_else(|| KernelError::UnknownIsa { name: name.to_owned(), known: join(Self::ALL.iter().copied()) })
    }

    /// Whether this CPU can run it.
    pub fn is_available(self) -> bool {
        let cpu = Cpu::get();
        match self {
            Isa::Scalar => true,
            Isa::Sse41 => cpu.sse41().is_some(),
            Isa::Avx2 => cpu.avx2().is_some(),
            Isa::AvxVnni => cpu.avx_vnni().is_some(),
            Isa::Avx512Vnni => cpu.avx512_vnni().is_some(),
            Isa::Neon => cpu.neon().is_some(),
            Isa::NeonDot => cpu.neon_dot().is_some(),
            Isa::NeonI8mm => cpu.neon_i8mm().is_some(),
            Isa::Simd128 => cpu.simd128().is_some(),
        }
    }

    /// The instruction sets that this CPU can run, worst first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.iter().copied().filter(|i| i.is_available())
    }

    /// The instruction set to use: the one that `BITNET_ISA` names, or the best that this CPU has. Read from the
    /// environment once.
    ///
    /// # Errors
    /// [`KernelError::UnknownIsa`] or [`KernelError::UnavailableIsa`] if `BITNET_ISA` names something else.
    pub fn selected() -> Result<Self, KernelError> {
        static SELECTED: OnceLock<Result<Isa, KernelError>> = OnceLock::new();
        SELECTED
            .get_or_init(|| match std::env::var("BITNET_ISA") {
                Ok(name) if !name.is_empty() => Self::from_name(&name)?.require(),
                _ => Ok(Self::available().last().unwrap_or(Isa::Scalar)),
            })
            .clone()
    }

    /// Returns `self` if this CPU can run it.
    ///
    /// # Errors
    /// [`KernelError::UnavailableIsa`] otherwise.
    pub fn require(self) -> Result<Self, KernelError> {
        if self.is_available() {
            return Ok(self);
        }
        Err(KernelError::UnavailableIsa { name: self.name(), available: join(Self::available()) })
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

fn join(isas: impl Iterator<Item = Isa>) -> String {
    isas.map(Isa::name).collect::<Vec<_>>().join(", ")
}

/// Whether this CPU has a feature.
#[cfg(target_arch = "x86_64")]
macro_rules! has {
    ($feature:tt) => {
        std::arch::is_x86_feature_detected!($feature)
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! has {
    ($feature:tt) => {
        std::arch::is_aarch64_feature_detected!($feature)
    };
}
#[cfg(target_arch = "wasm32")]
macro_rules! has {
    ($feature:tt) => {
        cfg!(target_feature = $feature)
    };
}

/// Runs intrinsics that touch no memory; the token `$self`, or another value of its type, proves that they may run.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! proven {
    ($self:ident, $intrinsics:expr) => {
        $crate::isa::proven!($self, Self, $intrinsics)
    };
    ($token:ident, $of:ty, $intrinsics:expr) => {{
        let _token: $of = $token;
        // SAFETY: the intrinsics in the argument only work on values, so all they need is a CPU with the features that
        // the token's type names, and only detection creates a token.
        unsafe { $intrinsics }
    }};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use proven;

/// Runs a block that is compiled for the instruction set of a token:
///
/// ```text
/// compiled!(Avx2, cpu => |cpu, x: &[f32], out: &mut [f32]| { ... })
/// ```
///
/// The first `cpu` is an expression, a token of the named type. The block receives the variables `x` and `out` under
/// their names, as it becomes a separate function. It may call functions with the features of the token.
#[allow(unused_macros, reason = "some architectures have portable code only")]
macro_rules! compiled {
    (Sse41, $($rest:tt)+) => {
        $crate::isa::compiled!(@ Sse41, features = "ssse3,sse4.1", $($rest)+)
    };
    (Avx2, $($rest:tt)+) => {
        $crate::isa::compiled!(@ Avx2, features = "avx2,fma,f16c", $($rest)+)
    };
    (AvxVnni, $($rest:tt)+) => {
        $crate::isa::compiled!(@ AvxVnni, features = "avx2,fma,f16c,avxvnni", $($rest)+)
    };
    (Avx512Vnni, $($rest:tt)+) => {
        $crate::isa::compiled!(
            @ Avx512Vnni, features = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni", $($rest)+
        )
    };
    (Avx512Vbmi, $($rest:tt)+) => {
        $crate::isa::compiled!(
            @ Avx512Vbmi,
            features = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi",
            $($rest)+
        )
    };
    (Neon, $($rest:tt)+) => {
        $crate::isa::compiled!(@ Neon, features = "neon", $($rest)+)
    };
    (NeonDot, $($rest:tt)+) => {
        $crate::isa::compiled!(@ NeonDot, features = "neon,dotprod", $($rest)+)
    };
    (NeonI8mm, $($rest:tt)+) => {
        $crate::isa::compiled!(@ NeonI8mm, features = "neon,dotprod,i8mm", $($rest)+)
    };
    (Simd128, $($rest:tt)+) => {
        $crate::isa::compiled!(@ Simd128, features = "simd128", $($rest)+)
    };
    (
        @ $token:ident, features = $features:literal,
        $proof:expr => $(<$(const $c:ident: $ct:ty),+>)? |$cpu:ident $(, $arg:ident: $ty:ty)* $(,)?|
        $(-> $ret:ty)? $body:block
    ) => {{
        #[target_feature(enable = $features)]
        fn compiled $(<$(const $c: $ct),+>)? ($cpu: $crate::isa::$token $(, $arg: $ty)*) $(-> $ret)? $body
        let token: $crate::isa::$token = $proof;
        // SAFETY: a token of this type exists only where detection has found these features: a test compares the lists.
        #[allow(unused_unsafe, reason = "if the whole build has the features, the call is safe")]
        unsafe { compiled $(::<$($c),+>)? (token $(, $arg)*) }
    }};
}
#[allow(unused_imports, reason = "some architectures have portable code only")]
pub(crate) use compiled;

/// Declares the proof token of an instruction set from its architecture and its feature list.
macro_rules! isa_token {
    ($(#[$doc:meta])* $token:ident, $arch:literal, $list:ident = $literal:literal, [$($feature:tt),+]) => {
        $(#[$doc])*
        /// Only detection creates it, so a caller that holds one may call functions compiled for the instruction set.
        /// Only detection creates it, so a model that holds one may call functions compiled for the set.
        #[derive(Clone, Copy, Debug)]
        pub struct $token { _private: () }

        impl $token {
            #[cfg(target_arch = $arch)]
            fn detect() -> Option<Self> {
                (true $(&& has!($feature))+).then_some(Self { _private: () })
            }
            #[cfg(not(target_arch = $arch))]
            fn detect() -> Option<Self> {
                None
            }
        }

        #[cfg(test)]
        const $list: (&str, &[&str]) = ($literal, &[$($feature),+]);
    };
}

isa_token!(
    /// Proof that this CPU has SSSE3 and SSE4.1.
    Sse41, "x86_64", SSE41_LIST = "ssse3,sse4.1", ["ssse3", "sse4.1"]
);
isa_token!(
    /// Proof that this CPU has AVX2, FMA and F16C.
    Avx2, "x86_64", AVX2_LIST = "avx2,fma,f16c", ["avx2", "fma", "f16c"]
);
isa_token!(
    /// Proof that this CPU has AVX-VNNI in addition to [`Avx2`].
    AvxVnni, "x86_64", AVXVNNI_LIST = "avx2,fma,f16c,avxvnni", ["avx2", "fma", "f16c", "avxvnni"]
);
isa_token!(
    /// Proof that this CPU has AVX-512 F, BW, VL, DQ and VNNI in addition to [`Avx2`].
    Avx512Vnni, "x86_64",
    AVX512_LIST = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
    ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"]
);
isa_token!(
    /// Proof that this CPU has AVX-512 VBMI (byte permutations) in addition to [`Avx512Vnni`]. It is not a separate
    /// instruction set in [`Isa`]: operations and most kernels do not use it.
    Avx512Vbmi, "x86_64",
    AVX512_VBMI_LIST = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi",
    ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "avx512vbmi"]
);
isa_token!(
    /// Proof that this CPU has NEON.
    Neon, "aarch64", NEON_LIST = "neon", ["neon"]
);
isa_token!(
    /// Proof that this CPU has NEON and the dot-product extension.
    NeonDot, "aarch64", NEON_DOT_LIST = "neon,dotprod", ["neon", "dotprod"]
);
isa_token!(
    /// Proof that this CPU has NEON, the dot-product and the matrix-multiplication extension.
    NeonI8mm, "aarch64", NEON_I8MM_LIST = "neon,dotprod,i8mm", ["neon", "dotprod", "i8mm"]
);
isa_token!(
    /// Proof that this program was built for WebAssembly with SIMD.
    Simd128, "wasm32", SIMD128_LIST = "simd128", ["simd128"]
);

/// Whether this host rounds a relaxed product and sum once, as the canonical arithmetic does and hosts may do. A program that
/// is built with relaxed SIMD has portable code only where it does not.
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
fn fuses() -> bool {
    use std::arch::wasm32::{f32x4_extract_lane, f32x4_relaxed_madd, f32x4_splat};
    // The square is 1 + 2^-11 + 2^-24; rounded by itself it loses the last term.
    let x = f32x4_splat(1.0 + 2f32.powi(-12));
    let sum = f32x4_relaxed_madd(x, x, f32x4_splat(-1.0 - 2f32.powi(-11)));
    f32x4_extract_lane::<0>(sum) == 2f32.powi(-24)
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "relaxed-simd")))]
fn fuses() -> bool {
    true
}

/// The stand-in for a token in code that is compiled for no instruction set: it needs no proof.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Avx512Vbmi {
    /// The included instruction set.
    pub fn vnni(self) -> Avx512Vnni {
        Avx512Vnni { _private: () }
    }
}

impl NeonDot {
    /// The included instruction set.
    pub fn neon(self) -> Neon {
        Neon { _private: () }
    }
}

impl NeonI8mm {
    /// The included instruction set.
    pub fn neon(self) -> Neon {
        Neon { _private: () }
    }
}

/// The features of this CPU, detected once per process.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    sse41: Option<Sse41>,
    avx2: Option<Avx2>,
    avx_vnni: Option<AvxVnni>,
    avx512_vnni: Option<Avx512Vnni>,
    avx512_vbmi: Option<Avx512Vbmi>,
    neon: Option<Neon>,
    neon_dot: Option<NeonDot>,
    neon_i8mm: Option<NeonI8mm>,
    simd128: Option<Simd128>,
}

impl Cpu {
    /// The CPU that this process runs on.
    pub fn get() -> &'static Cpu {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        CPU.get_or_init(|| Cpu {
            sse41: Sse41::detect(),
            avx2: Avx2::detect(),
            avx_vnni: AvxVnni::detect(),
            avx512_vnni: Avx512Vnni::detect(),
            avx512_vbmi: Avx512Vbmi::detect(),
            neon: Neon::detect(),
            neon_dot: NeonDot::detect(),
            neon_i8mm: NeonI8mm::detect(),
            simd128: Simd128::detect().filter(|_| fuses()),
        })
    }
    /// Proof of SSSE3 and SSE4.1.
    pub fn sse41(&self) -> Option<Sse41> {
        self.sse41
    }
    /// Proof of AVX2, FMA and F16C.
    pub fn avx2(&self) -> Option<Avx2> {
        self.avx2
    }
    /// Proof of AVX-VNNI.
    pub fn avx_vnni(&self) -> Option<AvxVnni> {
        self.avx_vnni
    }
    /// Proof of AVX-512 with VNNI.
    pub fn avx512_vnni(&self) -> Option<Avx512Vnni> {
        self.avx512_vnni
    }
    /// Proof of AVX-512 with VNNI and VBMI.
    pub fn avx512_vbmi(&self) -> Option<Avx512Vbmi> {
        self.avx512_vbmi
    }
    /// Proof of NEON.
    pub fn neon(&self) -> Option<Neon> {
        self.neon
    }
    /// Proof of NEON with the dot-product extension.
    pub fn neon_dot(&self) -> Option<NeonDot> {
        self.neon_dot
    }
    /// Proof of NEON with the dot-product and the matrix-multiplication extension.
    pub fn neon_i8mm(&self) -> Option<NeonI8mm> {
        self.neon_i8mm
    }
    /// Proof of WebAssembly SIMD.
    pub fn simd128(&self) -> Option<Simd128> {
        self.simd128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `#[target_feature]` needs a literal, so several files repeat the lists; this test keeps the copies equal to what
    /// detection checks.
    #[test]
    fn every_target_feature_attribute_is_a_detected_list() {
        let lists = [
            SSE41_LIST,
            AVX2_LIST,
            AVXVNNI_LIST,
            AVX512_LIST,
            AVX512_VBMI_LIST,
            NEON_LIST,
            NEON_DOT_LIST,
            NEON_I8MM_LIST,
            SIMD128_LIST,
        ];
        for (literal, features) in lists {
            assert_eq!(literal, features.join(","));
        }
        let mut seen = 0;
        let mut dirs = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                // The second form passes the list to a macro that writes the attribute.
                let attributes = text.split("target_feature(enable = \"").skip(1);
                for part in attributes.chain(text.split("features = \"").skip(1)) {
                    let list = part.split('"').next().unwrap();
                    if list.contains('$') {
                        continue;
                    }
                    // A part of a list that is detected together.
                    let list = if list == "neon,i8mm" { "neon,dotprod,i8mm" } else { list };
                    assert!(
                        lists.iter().any(|(l, _)| *l == list),
                        "{}: {list:?} is not what detection checks",
                        path.display()
                    );
                    seen += 1;
                }
            }
        }
        assert!(seen > 0, "no kernel is compiled for any instruction set");
    }

    #[test]
    fn names_round_trip_and_unknown_names_are_refused() {
        for &isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()), Ok(isa));
        }
        assert!(matches!(Isa::from_name("sse9"), Err(KernelError::UnknownIsa { .. })));
    }
}
