//! Writing packed weights: their metadata, and their bytes, a few matrices at a time.

use std::io::Write;
use std::sync::mpsc;

use bitnet_model::{EngineOptions, ModelError, ModelWeights, PackedMatrix, Packer, Projection, Table};
use ternary_kernels::ops::coarse::CoarsePlane;
use ternary_kernels::{KernelError, KernelLayout, Scales, Team, TernaryMatrix, by_name};

use super::{
    COARSE, FORM, FORMATS, GROUPS, KERNELS, LAYOUT_VERSION, LAYOUTS, NAMES, PLANE, PREFIX, SCALES, SHAPES, TWOS,
    VERSION,
};
use crate::LoadError;
use crate::gguf::{Array, GgmlType, GgufWriter, Metadata, StringArray, TensorStream, Value};
use crate::names::Names;
use crate::synthetic::fnv;

/// The kernel for matrices whose own has no layout that files hold; every CPU has it.
const ANY: &str = "i2s_scalar";

/// The packed weights of a model, before they are packed.
pub(crate) struct Plan<'a> {
    packer: Packer,
    team: Team,
    matrices: Vec<Matrix<'a>>,
    coarse: Option<(String, CoarsePlane)>,
}

struct Matrix<'a> {
    /// The name that its tensor has in other GGUF files.
    name: String,
    w: &'a TernaryMatrix,
    layout: KernelLayout,
    /// Layer and projection; `None` for a table.
    place: Option<(usize, Projection)>,
}

impl<'a> Plan<'a> {
    /// All ternary matrices of `weights`, for the kernels that an engine with these options has. Those of kernels that
    /// have no layout for files become I2_S panels if `complete` asks for all, and are left out otherwise.
    ///
    /// # Errors
    /// The errors of an engine with these options.
    pub(crate) fn new(weights: &'a ModelWeights, options: &EngineOptions, complete: bool) -> Result<Self, LoadError> {
        Self::with(Packer::new(weights, options)?, weights, options, complete)
    }

    fn with(
        packer: Packer,
        weights: &'a ModelWeights,
        options: &EngineOptions,
        complete: bool,
    ) -> Result<Self, LoadError> {
        let threads = options.threads.unwrap_or_else(ternary_kernels::default_threads);
        let team = Team::new(threads).map_err(ModelError::from)?;
        let c = &weights.config;
        let mut matrices = Vec::new();
        for (l, layer) in weights.layers.iter().enumerate() {
            for (p, w) in layer.projections() {
                let any = KernelLayout::of_kernel(ANY).filter(|_| complete);
                let Some(layout) = packer.layout(p, w).or(any) else { continue };
                let name = Names::Gguf.projection(l, p, c.mixer(l)) + ".weight";
                matrices.push(Matrix { name, w, layout, place: Some((l, p)) });
            }
        }
        let tables = [(Names::Gguf.embedding(), Some(&weights.embedding)), (Names::Gguf.head(), weights.head.as_ref())];
        let mut coarse = None;
        for (name, table) in tables {
            let is_head = table.is_some_and(|t| weights.head_table().is_some_and(|h| std::ptr::eq(h, t)));
            match table {
                Some(Table::Ternary(w)) => {
                    matrices.push(Matrix { name, w, layout: packer.table_layout(w), place: None });
                }
                Some(Table::Float(m)) if is_head => coarse = packer.coarse(m, &team)?.map(|plane| (name, plane)),
                Some(Table::Float(_)) | None => (),
            }
        }
        Ok(Self { packer, team, matrices, coarse })
    }

