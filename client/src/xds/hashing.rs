//! The hash of a request by its route's `hash_policy`, as gRPC computes it (proposal A42).
//!
//! Nothing here knows of endpoints: strategies with affinity send requests of one hash to one of them.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};
use xxhash_rust::xxh64::xxh64;

use super::matching::{LARGEST_REGEX, RequestHead, in_one_line};

/// Part of what decides a request's hash.
#[derive(Debug, Clone, PartialEq)]
pub struct HashPolicy {
    /// What of it is hashed.
    pub on: HashOn,
    /// Those that follow do not count if there is a hash after this one.
    pub terminal: bool,
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq)]
pub enum HashOn {
    /// A header, if the request has it.
    Header {
        /// Its name, in lower case.
        name: String,
        /// What is made of its value first.
        rewrite: Option<Rewrite>,
    },
    /// The channel: all of its requests have one hash.
    Channel,
}

/// A rewriting of every match of a regular expression.
#[derive(Debug, Clone)]
pub struct Rewrite {
    regex: Regex,
    /// In the words of [`Regex::replace_all`].
    substitution: String,
}

impl Rewrite {
    /// `substitution` may name the whole match, `\0`, and groups, `\1` to `\9`; `\\` is a backslash.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn new(regex: &str, substitution: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(regex).size_limit(LARGEST_REGEX).build();
        let regex = regex.map_err(|error| format!("invalid regular expression: {}", in_one_line(&error)))?;
        let mut words = String::with_capacity(substitution.len());
        let mut rest = substitution.chars();
        while let Some(letter) = rest.next() {
            match letter {
                '\\' => match rest.next() {
                    Some('\\') => words.push('\\'),
                    Some(digit) if digit.to_digit(10).is_some_and(|group| (group as usize) < regex.captures_len()) => {
                        words.extend(['$', '{', digit, '}']);
                    }
                    Some(other) => return Err(format!("the substitution names no group by `\\{other}`")),
                    None => return Err("the substitution ends in a backslash".to_owned()),
                },
                '$' => words.push_str("$$"),
                other => words.push(other),
            }
        }
        Ok(Self { regex, substitution: words })
    }
}

impl PartialEq for Rewrite {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str() && self.substitution == other.substitution
    }
}

/// The hash of a request; `None`: it has nothing of what is asked for, and chance decides. `channel` stands for the channel.
#[must_use]
pub fn hash(policies: &[HashPolicy], request: &impl RequestHead, channel: u64) -> Option<u64> {
    let mut hash: Option<u64> = None;
    for policy in policies {
        let one = match &policy.on {
            HashOn::Channel => Some(channel),
            // Binary headers are no text.
            HashOn::Header { name, .. } if name.ends_with("-bin") => None,
            HashOn::Header { name, rewrite } => request.header(name).map(|value| {
                let value = match rewrite {
                    None => value,
                    Some(it) => Cow::Owned(it.regex.replace_all(&value, &*it.substitution).into_owned()),
                };
                xxh64(value.as_bytes(), 0)
            }),
        };
        hash = match (hash, one) {
            (Some(hash), Some(one)) => Some(hash.rotate_left(1) ^ one),
            (hash, one) => hash.or(one),
        };
        if policy.terminal && hash.is_some() {
            break;
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Head(&'static [(&'static str, &'static str)]);

    impl RequestHead for Head {
        fn path(&self) -> &str {
            "/s/M"
        }
        fn header(&self, name: &str) -> Option<Cow<'_, str>> {
            self.0.iter().find(|(held, _)| *held == name).map(|(_, value)| Cow::Borrowed(*value))
        }
    }

    fn on(name: &str, rewrite: Option<(&str, &str)>, terminal: bool) -> HashPolicy {
        let rewrite = rewrite.map(|(regex, to)| Rewrite::new(regex, to).unwrap());
        HashPolicy { on: HashOn::Header { name: name.to_owned(), rewrite }, terminal }
    }

    #[test]
    fn a_header_that_is_not_there_does_not_count_and_a_terminal_one_ends_it() {
        let head = Head(&[("user", "ann"), ("cart", "7"), ("key-bin", "x")]);
        let of = |policies: &[HashPolicy]| hash(policies, &head, 42);
        let (user, cart) = (xxh64(b"ann", 0), xxh64(b"7", 0));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[on("none", None, true), on("key-bin", None, true)]), None);
        assert_eq!(of(&[on("none", None, true), on("user", None, false)]), Some(user));
        let both = Some(user.rotate_left(1) ^ cart);
        assert_eq!(of(&[on("user", None, false), on("none", None, false), on("cart", None, false)]), both);
        assert_eq!(of(&[on("user", None, true), on("cart", None, false)]), Some(user));
        // A terminal one without a hash of its own ends it all the same, if there is one already.
        assert_eq!(of(&[on("user", None, false), on("none", None, true), on("cart", None, false)]), Some(user));
        let channel = HashPolicy { on: HashOn::Channel, terminal: false };
        assert_eq!(of(&[channel, on("cart", None, false)]), Some(84 ^ cart));
    }

    #[test]
    fn every_match_is_rewritten_before_it_is_hashed() {
        let head = Head(&[("path", "/a/1/b/22")]);
        let of = |regex, to| hash(&[on("path", Some((regex, to)), false)], &head, 0);
        assert_eq!(of("[0-9]+", "N"), Some(xxh64(b"/a/N/b/N", 0)));
        assert_eq!(of("/([a-z])/([0-9]+)", r"\2\1$1\\"), Some(xxh64(br"1a$1\22b$1\", 0)));
        assert_eq!(of("x", "y"), Some(xxh64(b"/a/1/b/22", 0)));
        for (regex, to, why) in
            [("(", "", "unclosed group"), ("a", r"\1", "no group"), ("a", r"\x", "no group"), ("a", r"\", "ends in")]
        {
            let error = Rewrite::new(regex, to).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
