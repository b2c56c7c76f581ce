//! The kernel of every layout in panels of 16 rows.
//!
//! [`PanelKernel`] is the only [`Kernel`] of I2_S and of base 3. Two traits describe its parts:
//!
//! - [`Layout`]: the memory layout of weights. [`I2s`] and [`Base3`](crate::base3::Base3) are the only ones.
//! - [`Backend`]: how an instruction set multiplies one layout. An instruction set that multiplies chunks of I2_S
//!   ([`Chunks`]) is thereby the back end of I2_S, and of base 3 as soon as it unpacks groups to chunks ([`Unpack`]).
//!   AVX-512 has faster ways and implements [`Backend`] directly.
//!
//! All methods take a proof token by value, so they are safe to call; `isa::compiled` makes the functions that they
//! run.

use std::fmt::Debug;
use std::marker::PhantomData;

use crate::base3::Group;
use crate::i2s::{Activations, Acts, Chunk, I2s, PANEL_ROWS, Product, Tile};
use crate::isa::Portable;
use crate::token_tables::{InPlace, StepWeights};
use crate::{
    Int4Matrix, Int4Vector, Int8Batch, Int8Matrix, Int8Vector, Kernel, KernelError, Packed, PackedRows, TernaryMatrix,
    row_block, token_tables,
};

/// The memory layout of weights in panels of [`PANEL_ROWS`] rows.
pub(crate) trait Layout: Debug + Send + Sync + 'static {
    /// The operands of a product, with all lengths checked.
    type Product<'a>;
    /// [`StepWeights::PANELS`] of this layout's weights.
    const TABLE_PANELS: usize;

    /// Packs `w` for the kernel called `kernel`.
    ///
    /// # Errors
    /// The errors of [`Kernel::prepack`].
    fn prepack(kernel: &str, w: &TernaryMatrix) -> Result<Packed, KernelError>;

    /// Checks all lengths; if there is nothing to multiply, sets `acc` to zero and returns `None`.
    ///
    /// # Panics
    /// If a length is wrong, see [`Kernel::gemv`].
    fn product<'a>(w: &PackedRows<'a>, x: Activations<'a>, acc: &mut [i32]) -> Option<Self::Product<'a>>;
}

/// How an instruction set multiplies weights in the layout `L`.
pub(crate) trait Backend<L: Layout>: Copy + Debug + Send + Sync + 'static {
    /// A product of one token of int8.
    fn gemv(self, product: &L::Product<'_>, acc: &mut [i32]);

    /// A product of any number of tokens.
    fn gemm(self, product: &L::Product<'_>, acc: &mut [i32]);

    /// `TokenLanes::LAST_FROM`, where it multiplies many tokens with tables that they share.
    fn last_from(self) -> Option<usize> {
        None
    }

    /// A product of many tokens with tables, where [`Backend::last_from`] says that there are any.
    fn look_up(self, product: &L::Product<'_>, acc: &mut [i32]) {
        self.gemm(product, acc);
    }

    /// Whether [`Backend::gemm`] takes this many tokens of int4 activations; otherwise they are widened to int8 first.
    fn reads_int4(self, tokens: usize) -> bool {
        let _ = tokens;
        true
    }

    /// [`Int4Vector::widen`].
    fn widen(self, row: &Int4Vector<'_>, out: &mut [i8]) {
        row.widen(out);
    }
}

/// How an instruction set multiplies chunks of the I2_S layout.
pub(crate) trait Chunks: Copy + Debug + Send + Sync + 'static {
    /// Tokens of a tile, which is one panel high.
    const MAX_TOKENS: usize;
    /// `TokenLanes::LAST_FROM`, where it multiplies many tokens with tables that they share.
    const TABLES_FROM: Option<usize> = None;

    /// Per row, the sum of code times activation over chunks of one panel, a multiple of four; `x` has the same length.
    /// Sums of codes may exceed 2^31 in very long rows, and wrap.
    fn code_sums(self, panel: &[Chunk], x: &[Acts]) -> [i32; PANEL_ROWS];

    /// A tile of one panel and up to [`Chunks::MAX_TOKENS`] tokens.
    fn tile(self, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]);

    /// [`token_tables::product`], compiled for the instruction set where there are tables.
    fn by_tables(self, product: &Product<'_>, weights: &mut impl StepWeights, acc: &mut [i32]) {
        token_tables::product::<_, 4, _>(Portable, product, weights, acc);
    }
}