    /// The matrices to cache so that an engine with these options packs nothing; `None` if that is so already,
    /// cannot be because a kernel has no layout for files, or is less than `least` bytes, which is found out before
    /// anything is computed.
    ///
    /// # Errors
    /// The errors of [`Plan::new`].
    pub(crate) fn of_unready(
        weights: &'a ModelWeights,
        options: &EngineOptions,
        least: u64,
    ) -> Result<Option<Self>, LoadError> {
        // A byte for each weight is more than any layout takes.
        if weights.config.parameters() < least {
            return Ok(None);
        }
        let packer = Packer::new(weights, options)?;
        if packer.is_ready(weights) || !packer.can_be_ready(weights) {
            return Ok(None);
        }
        let plan = Self::with(packer, weights, options, false)?;
        Ok(Some(plan).filter(|plan| plan.bytes() >= least))
    }

    /// A number that tells layouts apart.
    pub(crate) fn fingerprint(&self) -> u32 {
        let layouts = self.matrices.iter().map(|m| m.layout.to_string() + " ");
        let text: String = layouts.chain(self.coarse.as_ref().map(|(name, _)| name.clone())).collect();
        let hash = fnv(text.bytes());
        // Both halves count.
        u32::try_from((hash ^ (hash >> 32)) & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    /// Packed matrices.
    pub(crate) fn len(&self) -> usize {
        self.matrices.len()
    }

    /// Bytes of all packed weights.
    pub(crate) fn bytes(&self) -> u64 {
        let of = |m: &Matrix<'_>| m.layout.byte_len(m.w.rows(), m.w.cols()).unwrap_or(0) as u64;
        let plane = self.coarse.as_ref().map_or(0, |(_, plane)| plane.byte_len() as u64);
        self.matrices.iter().map(of).fold(plane, u64::saturating_add)
    }

    /// The keys.
    pub(crate) fn describe(&self, m: &mut Metadata) {
        let list = |text: &dyn Fn(&Matrix<'_>) -> String| self.matrices.iter().map(text).collect::<StringArray>();
        let counts = |of: &dyn Fn(&Matrix<'_>) -> Vec<usize>| {
            let all = self.matrices.iter().flat_map(of).map(|n| n as u64);
            Value::Array(Array::U64(all.collect()))
        };
        m.set(VERSION, FORM);
        m.set(LAYOUT_VERSION, KernelLayout::VERSION);
        m.set(KERNELS, self.packer.kernel_name().as_str());
        m.set(NAMES, list(&|m| m.name.clone()));
        m.set(LAYOUTS, list(&|m| m.layout.to_string()));
        m.set(FORMATS, list(&|m| m.w.format().name().to_owned()));
        m.set(SHAPES, counts(&|m| vec![m.w.rows(), m.w.cols()]));
        m.set(GROUPS, counts(&|m| vec![group_len(m.w.scales())]));
        let scales = self.matrices.iter().map(|m| match m.w.scales() {
            Scales::Tensor(s) => *s,
            Scales::Rows(_) | Scales::Groups(_) => f32::NAN,
        });
        m.set(SCALES, Value::Array(Array::F32(scales.collect())));
        if self.matrices.iter().any(|m| m.w.twos().is_some()) {
            m.set(TWOS, counts(&|m| m.w.twos().map_or(vec![0; 3], |t| vec![t.row, t.col, t.count])));
        }
        if let Some((name, _)) = &self.coarse {
            m.set(COARSE, name.as_str());
        }
    }

    /// Announces the tensors.
    ///
    /// # Errors
    /// The errors of [`GgufWriter::announce`]; a shape that the layout cannot hold.
    pub(crate) fn announce(&self, writer: &mut GgufWriter) -> Result<(), LoadError> {
        for m in &self.matrices {
            let (rows, cols) = (m.w.rows(), m.w.cols());
            let in_tensor = |source| LoadError::Ternary { tensor: m.name.clone(), source };
            let bytes = m.layout.byte_len(rows, cols).map_err(in_tensor)?;
            writer.announce(&format!("{PREFIX}{}", m.name), &[bytes as u64], GgmlType::I8)?;
            let scales = format!("{PREFIX}{}.scales", m.name);
            match m.w.scales() {
                Scales::Tensor(_) => (),
                Scales::Rows(s) => writer.announce(&scales, &[s.len() as u64], GgmlType::F32)?,
                Scales::Groups(g) => {
                    writer.announce(&scales, &[g.rows() as u64, g.groups() as u64], GgmlType::F16)?;
                }
            }
        }
        match &self.coarse {
            Some((_, plane)) => writer.announce(PLANE, &[plane.byte_len() as u64], GgmlType::I8),
            None => Ok(()),
        }
    }

    /// Packs and writes, as many matrices at a time as there are threads, while those before are written; `step` hears
    /// of each that is.
    ///
    /// # Errors
    /// Errors of a kernel, and failures to write.
    pub(crate) fn put<W: Write>(&self, stream: &mut TensorStream<W>, step: &mut dyn FnMut()) -> Result<(), LoadError> {
        std::thread::scope(|scope| {
            let (ready, packed) = mpsc::sync_channel(1);
            let pack = move || {
                let mut some = self.matrices.chunks(self.team.threads().max(1));
                // Where nothing takes them any more, the file has failed.
                some.try_for_each(|some| ready.send(self.pack_some(some))).ok()
            };
            let no_thread = |e: std::io::Error| {
                let reason = e.to_string();
                ModelError::from(KernelError::ThreadNotStarted { index: 1, threads: 2, reason })
            };
            std::thread::Builder::new().name("pack".to_owned()).spawn_scoped(scope, pack).map_err(no_thread)?;
            let mut matrices = self.matrices.iter();
            for packed in packed.into_iter().flatten() {
                let Some(m) = matrices.next() else { break };
                let packed = packed?;
                stream.tensor(&format!("{PREFIX}{}", m.name), |out| out.write_all(packed.bytes()))?;
                drop(packed);
                let scales = format!("{PREFIX}{}.scales", m.name);
                match m.w.scales() {
                    Scales::Tensor(_) => (),
                    Scales::Rows(s) => {
                        stream.tensor(&scales, |out| s.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())))?;
                    }
                    Scales::Groups(g) => {
                        let mut values = g.values().iter();
                        stream.tensor(&scales, |out| values.try_for_each(|v| out.write_all(&v.to_le_bytes())))?;
                    }
                }
                m.w.release();
                step();
            }
            Ok::<(), LoadError>(())
        })?;
        match &self.coarse {
            Some((_, plane)) => stream.tensor(PLANE, |out| out.write_all(plane.bytes())),
            None => Ok(()),
        }
    }

    /// One on each thread.
    fn pack_some(&self, some: &[Matrix<'_>]) -> Vec<Result<PackedMatrix, LoadError>> {
        let mut packed: Vec<Option<Result<PackedMatrix, LoadError>>> = some.iter().map(|_| None).collect();
        self.team.for_each_chunk(&mut packed, 1, |i, slot| {
            if let (Some(slot), Some(m)) = (slot.first_mut(), some.get(i)) {
                *slot = Some(self.pack(m));
            }
        });
        packed.into_iter().flatten().collect()
    }

    fn pack(&self, m: &Matrix<'_>) -> Result<PackedMatrix, LoadError> {
        let in_tensor = |source| LoadError::Ternary { tensor: m.name.clone(), source };
        match m.place {
            None => Ok(self.packer.table(m.w)?),
            Some((l, p)) if self.packer.layout(p, m.w).is_some() => Ok(self.packer.projection(l, p, m.w)?),
            Some(_) => {
                let kernel = by_name(ANY).map_err(in_tensor)?;
                Ok(PackedMatrix::Panels(kernel.prepack(m.w).map_err(in_tensor)?))
            }
        }
    }
}

fn group_len(scales: &Scales) -> usize {
    match scales {
        Scales::Tensor(_) | Scales::Rows(_) => 0,
        Scales::Groups(g) => g.group_len(),
    }
}
