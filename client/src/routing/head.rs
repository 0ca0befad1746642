//! What routes see of an HTTP request.

use std::borrow::Cow;

use http::{HeaderMap, Uri};

use crate::xds::matching::RequestHead;

/// The head of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
}

impl RequestHead for Head<'_> {
    fn path(&self) -> &str {
        self.uri.path()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?.to_str().ok()?;
        let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
        let mut joined = first.to_owned();
        for value in std::iter::once(second).chain(values) {
            joined.push(',');
            joined.push_str(value.to_str().ok()?);
        }
        Some(Cow::Owned(joined))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_no_query_and_a_headers_values_are_one() {
        let uri = Uri::from_static("http://checkout.shop/cart?item=1");
        let mut headers = HeaderMap::new();
        for value in ["a", "b"] {
            headers.append("x", value.parse().unwrap());
        }
        headers.insert("y", http::HeaderValue::from_bytes(&[0xff]).unwrap());
        let head = Head { uri: &uri, headers: &headers };
        assert_eq!(head.path(), "/cart");
        assert_eq!(head.header("x").as_deref(), Some("a,b"));
        assert_eq!((head.header("y"), head.header("z")), (None, None));
    }
}
