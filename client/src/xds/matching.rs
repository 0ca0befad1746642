//! Whether a request is a route's: by its path, its headers and chance, as gRPC decides it.
//!
//! Nothing here allocates but regular expressions, and headers that stand in a request more than once.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

/// What a regular expression may take when it is compiled, in bytes: a route's are short, and come from outside.
pub(super) const LARGEST_REGEX: usize = 256 << 10;

/// A request, as far as routes look at it.
pub trait RequestHead {
    /// Its path, without a query.
    fn path(&self) -> &str;
    /// The value of a header, by its name in lower case; those of one that stands there more than once are joined by
    /// commas. `None`: there is none, or it is not text.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// Which requests a route is for: those that fit all of it.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// The path.
    pub path: TextMatch,
    /// The headers.
    pub headers: Vec<HeaderMatch>,
    /// How many of a million such requests; `None`: all of them.
    pub per_million: Option<u32>,
}

impl RouteMatch {
    /// Every request.
    #[must_use]
    pub fn everything() -> Self {
        let path = TextMatch { pattern: Pattern::Prefix(String::new()), ignore_case: false };
        Self { path, headers: Vec::new(), per_million: None }
    }

    /// Whether it is for this request. `draw` gives random 64 bits.
    pub fn is_for(&self, request: &impl RequestHead, draw: &mut impl FnMut() -> u64) -> bool {
        self.path.fits(request.path())
            && self.headers.iter().all(|header| header.fits(request))
            && self.per_million.is_none_or(|part| (u128::from(draw()) * 1_000_000) >> 64 < u128::from(part))
    }
}

/// A pattern for a text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextMatch {
    /// The pattern.
    pub pattern: Pattern,
    /// Whether ASCII letters of either case are the same; not for regular expressions, which can say so themselves.
    pub ignore_case: bool,
}

/// What a text must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Pattern {
    /// This.
    Exact(String),
    /// It must begin so.
    Prefix(String),
    /// It must end so.
    Suffix(String),
    /// It must hold this.
    Contains(String),
    /// All of it must match this.
    Regex(FullRegex),
}

impl TextMatch {
    /// Whether a text is of this pattern.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let (text, ignore_case) = (text.as_bytes(), self.ignore_case);
        let same = |part: &[u8], wanted: &str| match ignore_case {
            false => part == wanted.as_bytes(),
            true => part.eq_ignore_ascii_case(wanted.as_bytes()),
        };
        match &self.pattern {
            Pattern::Exact(wanted) => same(text, wanted),
            Pattern::Prefix(wanted) => text.get(..wanted.len()).is_some_and(|part| same(part, wanted)),
            Pattern::Suffix(wanted) => {
                let from = text.len().checked_sub(wanted.len());
                from.is_some_and(|from| same(&text[from..], wanted))
            }
            Pattern::Contains(wanted) if wanted.is_empty() => true,
            Pattern::Contains(wanted) => text.windows(wanted.len()).any(|part| same(part, wanted)),
            Pattern::Regex(regex) => std::str::from_utf8(text).is_ok_and(|text| regex.0.is_match(text)),
        }
    }
}

/// A regular expression that a whole text must match.
#[derive(Debug, Clone)]
pub struct FullRegex(Regex);

impl FullRegex {
    /// Compiles one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        // Alone first: what is wrong alone, such as an unbalanced bracket, may be right between the anchors.
        let compile = |text: &str| RegexBuilder::new(text).size_limit(LARGEST_REGEX).build();
        let compiled = compile(text).and_then(|_| compile(&format!(r"\A(?:{text})\z")));
        compiled.map(Self).map_err(|error| in_one_line(&error))
    }
}

/// What is wrong with a regular expression.
pub(super) fn in_one_line(error: &regex::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl PartialEq for FullRegex {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// What a header must be.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatch {
    /// Its name, in lower case.
    pub name: String,
    /// What its value must be.
    pub value: HeaderValueMatch,
    /// Whether the value must not be that. A header that is not there fits no rule but [`HeaderValueMatch::Present`].
    pub invert: bool,
}

/// What a header's value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderValueMatch {
    /// A text.
    Text(TextMatch),
    /// A whole number, at least the first and less than the second.
    Range(i64, i64),
    /// Whatever, if it is there; `false`: it must not be there.
    Present(bool),
}

