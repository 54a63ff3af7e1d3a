//! The known name that a mistyped one was meant to be.
//!
//! **Invariant:** pure; a name that is not much like any known one is taken for what it is.

/// One of this many characters may be wrong.
const ONE_WRONG_IN: usize = 5;

/// The known name that is most like `name`, if one is like it.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / ONE_WRONG_IN).max(1);
    let near = known.map(|known| (distance(name, known), known)).filter(|(far, _)| *far <= most);
    near.min().map(|(_, known)| known)
}

/// How many characters must be put in, left out or changed to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    // Of the beginnings of `other`, how far each is from the part of `one` that was looked at.
    let mut far: Vec<usize> = (0..=other.len()).collect();
    for (at, mine) in one.chars().enumerate() {
        let mut row = vec![at + 1];
        for (theirs, pair) in other.iter().zip(far.windows(2)) {
            let (Some(diagonal), Some(above), Some(left)) = (pair.first(), pair.get(1), row.last())
            else {
                continue;
            };
            let changed = diagonal + usize::from(mine != *theirs);
            row.push(changed.min(above + 1).min(left + 1));
        }
        far = row;
    }
    far.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_and_the_nearest() {
        for (one, other, want) in
            [("", "", 0), ("a", "", 1), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0)]
        {
            assert_eq!(distance(one, other), want, "{one} {other}");
            assert_eq!(distance(other, one), want, "{other} {one}");
        }
        let known = ["voice-commands", "part-inspection", "ocr"];
        for (name, want) in [
            ("voise-commands", Some("voice-commands")),
            ("voicecommands", Some("voice-commands")),
            ("part-inspektions", Some("part-inspection")),
            ("weld-seams", None),
            ("ocs", Some("ocr")),
            ("o", None),
        ] {
            assert_eq!(nearest(name, known.into_iter()), want, "{name}");
        }
    }
}
