//! The RouteConfiguration of a site: a virtual host for each host, with its routes in the order in which they are tried.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route::Action as RouteActionKind;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route, RouteAction, RouteConfiguration, VirtualHost, WeightedCluster,
};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use envoy_types::pb::google::protobuf::UInt32Value;

use super::super::class::ClientClass;
use super::super::matching::{proxy_match, regex};
use super::super::name::NOWHERE;
use super::super::route::{duration, hash_policy};
use super::super::service_routes::limits;
use super::{PolicyOf, cluster_name};
use crate::gateway::objects::Header;
use crate::gateway::plan::{Action, Forward, Matching, PathChange, PathMatch, RedirectPlan, RoutePlan, Share, Site};

/// The RouteConfiguration `name`. `policy_of` a backend holds where a rule says nothing.
pub(super) fn configuration(name: &str, site: &Site, policy_of: PolicyOf<'_>) -> RouteConfiguration {
    let hosts = site.hosts.iter().map(|(host, routes)| {
        let domain = host.to_string();
        VirtualHost {
            name: domain.clone(),
            domains: vec![domain],
            routes: routes.iter().map(|plan| route(plan, policy_of)).collect(),
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

fn route(plan: &RoutePlan, policy_of: PolicyOf<'_>) -> Route {
    let RoutePlan { matching, request_headers, response_headers, action } = plan;
    let action = match action {
        Action::Redirect(redirect) => RouteActionKind::Redirect(redirection(redirect, &matching.path)),
        Action::Forward(forward) => forwarding(forward, matching, policy_of),
    };
    Route {
        r#match: Some(proxy_match(matching)),
        action: Some(action),
        request_headers_to_add: headers(&request_headers.set, &request_headers.add),
        request_headers_to_remove: request_headers.remove.clone(),
        response_headers_to_add: headers(&response_headers.set, &response_headers.add),
        response_headers_to_remove: response_headers.remove.clone(),
        ..Route::default()
    }
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

fn forwarding(forward: &Forward, matching: &Matching, policy_of: PolicyOf<'_>) -> RouteActionKind {
    let Forward { shares, host, path, .. } = forward;
    let shares: Vec<&Share> = shares.iter().filter(|share| share.weight > 0).collect();
    if shares.iter().all(|share| share.upstream.is_none()) {
        // To a gRPC client 503 is UNAVAILABLE, and 500 nothing that it knows.
        let status = if matching.grpc { 503 } else { 500 };
        return RouteActionKind::DirectResponse(DirectResponseAction { status, ..DirectResponseAction::default() });
    }
    // What a rule says holds for all of its backends; so does the policy of the first.
    let policy = shares.iter().find_map(|share| share.upstream.as_ref()).map(|upstream| policy_of(&upstream.backend));
    let policy = policy.unwrap_or_default();
    let (timeout, retry_policy) = limits(forward, &policy, ClientClass::Envoy);
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
        retry_policy,
        hash_policy: hash_policy(&policy),
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