impl HeaderMatch {
    fn fits(&self, request: &impl RequestHead) -> bool {
        let value = match self.name.as_str() {
            // Binary headers are no text.
            name if name.ends_with("-bin") => None,
            name => request.header(name),
        };
        let fits = match (&self.value, value) {
            (HeaderValueMatch::Present(wanted), value) => value.is_some() == *wanted,
            (_, None) => return false,
            (HeaderValueMatch::Text(text), Some(value)) => text.fits(&value),
            (HeaderValueMatch::Range(from, to), Some(value)) => {
                value.trim().parse().is_ok_and(|number: i64| (*from..*to).contains(&number))
            }
        };
        fits != self.invert
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Head(&'static str, &'static [(&'static str, &'static str)]);

    impl RequestHead for Head {
        fn path(&self) -> &str {
            self.0
        }
        fn header(&self, name: &str) -> Option<Cow<'_, str>> {
            self.1.iter().find(|(held, _)| *held == name).map(|(_, value)| Cow::Borrowed(*value))
        }
    }

    fn text(pattern: Pattern) -> TextMatch {
        TextMatch { pattern, ignore_case: false }
    }

    #[test]
    fn a_text_fits_its_pattern_in_the_case_that_it_wants() {
        let of = |make: fn(String) -> Pattern, wanted: &str| make(wanted.to_owned());
        for (pattern, fits, fits_in_any_case, never) in [
            (of(Pattern::Exact, "/s/M"), "/s/M", "/S/m", "/s/Mx"),
            (of(Pattern::Prefix, "/s/"), "/s/M", "/S/M", "/"),
            (of(Pattern::Suffix, "/M"), "/s/M", "/s/m", "M"),
            (of(Pattern::Contains, "x"), "axb", "aXb", ""),
        ] {
            let any_case = TextMatch { pattern: pattern.clone(), ignore_case: true };
            let exact = text(pattern);
            assert!(exact.fits(fits) && any_case.fits(fits), "{exact:?}");
            assert!(!exact.fits(fits_in_any_case) && any_case.fits(fits_in_any_case), "{exact:?}");
            assert!(!exact.fits(never) && !any_case.fits(never), "{exact:?}");
        }
        assert!(text(Pattern::Contains(String::new())).fits(""));
        // A byte in the middle of a letter is no end of a prefix.
        assert!(!text(Pattern::Prefix("/a".to_owned())).fits("/ä"));
    }

    #[test]
    fn a_regex_matches_the_whole_text_and_a_bad_one_says_why() {
        let regex = |text: &str| FullRegex::new(text).map(Pattern::Regex);
        let either = text(regex("a|bc").unwrap());
        assert!(either.fits("a") && either.fits("bc"));
        assert!(!either.fits("ac") && !either.fits("abc") && !either.fits("a\n"));
        assert!(regex("a)(b").unwrap_err().contains("unopened group"));
        assert!(regex("(a{1000}){1000}").unwrap_err().contains("size limit"));
    }

    #[test]
    fn a_header_that_is_not_there_fits_nothing_but_its_absence() {
        let head = Head("/s/M", &[("env", "prod"), ("n", "7"), ("n-bin", "x")]);
        let fits = |name: &str, value: HeaderValueMatch, invert| {
            HeaderMatch { name: name.to_owned(), value, invert }.fits(&head)
        };
        let is = |wanted: &str| HeaderValueMatch::Text(text(Pattern::Exact(wanted.to_owned())));
        assert!(fits("env", is("prod"), false) && !fits("env", is("prod"), true));
        assert!(!fits("env", is("test"), false) && fits("env", is("test"), true));
        assert!(!fits("other", is("prod"), false) && !fits("other", is("prod"), true));
        for (name, wanted, invert, expected) in [
            ("env", true, false, true),
            ("env", false, false, false),
            ("env", true, true, false),
            ("other", true, false, false),
            ("other", false, false, true),
            ("other", true, true, true),
            ("n-bin", true, false, false),
        ] {
            assert_eq!(fits(name, HeaderValueMatch::Present(wanted), invert), expected, "{name} {wanted} {invert}");
        }
        for (from, to, expected) in [(7, 8, true), (0, 7, false), (8, 9, false)] {
            assert_eq!(fits("n", HeaderValueMatch::Range(from, to), false), expected);
        }
        assert!(!fits("env", HeaderValueMatch::Range(i64::MIN, i64::MAX), false));
    }

    #[test]
    fn a_fraction_takes_its_part_of_all_draws() {
        let matched = RouteMatch { per_million: Some(250_000), ..RouteMatch::everything() };
        let taken = (0..1024u64).filter(|i| matched.is_for(&Head("/s/M", &[]), &mut || i << 54)).count();
        assert_eq!(taken, 256);
        let (none, all) = (Some(0), Some(1_000_000));
        let matched = |per_million| RouteMatch { per_million, ..RouteMatch::everything() };
        assert!(!matched(none).is_for(&Head("/s/M", &[]), &mut || 0));
        assert!(matched(all).is_for(&Head("/s/M", &[]), &mut || u64::MAX));
    }
}
