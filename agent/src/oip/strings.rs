//! Owns what a text may be: an element of BYTES is a text here, since that is what the runtimes take.
//!
//! **Invariant:** a text is UTF-8 without a zero byte, which would end it inside ONNX Runtime.

/// The longest list of texts in one request: each takes more memory than its letters.
pub(super) const MOST: usize = 1 << 18;

/// Whether a text can be given to a runtime.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    if text.as_bytes().contains(&0) {
        return Err("a text holds a zero byte, which the runtimes do not take");
    }
    Ok(())
}

/// A text of raw bytes.
pub(super) fn of_bytes(bytes: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| {
        "an element is not UTF-8; the runtimes take BYTES as text, so encode other data (base64)"
    })?;
    check(text)?;
    Ok(text.to_owned())
}
