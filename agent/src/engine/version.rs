//! Which of two versions is the newer one.
//!
//! **Invariant:** pure; the order is that of Semantic Versioning 2.0.0, section 11. Build metadata
//! does not count.

use std::cmp::Ordering;

/// Compares two semantic versions.
pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (parts(left), parts(right));
    left.0.cmp(&right.0).then_with(|| match (left.1, right.1) {
        (None, None) => Ordering::Equal,
        // What leads up to a release is before it.
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => compare_pre(left, right),
    })
}

/// Major, minor, patch; and what leads up to the release.
fn parts(version: &str) -> ([u64; 3], Option<&str>) {
    let version = version.split('+').next().unwrap_or(version);
    let (release, pre) = match version.split_once('-') {
        Some((release, pre)) => (release, Some(pre)),
        None => (version, None),
    };
    let mut numbers = [0; 3];
    for (number, text) in numbers.iter_mut().zip(release.split('.')) {
        *number = text.parse().unwrap_or(u64::MAX);
    }
    (numbers, pre)
}

fn compare_pre(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(left), Some(right)) => match (left.parse::<u64>(), right.parse::<u64>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                // Numbers are before words.
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => left.cmp(right),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, and what it says of numbers and build metadata.
    #[test]
    fn versions_stand_in_the_order_of_the_specification() {
        let ordered = [
            "0.9.12",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.2",
            "1.0.10",
            "1.2.0",
            "10.0.0",
        ];
        for (at, left) in ordered.iter().enumerate() {
            for (other, right) in ordered.iter().enumerate() {
                assert_eq!(compare(left, right), at.cmp(&other), "{left} and {right}");
            }
        }
        assert_eq!(compare("1.0.0+a", "1.0.0+b"), Ordering::Equal);
    }
}