/// How an instruction set unpacks base 3.
pub(crate) trait Unpack: Chunks {
    /// Unpacks `groups` to the chunks of their columns, five for each.
    fn unpack(self, groups: &[Group], out: &mut [Chunk]);
}

impl<B: Chunks> Backend<I2s> for B {
    fn gemv(self, product: &Product<'_>, acc: &mut [i32]) {
        let x = product.token(0);
        for p in 0..product.panel_count() {
            product.store(p, 0, &self.code_sums(product.panel(p), x), acc);
        }
    }
    fn gemm(self, product: &Product<'_>, acc: &mut [i32]) {
        product.for_tiles(1, B::MAX_TOKENS, |t| self.tile(product, &t, acc));
    }
    fn last_from(self) -> Option<usize> {
        B::TABLES_FROM
    }
    fn look_up(self, product: &Product<'_>, acc: &mut [i32]) {
        match B::TABLES_FROM {
            Some(_) => self.by_tables(product, &mut InPlace(product), acc),
            None => Backend::<I2s>::gemm(self, product, acc),
        }
    }
}

/// The kernel of the layout `L` for the instruction set that `B` proves.
#[derive(Debug)]
pub(crate) struct PanelKernel<L, B> {
    name: &'static str,
    backend: B,
    layout: PhantomData<L>,
}

impl<L: Layout, B: Backend<L>> PanelKernel<L, B> {
    /// The kernel called `name`.
    pub(crate) fn new(name: &'static str, backend: B) -> Self {
        Self { name, backend, layout: PhantomData }
    }

    /// Multiplies tokens without tables.
    fn multiply(&self, w: &PackedRows<'_>, x: Activations<'_>, acc: &mut [i32]) {
        if let Some(product) = L::product(w, x, acc) {
            self.backend.gemm(&product, acc);
        }
    }

    fn product(&self, w: &PackedRows<'_>, x: Activations<'_>, acc: &mut [i32]) {
        match self.backend.last_from() {
            None => self.multiply(w, x, acc),
            Some(last_from) => token_tables::split::<L>(
                last_from,
                w,
                x,
                acc,
                |product, acc| self.backend.look_up(product, acc),
                |x, acc| self.multiply(w, x, acc),
            ),
        }
    }

    fn widen(&self, x: &Int4Matrix<'_>, widened: &mut Int8Batch) {
        widened.widen_by(x, |row, out| self.backend.widen(row, out));
    }
}

impl<L: Layout, B: Backend<L>> Kernel for PanelKernel<L, B> {
    fn name(&self) -> &str {
        self.name
    }
    fn panel_rows(&self) -> usize {
        PANEL_ROWS
    }
    fn least_rows(&self, n: usize) -> usize {
        token_tables::least_rows(self.backend.last_from(), n)
    }
    fn block_rows(&self) -> usize {
        self.backend.last_from().map_or(row_block(PANEL_ROWS), |_| token_tables::block_rows(L::TABLE_PANELS))
    }
    fn block_tokens(&self) -> usize {
        self.backend.last_from().map_or(usize::MAX, |_| token_tables::TOKENS)
    }
    fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
        L::prepack(self.name, w)
    }
    fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
        let sum = [x.sum()];
        if let Some(product) = L::product(w, (&x.as_matrix(&sum)).into(), acc) {
            self.backend.gemv(&product, acc);
        }
    }
    fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
        match x.n() {
            1 => self.gemv(w, &x.row(0), acc),
            _ => self.product(w, x.into(), acc),
        }
    }
    fn gemv_a4(&self, w: &PackedRows<'_>, x: &Int4Vector<'_>, widened: &mut Int8Batch, acc: &mut [i32]) {
        self.widen(&x.as_matrix(&[x.sum()]), widened);
        self.gemv(w, &widened.view().row(0), acc);
    }
    fn gemm_a4(&self, w: &PackedRows<'_>, x: &Int4Matrix<'_>, widened: &mut Int8Batch, acc: &mut [i32]) {
        if self.backend.reads_int4(x.n()) {
            return self.product(w, x.into(), acc);
        }
        self.widen(x, widened);
        self.gemm(w, &widened.view(), acc);
    }
}
