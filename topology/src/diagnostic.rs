//! What is wrong with a document that a person wrote, and where: one shape for every file and object.
//!
//! A mistake reads `FILE:LINE:COLUMN: message`, with what was expected and the nearest known name on the same line, then
//! the source line and a caret. All mistakes of a document are told at once, and the document is refused whole. Nothing
//! here prints; text from a document is shown with its control characters replaced, so that a file cannot steer a
//! terminal.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// How many mistakes of one document are shown; the rest are counted.
const SHOWN: usize = 20;
/// How many are kept: a hostile document has as many mistakes as it has room for.
const KEPT: usize = 100;
/// How many characters of a source line are shown.
const SHOWN_WIDTH: usize = 110;

/// A place in a document. Lines and columns count from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// The line; 0 where the place is not known.
    pub line: u32,
    /// The column.
    pub column: u32,
    /// How many characters it covers; 0 counts as 1.
    pub length: u32,
}

/// How much a diagnostic matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is taken; `--strict` refuses it.
    Warning,
}

/// One mistake, or one warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the document is refused for it.
    pub severity: Severity,
    /// The document's name as the person gave it.
    pub file: Arc<str>,
    /// Where.
    pub span: Span,
    /// What is wrong, as a clause without a full stop.
    pub message: String,
    /// What would be right.
    pub expected: Option<String>,
    /// The nearest known name.
    pub suggestion: Option<String>,
    /// The source line with a caret under the place, on two lines; `None` where there is no such line.
    pub excerpt: Option<String>,
}

impl Diagnostic {
    /// Says what would be right.
    pub fn expected(&mut self, expected: impl Into<String>) -> &mut Self {
        self.expected = Some(expected.into());
        self
    }

    /// Suggests the one of `known` that is nearest to `given`, if one is near.
    pub fn nearest<'a>(&mut self, given: &str, known: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.suggestion = nearest(given, known).map(str::to_owned);
        self
    }

    /// The first line alone: `FILE:LINE:COLUMN: message`, with what was expected and the suggestion.
    #[must_use]
    pub fn headline(&self) -> String {
        let mut line = self.file.to_string();
        if self.span.line > 0 {
            let _ = write!(line, ":{}:{}", self.span.line, self.span.column);
        }
        line.push_str(": ");
        if self.severity == Severity::Warning {
            line.push_str("warning: ");
        }
        line.push_str(&self.message);
        if let Some(expected) = &self.expected {
            let _ = write!(line, "; expected {expected}");
        }
        if let Some(suggestion) = &self.suggestion {
            let _ = write!(line, "; did you mean `{suggestion}`?");
        }
        printable(&line)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        match &self.excerpt {
            Some(excerpt) => write!(f, "\n{excerpt}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// All mistakes of a document, in the order of their places: never empty, and no warnings among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    first: Box<Diagnostic>,
    rest: Vec<Diagnostic>,
    /// Mistakes beyond those that are kept.
    omitted: usize,
}

impl Diagnostics {
    /// The mistakes in the order of their places: the first hundred of a document.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        std::iter::once(&*self.first).chain(&self.rest)
    }

    /// The first one.
    #[must_use]
    pub fn first(&self) -> &Diagnostic {
        &self.first
    }

    /// How many; at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.rest.len() + self.omitted
    }

    /// Puts the mistakes of another document after these.
    pub fn append(&mut self, others: Self) {
        self.rest.push(*others.first);
        self.rest.extend(others.rest);
        self.omitted += others.omitted;
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.first, f)?;
        for mistake in self.rest.iter().take(SHOWN - 1) {
            write!(f, "\n{mistake}")?;
        }
        match self.count().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n{}: and {more} more", printable(&self.first.file)),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// Something that is probably not meant: the document is taken all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub Diagnostic);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A document's name and text: what a diagnostic quotes.
#[derive(Debug, Clone)]
pub struct Source {
    file: Arc<str>,
    text: Arc<str>,
}

impl Source {
    /// A document.
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        // Parsers do not count a byte order mark as a column.
        Self { file: file.into(), text: text.strip_prefix('\u{feff}').unwrap_or(text).into() }
    }

    /// The document's name.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    fn diagnostic(&self, severity: Severity, span: Span, message: String) -> Diagnostic {
        Diagnostic { severity, file: self.file.clone(), span, message, expected: None, suggestion: None, excerpt: None }
    }

    /// A document with one mistake.
    pub fn refuse(&self, span: Span, message: impl Into<String>) -> Diagnostics {
        let mut mistakes = vec![self.diagnostic(Severity::Error, span, message.into())];
        self.quote(&mut mistakes);
        Diagnostics { first: Box::new(mistakes.remove(0)), rest: Vec::new(), omitted: 0 }
    }

    /// Orders `diagnostics` by place and gives each its excerpt, in one pass over the text.
    fn quote(&self, diagnostics: &mut [Diagnostic]) {
        diagnostics.sort_by_key(|diagnostic| diagnostic.span);
        let mut lines = (1u32..).zip(self.text.lines());
        let mut current = lines.next();
        for diagnostic in diagnostics {
            while current.is_some_and(|(number, _)| number < diagnostic.span.line) {
                current = lines.next();
            }
            diagnostic.excerpt = current
                .filter(|(number, line)| *number == diagnostic.span.line && !line.trim().is_empty())
                .map(|(_, line)| excerpt(diagnostic.span, line));
        }
    }
}

