//! The text of a refusal: what it names, and how much of it is kept.

/// How much of a refusal is kept.
const NACK_TEXT: usize = 2_000;

/// Whether `text` names `name`, and not only a longer name that has it in it.
pub(in crate::xds) fn mentions(text: &str, name: &str) -> bool {
    let part_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_' | '/');
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let mut after = text[at + name.len()..].chars();
            // Clients punctuate: `cluster checkout.shop:8080: bad` ends the name with a colon that no port follows.
            let next = after.next();
            let ends = match next {
                Some(':' | '.') => !after.next().is_some_and(|c| c.is_ascii_alphanumeric()),
                Some(c) => !part_of_a_name(c),
                None => true,
            };
            !before.is_some_and(part_of_a_name) && ends
        })
}

pub(super) fn clip(text: &str) -> &str {
    let mut end = text.len().min(NACK_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
