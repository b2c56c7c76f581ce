//! Packing codes into chunks and blocks.

use std::ops::Range;

use super::code::Code;
use super::table::CHUNK_GROUPS;
use super::{BLOCK_CHUNKS, CHUNK_BYTES, Chunk, PANEL_ROWS, Section, bytes_of};
use crate::{AlignedBuf, KernelError, Packed};

/// Packs a matrix for the kernel called `kernel`. `decode(r, codes)` writes the `[cols]` codes of row `r`, each below
/// the number of levels.
pub(super) fn pack(
    kernel: &str,
    code: &Code,
    (rows, cols): (usize, usize),
    decode: impl Fn(usize, &mut [u8]),
) -> Result<Packed, KernelError> {
    if cols > code.max_cols() {
        return Err(KernelError::RowTooLong { kernel: kernel.to_owned(), cols, max_cols: code.max_cols() });
    }
    let panels = rows.div_ceil(PANEL_ROWS);
    let panel_bytes = code.panel_bytes(cols);
    let len = panels.checked_mul(panel_bytes).filter(|&b| isize::try_from(b).is_ok()).ok_or(KernelError::TooLarge {
        op: "look-up table prepack",
        rows,
        cols,
    })?;
    let mut bytes = AlignedBuf::for_weights(len);
    pack_panels(code, (rows, cols), 0..panels, &mut bytes, decode);
    Packed::new(kernel, rows, cols, PANEL_ROWS, panel_bytes, bytes)
}

/// Packs panels `range` into `out`, which has exactly their length.
pub(super) fn pack_panels(
    code: &Code,
    (rows, cols): (usize, usize),
    range: Range<usize>,
    out: &mut [u8],
    decode: impl Fn(usize, &mut [u8]),
) {
    let sections = code.sections(cols);
    let panel_bytes = code.panel_bytes(cols);
    if panel_bytes == 0 {
        return;
    }
    assert_eq!(out.len(), range.len() * panel_bytes, "pack_panels: length of the output");
    let padded = sections.iter().flatten().map(Section::cols).sum::<usize>();
    // One decoded row and one panel at a time: both stay in the level-1 cache.
    let mut codes = vec![code.padding; padded];
    for (p, panel) in range.zip(out.chunks_exact_mut(panel_bytes)) {
        // Rows of padding stay zero, the first entry: their results are computed and dropped.
        for r in 0..PANEL_ROWS.min(rows - p * PANEL_ROWS) {
            decode(p * PANEL_ROWS + r, &mut codes[..cols]);
            for section in sections.iter().flatten() {
                let panel = &mut panel[section.byte..][..bytes_of(section.chunks, section.groups.mirror)];
                pack_row(code, section, &codes[section.col..], r, panel.as_chunks_mut().0);
            }
        }
    }
}

/// Packs row `r` of a section of a panel. Its bytes must be zero before.
fn pack_row(code: &Code, section: &Section, codes: &[u8], r: usize, lines: &mut [Chunk]) {
    let groups = &section.groups;
    let levels = code.levels().len();
    for (c, codes) in codes.chunks_exact(CHUNK_GROUPS * groups.len).take(section.chunks).enumerate() {
        // Lines before this chunk: chunks, and a line of signs after each block.
        let (line, signs) = match groups.mirror {
            true => (c / BLOCK_CHUNKS * (BLOCK_CHUNKS + 1) + c % BLOCK_CHUNKS, true),
            false => (c, false),
        };
        for (g, codes) in codes.chunks_exact(groups.len).enumerate() {
            let (nibble, lane) = (g / 2, g % 2);
            let at = CHUNK_BYTES / 2 * (r / 16) + 16 * lane + r % 16;
            let (entry, opposite) = groups.index(codes, levels);
            lines[line][at] |= entry << (4 * nibble);
            if signs {
                let place = c % BLOCK_CHUNKS;
                lines[line - place + BLOCK_CHUNKS][at] |= u8::from(opposite) << (7 - 2 * place - nibble);
            }
        }
    }
}
