//! Which calls a route is for: for a proxy, and for a gRPC client.

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::{GrpcRouteMatchOptions, PathSpecifier};
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};

use crate::gateway::plan::{Matching, PathMatch, TextMatch};

/// For an Envoy.
pub(super) fn proxy_match(matching: &Matching) -> RouteMatch {
    let Matching { grpc, path, method, headers, query } = matching;
    let path = match path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) if prefix.is_empty() => PathSpecifier::Prefix("/".to_owned()),
        PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
    };
    let method =
        method.as_ref().map(|method| TextMatch { name: ":method".to_owned(), value: method.clone(), regex: false });
    let header = |text: &TextMatch| header(text, HeaderMatchSpecifier::StringMatch(string(text)));
    let parameter = |text: &TextMatch| QueryParameterMatcher {
        name: text.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(string(text))),
    };
    RouteMatch {
        path_specifier: Some(path),
        headers: method.iter().chain(headers).map(header).collect(),
        query_parameters: query.iter().map(parameter).collect(),
        grpc: grpc.then(GrpcRouteMatchOptions::default),
        ..RouteMatch::default()
    }
}

/// For a gRPC client, whose calls are all POST to `/SERVICE/METHOD`. `None`: no call of one is meant.
pub(super) fn grpc_match(matching: &Matching) -> Option<RouteMatch> {
    let Matching { grpc: _, path, method, headers, query } = matching;
    if method.as_ref().is_some_and(|method| method != "POST") || !query.is_empty() {
        return None;
    }
    let path = match path {
        PathMatch::Exact(path) => (parts_of(path) == 2).then(|| PathSpecifier::Path(path.clone()))?,
        PathMatch::Prefix(prefix) => match parts_of(prefix) {
            // They know no prefix that ends where a part does, but these come to the same.
            0 => PathSpecifier::Prefix(String::new()),
            1 => PathSpecifier::Prefix(format!("{prefix}/")),
            2 => PathSpecifier::Path(prefix.clone()),
            _ => return None,
        },
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
    };
    Some(RouteMatch {
        path_specifier: Some(path),
        headers: headers.iter().map(|text| header(text, spoken_by_all(text))).collect(),
        ..RouteMatch::default()
    })
}

/// How many parts a path has; more than any call's if one of them is empty.
fn parts_of(path: &str) -> usize {
    match path.strip_prefix('/') {
        None => 0,
        Some(rest) if rest.split('/').any(str::is_empty) => usize::MAX,
        Some(rest) => rest.split('/').count(),
    }
}

/// The older words: releases of gRPC that are still about know no others.
#[expect(deprecated, reason = "see above")]
fn spoken_by_all(text: &TextMatch) -> HeaderMatchSpecifier {
    match text.regex {
        true => HeaderMatchSpecifier::SafeRegexMatch(regex(&text.value)),
        false => HeaderMatchSpecifier::ExactMatch(text.value.clone()),
    }
}

fn header(text: &TextMatch, specifier: HeaderMatchSpecifier) -> HeaderMatcher {
    HeaderMatcher { name: text.name.clone(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

fn string(text: &TextMatch) -> StringMatcher {
    let pattern = match text.regex {
        true => MatchPattern::SafeRegex(regex(&text.value)),
        false => MatchPattern::Exact(text.value.clone()),
    };
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

pub(super) fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}
