//! The RouteConfiguration of a site: a virtual host for each host, with its routes in the order in which they are tried.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route::Action as RouteActionKind;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route_match::{GrpcRouteMatchOptions, PathSpecifier};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, HeaderMatcher, QueryParameterMatcher, RedirectAction, Route, RouteAction, RouteConfiguration,
    RouteMatch, VirtualHost, WeightedCluster,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher, StringMatcher};
use envoy_types::pb::google::protobuf::UInt32Value;

use super::super::route::duration;
use super::cluster_name;
use crate::gateway::objects::Header;
use crate::gateway::plan::{
    Action, Forward, Matching, PathChange, PathMatch, RedirectPlan, RoutePlan, Share, Site, TextMatch,
};

/// A cluster that never is: what is sent there is refused with the status that its route says.
const NOWHERE: &str = "no-backend";

/// The RouteConfiguration `name`.
pub(super) fn configuration(name: &str, site: &Site) -> RouteConfiguration {
    let hosts = site.hosts.iter().map(|(host, routes)| {
        let domain = host.to_string();
        VirtualHost {
            name: domain.clone(),
            domains: vec![domain],
            routes: routes.iter().map(route).collect(),
            ..VirtualHost::default()
        }
    });
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: hosts.collect(),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

fn route(plan: &RoutePlan) -> Route {
    let RoutePlan { matching, request_headers, response_headers, action } = plan;
    let action = match action {
        Action::Redirect(redirect) => RouteActionKind::Redirect(redirection(redirect, &matching.path)),
        Action::Forward(forward) => forwarding(forward, matching),
    };
    Route {
        r#match: Some(matches(matching)),
        action: Some(action),
        request_headers_to_add: headers(&request_headers.set, &request_headers.add),
        request_headers_to_remove: request_headers.remove.clone(),
        response_headers_to_add: headers(&response_headers.set, &response_headers.add),
        response_headers_to_remove: response_headers.remove.clone(),
        ..Route::default()
    }
}

fn matches(matching: &Matching) -> RouteMatch {
    let Matching { grpc, path, method, headers, query } = matching;
    let path = match path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) if prefix.is_empty() => PathSpecifier::Prefix("/".to_owned()),
        PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
    };
    let method =
        method.as_ref().map(|method| TextMatch { name: ":method".to_owned(), value: method.clone(), regex: false });
    let header = |text: &TextMatch| HeaderMatcher {
        name: text.name.clone(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string(text))),
        ..HeaderMatcher::default()
    };
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

fn string(text: &TextMatch) -> StringMatcher {
    let pattern = match text.regex {
        true => MatchPattern::SafeRegex(regex(&text.value)),
        false => MatchPattern::Exact(text.value.clone()),
    };
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}

fn headers(set: &[Header], add: &[Header]) -> Vec<HeaderValueOption> {
    let option = |header: &Header, action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue {
            key: header.name.clone(),
            // Envoy reads `%` as the begin of a variable.
            value: header.value.replace('%', "%%"),
            ..HeaderValue::default()
        }),
        append_action: action.into(),
        keep_empty_value: true,
        ..HeaderValueOption::default()
    };
    let set = set.iter().map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    set.chain(add.iter().map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd))).collect()
}

fn forwarding(forward: &Forward, matching: &Matching) -> RouteActionKind {
    let Forward { shares, host, path, timeout } = forward;
    let shares: Vec<&Share> = shares.iter().filter(|share| share.weight > 0).collect();
    if shares.iter().all(|share| share.upstream.is_none()) {
        // To a gRPC client 503 is UNAVAILABLE, and 500 nothing that it knows.
        let status = if matching.grpc { 503 } else { 500 };
        return RouteActionKind::DirectResponse(DirectResponseAction { status, ..DirectResponseAction::default() });
    }
    let cluster = |share: &Share| share.upstream.as_ref().map_or_else(|| NOWHERE.to_owned(), cluster_name);
    let specifier = match shares.as_slice() {
        [only] => ClusterSpecifier::Cluster(cluster(only)),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|share| ClusterWeight {
                    name: cluster(share),
                    weight: Some(UInt32Value { value: share.weight }),
                    ..ClusterWeight::default()
                })
                .collect(),
            ..WeightedCluster::default()
        }),
    };
    let not_found = if matching.grpc {
        ClusterNotFoundResponseCode::ServiceUnavailable
    } else {
        ClusterNotFoundResponseCode::InternalServerError
    };
    let (prefix_rewrite, regex_rewrite) = match path.as_ref().map(|path| rewrite(path, &matching.path)) {
        None => (String::new(), None),
        Some(NewPath::Full(path)) => (String::new(), Some(substitute("^/.*$", &path))),
        Some(NewPath::Prefix(prefix)) => (prefix, None),
        Some(NewPath::Regex(rewrite)) => (String::new(), Some(rewrite)),
    };
    RouteActionKind::Route(RouteAction {
        cluster_specifier: Some(specifier),
        cluster_not_found_response_code: not_found.into(),
        host_rewrite_specifier: host.clone().map(HostRewriteSpecifier::HostRewriteLiteral),
        prefix_rewrite,
        regex_rewrite,
        // Envoy ends requests after 15 s unless it is told not to.
        timeout: Some(timeout.map(duration).unwrap_or_default()),
        ..RouteAction::default()
    })
}

fn redirection(redirect: &RedirectPlan, matched: &PathMatch) -> RedirectAction {
    let path = redirect.path.as_ref().map(|path| match rewrite(path, matched) {
        NewPath::Full(path) => PathRewriteSpecifier::PathRedirect(path),
        NewPath::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix),
        NewPath::Regex(rewrite) => PathRewriteSpecifier::RegexRewrite(rewrite),
    });
    let status = match redirect.status {
        301 => RedirectResponseCode::MovedPermanently,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    };
    RedirectAction {
        host_redirect: redirect.host.clone().unwrap_or_default(),
        port_redirect: redirect.port.unwrap_or_default().into(),
        response_code: status.into(),
        scheme_rewrite_specifier: redirect.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
        ..RedirectAction::default()
    }
}

/// How a path is changed, in Envoy's words.
enum NewPath {
    Full(String),
    Prefix(String),
    Regex(RegexMatchAndSubstitute),
}

fn rewrite(change: &PathChange, matched: &PathMatch) -> NewPath {
    match (change, matched) {
        (PathChange::Full(path), _) => NewPath::Full(path.clone()),
        // Every path begins with the slash that was matched.
        (PathChange::Prefix(new), PathMatch::Prefix(old)) if old.is_empty() => NewPath::Prefix(format!("{new}/")),
        // What follows brings its own slash, if anything follows.
        (PathChange::Prefix(new), PathMatch::Prefix(old)) if new.is_empty() => {
            NewPath::Regex(substitute(&format!("^{}/*", regex_syntax::escape(old)), "/"))
        }
        (PathChange::Prefix(new), _) => NewPath::Prefix(new.clone()),
    }
}

fn substitute(pattern: &str, with: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: with.replace('\\', "\\\\") }
}
