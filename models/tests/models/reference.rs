//! The reference recordings, pictures and models, which lie beside the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder, or nothing after saying what is left out.
pub(crate) fn folder(what: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let dir = std::env::var_os("HOLDFAST_REFERENCE").map_or(beside, PathBuf::from);
    if dir.join("data/kws_wav").is_dir() {
        return Some(dir);
    }
    let is_required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|v| v == "1");
    assert!(!is_required, "no reference folder at {}, needed for: {what}", dir.display());
    println!("LEFT OUT: {what} (no reference folder)");
    None
}

/// The rows of a CSV file without quotes, each with one field a column.
pub(crate) fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// The elements of a little-endian C-order .npy file of f32 or f64, and its shape.
pub(crate) fn npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let (header, shape, data) = npy_parts(path);
    let elements = if header.contains("'<f4'") {
        data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    } else if header.contains("'<f8'") {
        data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()
    } else {
        panic!("{}: not floats: {header}", path.display())
    };
    (shape, elements)
}

/// The elements of a C-order .npy file of u8, and its shape.
pub(crate) fn npy_bytes(path: &Path) -> (Vec<usize>, Vec<u8>) {
    let (header, shape, data) = npy_parts(path);
    assert!(header.contains("'|u1'"), "{header}");
    (shape, data)
}

fn npy_parts(path: &Path) -> (String, Vec<usize>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\0");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8(bytes[10..start].to_vec()).unwrap();
    assert!(header.contains("'fortran_order': False"));
    let shape = header.split('(').nth(1).unwrap().split(')').next().unwrap();
    let shape = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    (header, shape, bytes[start..].to_vec())
}