/// The line with carets under the place, cut to a readable width.
fn excerpt(span: Span, line: &str) -> String {
    let at = (span.column as usize).saturating_sub(1);
    let skipped = if line.chars().nth(SHOWN_WIDTH).is_none() { 0 } else { at.saturating_sub(SHOWN_WIDTH / 2) };
    let shown: String = line.chars().skip(skipped).take(SHOWN_WIDTH).collect();
    let (at, width) = (at - skipped, shown.chars().count());
    let carets = (span.length.max(1) as usize).min(width.saturating_sub(at).max(1));
    let (number, shown) = (span.line.to_string(), printable(&shown));
    let margin = " ".repeat(number.len());
    format!("  {number} | {}\n  {margin} | {}{}", shown.trim_end(), " ".repeat(at), "^".repeat(carets))
}

/// The checks of one document: gathers its mistakes and warnings.
#[derive(Debug, Clone)]
pub struct Report {
    source: Source,
    mistakes: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    omitted: usize,
}

impl Report {
    /// Nothing found yet.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { source, mistakes: Vec::new(), warnings: Vec::new(), omitted: 0 }
    }

    /// A mistake at `span`; complete it with [`Diagnostic::expected`] and [`Diagnostic::nearest`].
    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        if self.mistakes.len() == KEPT {
            self.mistakes.pop();
            self.omitted += 1;
        }
        self.mistakes.push_mut(self.source.diagnostic(Severity::Error, span, message.into()))
    }

    /// A warning at `span`.
    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        if self.warnings.len() == KEPT {
            self.warnings.pop();
        }
        self.warnings.push_mut(self.source.diagnostic(Severity::Warning, span, message.into()))
    }

    /// Whether a mistake was found.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        !self.mistakes.is_empty()
    }

    /// The warnings if there was no mistake, else all mistakes, each kind in the order of its places.
    pub fn finish(mut self) -> Result<Vec<Warning>, Diagnostics> {
        self.source.quote(&mut self.mistakes);
        self.source.quote(&mut self.warnings);
        let mut mistakes = self.mistakes.into_iter();
        match mistakes.next() {
            Some(first) => Err(Diagnostics { first: Box::new(first), rest: mistakes.collect(), omitted: self.omitted }),
            None => Ok(self.warnings.into_iter().map(Warning).collect()),
        }
    }
}

/// The one of `known` that `given` was probably meant to be.
#[must_use]
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing is quadratic in the length: nobody mistypes a name of hundreds of characters.
    if given.len() > 100 {
        return None;
    }
    let lower = given.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&lower, &name.to_lowercase()), name))
        .filter(|(likeness, name)| *likeness >= 0.8 && *name != given)
        .max_by(|(a, a_name), (b, b_name)| a.total_cmp(b).then(b_name.cmp(a_name)))
        .map(|(_, name)| name)
}

/// Joins names for a message, each once: `` `a`, `b` or `c` ``.
#[must_use]
pub fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut seen = HashSet::new();
    let names: Vec<_> = names.into_iter().filter(|name| seen.insert(*name)).map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            // Besides control characters, those that change the direction of what follows.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => '\u{fffd}',
            c => c,
        })
        .collect()
}
