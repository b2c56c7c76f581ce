//! Type ids that stand for several layouts: each file is read with the right one, or rejected.

use std::path::PathBuf;

use half::f16;
use loader::LoadError;
use loader::gguf::{GgmlType, Gguf, GgufWriter};
use ternary_kernels::{FileFormat, GroupScales, ScaleRounding, Scales, TernaryMatrix};
use test_support::Tensors;

fn folder() -> Option<PathBuf> {
    Some(test_support::shared_dir()?.join("fixtures/families/block_units"))
}

/// The only matrix of a file.
fn read(path: &std::path::Path) -> Result<(GgmlType, TernaryMatrix), LoadError> {
    let file = Gguf::open(path)?;
    let info = file.tensors().iter().find(|t| t.elements() == 32 * 512).unwrap();
    let (ty, bytes) = file.data(info)?;
    let format = *FileFormat::ALL.iter().find(|f| f.name() == ty.name()).unwrap();
    let w =
        TernaryMatrix::from_bytes(format, 32, 512, bytes, None).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Ok((ty, w))
}

#[test]
fn files_of_every_layout_are_told_apart() {
    let Some(folder) = folder() else { return };
    let expected = Tensors::open(folder.join("gguf_expected.safetensors"));
    let codes: &[i8] = bytemuck::cast_slice(expected.bytes("codes"));
    let scales: Vec<f32> =
        (expected.bytes("scale_f16").as_chunks().0.iter()).map(|b| f16::from_le_bytes(*b).to_f32()).collect();
    for (name, ty) in [
        ("id42_q2_0_g64.gguf", GgmlType::Q2_0),
        ("id42_q2_0_g64.last.gguf", GgmlType::Q2_0),
        ("id42_prism_g128.gguf", GgmlType::Pq2_0),
        ("id42_prism_g128.last.gguf", GgmlType::Pq2_0),
        ("id42_d_last_g128.gguf", GgmlType::Tq2_0G128),
        ("id142_pq2_0.gguf", GgmlType::Pq2_0),
        ("id143_ptq1_0.gguf", GgmlType::Ptq1_0),
        ("id41_q1_0.gguf", GgmlType::Q1_0),
    ] {
        let (found, w) = read(&folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(found, ty, "{name}");
        // A binary format has no zero.
        let wanted: Vec<i8> = match ty {
            GgmlType::Q1_0 => codes.iter().map(|c| if *c == 0 { 1 } else { *c }).collect(),
            _ => codes.to_vec(),
        };
        assert_eq!(w.to_trits(), wanted, "{name}");
        for (i, d) in scales.iter().enumerate() {
            assert_eq!(w.scales().at(i / 4, i % 4 * 128), *d, "{name}, group {i}");
        }
    }
    assert_eq!(read(&folder.join("id42_stq1_0.gguf")).unwrap().0, GgmlType::Stq1_0);
}

#[test]
fn cut_files_are_refused_with_the_sizes() {
    let Some(folder) = folder() else { return };
    for (name, room) in [("id42_truncated.gguf", 4508), ("id142_short_by_one_block.gguf", 4318)] {
        let error = read(&folder.join(name)).map(|r| r.0).unwrap_err();
        let mut inner = &error;
        while let LoadError::InFile { source, .. } = inner {
            inner = source;
        }
        match inner {
            LoadError::NoLayoutFits { room: r, sizes, .. } => {
                // Less than one alignment of padding may follow.
                assert!((room..room + 32).contains(r), "{name}: {r}");
                assert!(sizes.contains("PQ2_0 would take 4352"), "{sizes}");
            }
            other => panic!("{name}: {other}"),
        }
    }
}

/// A file with one matrix of `ty`, and with a tensor after it unless `last`.
fn write(ty: GgmlType, rows: u64, cols: u64, bytes: &[u8], last: bool) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.announce("w", &[rows, cols], ty).unwrap();
    if !last {
        writer.announce("n", &[4], GgmlType::F32).unwrap();
    }
    let mut out = Vec::new();
    let mut stream = writer.start(&mut out).unwrap();
    stream.tensor("w", |o| o.write_all(bytes)).unwrap();
    if !last {
        stream.tensor("n", |o| o.write_all(&[0; 16])).unwrap();
    }
    stream.finish().unwrap();
    out
}

fn matrix(rows: usize, cols: usize, group: usize, seed: u32) -> TernaryMatrix {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let trits: Vec<i8> = (0..rows * cols).map(|_| (next() % 3) as i8 - 1).collect();
    let scales: Vec<f16> =
        (0..rows * cols / group).map(|_| f16::from_f32(0.01 + (next() % 100) as f32 * 5e-4)).collect();
    let scales = GroupScales::new(group, rows, cols, scales.into()).unwrap();
    TernaryMatrix::from_trits(rows, cols, &trits, Scales::Groups(scales)).unwrap()
}

#[test]
fn what_is_written_is_read_as_the_same_layout() {
    for (ty, format, group) in [
        (GgmlType::Q2_0, FileFormat::Q2_0, 64),
        (GgmlType::Pq2_0, FileFormat::Pq2_0, 128),
        (GgmlType::Ptq1_0, FileFormat::Ptq1_0, 128),
    ] {
        for (rows, cols) in [(32, 128), (8, 512), (3, 4096), (1, 8192)] {
            for last in [false, true] {
                let w = matrix(rows, cols, group, rows as u32);
                let bytes = format.encode(&w, ScaleRounding::Exact).unwrap();
                let file = write(ty, rows as u64, cols as u64, &bytes, last);
                let file = Gguf::from_bytes(file.into()).unwrap();
                let (found, read) = file.data(file.tensor("w").unwrap()).unwrap();
                assert_eq!((found, &read[..]), (ty, &bytes[..]), "{rows} x {cols}");
            }
        }
    }
}

/// Blocks of 128 under id 42, with the scale at either end: only the scales show which, and if both ends or neither
/// could hold scales, the file is rejected.
#[test]
fn the_end_of_the_scale_is_not_guessed() {
    let w = matrix(16, 512, 128, 7);
    let first = FileFormat::Pq2_0.encode(&w, ScaleRounding::Exact).unwrap();
    let as_42 = |bytes: &[u8]| {
        let mut file = write(GgmlType::Pq2_0, 16, 512, bytes, false);
        let id = 142u32.to_le_bytes();
        let at = file.windows(4).position(|w| w == id).unwrap();
        file[at..at + 4].copy_from_slice(&42u32.to_le_bytes());
        let file = Gguf::from_bytes(file.into()).unwrap();
        file.data(file.tensor("w").unwrap()).map(|(ty, _)| ty)
    };
    assert_eq!(as_42(&first).unwrap(), GgmlType::Pq2_0);
    let turned: Vec<u8> = first.chunks(34).flat_map(|b| [&b[2..], &b[..2]].concat()).collect();
    assert_eq!(as_42(&turned).unwrap(), GgmlType::Tq2_0G128);
    // Codes of zeros, which read as 85.3 at the other end, and a constant scale.
    let both: Vec<u8> = first.chunks(34).flat_map(|b| [&b[..2], &[0x55; 32]].concat()).collect();
    let neither: Vec<u8> = first.chunks(34).flat_map(|_| [0xFF; 34]).collect();
    for bytes in [both, neither, vec![0; first.len()]] {
        assert!(matches!(as_42(&bytes), Err(LoadError::NoLayoutFits { .. })));
    }
}
