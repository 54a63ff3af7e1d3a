//! Licence expressions as packages state them: `MIT OR Apache-2.0`, `(A OR B) AND C`, `A/B`.
//!
//! **Invariant:** what does not read as an expression is not allowed.

/// Whether the allowed licences satisfy the expression.
pub(crate) fn allowed(expression: &str, licences: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = Reader { tokens: &tokens, licences };
    let good = at.either();
    good == Some(true) && at.tokens.is_empty()
}

struct Reader<'a> {
    tokens: &'a [&'a str],
    licences: &'a [String],
}

impl Reader<'_> {
    fn take(&mut self, word: &str) -> bool {
        match self.tokens.split_first() {
            Some((&first, rest)) if first == word => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    fn either(&mut self) -> Option<bool> {
        let mut good = self.both()?;
        while self.take("OR") {
            good |= self.both()?;
        }
        Some(good)
    }

    fn both(&mut self) -> Option<bool> {
        let mut good = self.one()?;
        while self.take("AND") {
            good &= self.one()?;
        }
        Some(good)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let good = self.either()?;
            return self.take(")").then_some(good);
        }
        let (&name, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        let mut name = name.to_owned();
        if self.take("WITH") {
            let (&exception, rest) = self.tokens.split_first()?;
            self.tokens = rest;
            name = format!("{name} WITH {exception}");
        }
        Some(self.licences.contains(&name))
    }
}

#[test]
fn expressions_follow_their_operators() {
    let have = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    let cases = [
        ("MIT", true),
        ("GPL-3.0 OR MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("GPL-3.0/MIT", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("", false),
        ("(MIT", false),
        ("MIT ISC", false),
    ];
    for (expression, want) in cases {
        assert_eq!(allowed(expression, &have), want, "{expression}");
    }
}
