//! A rule of a route, judged: what it matches in the order in which the Gateway API ranks matches, what it changes, and
//! where its requests go. A rule with something that is not supported is refused, never served in part.

use std::cmp::Reverse;
use std::collections::HashSet;

use http::{HeaderName, HeaderValue, Method};
use portolan_topology::duration::DurationText;

use super::conditions::Fault;
use super::hostname::Hostname;
use super::objects::{
    BackendRef, Filter, GrpcMatch, GrpcRule, Header, HeaderModifier, HttpMatch, HttpRule, NamedMatch, PathModifier,
    Redirect, Rewrite, RouteKind, Timeouts, ValueMatch,
};
use super::plan::{Action, Forward, Limit, Matching, PathChange, PathMatch, RedirectPlan, TextMatch};

/// Where a match stands among others for the same host: the least is tried first.
///
/// HTTP: exact paths, regular expressions, then prefixes, each the longest first; then those with a method, with more
/// headers, with more parameters. gRPC calls are looked up among gRPC's routes first: service and method, service alone,
/// method alone, any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    not_grpc: bool,
    class: u8,
    length: Reverse<usize>,
    any_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
}

/// A rule, whatever its route's kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub(super) matches: Vec<(Rank, Matching)>,
    pub(super) request_headers: HeaderModifier,
    pub(super) response_headers: HeaderModifier,
    pub(super) action: RuleAction,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum RuleAction {
    /// Its port depends on the listener.
    Redirect(Redirect, Option<PathChange>),
    /// Its shares are not looked up yet.
    Forward(Forward),
}

/// A kind of rule.
pub(super) trait AnyRule {
    /// The kind of its routes.
    const KIND: RouteKind;

    /// It, judged.
    fn judge(&self) -> Result<Rule, Fault>;

    /// What it refers to.
    fn backend_refs(&self) -> &[BackendRef];
}

impl AnyRule for HttpRule {
    const KIND: RouteKind = RouteKind::Http;

    fn judge(&self) -> Result<Rule, Fault> {
        if self.retry.is_some() {
            return Err(Fault::unsupported("`retry`"));
        }
        if self.session_persistence.is_some() {
            return Err(Fault::unsupported("`sessionPersistence`"));
        }
        let any = [HttpMatch::default()];
        let matches = if self.matches.is_empty() { &any[..] } else { &self.matches };
        let matches: Vec<_> = matches.iter().map(http_match).collect::<Result<_, _>>()?;
        let all_prefixes = matches.iter().all(|(_, matching)| matches!(matching.path, PathMatch::Prefix(_)));
        let none = Timeouts::default();
        let Timeouts { request, backend_request } = self.timeouts.as_ref().unwrap_or(&none);
        let limits = [limit(request.as_deref())?, limit(backend_request.as_deref())?];
        filtered(matches, &self.filters, &self.backend_refs, limits, all_prefixes)
    }

    fn backend_refs(&self) -> &[BackendRef] {
        &self.backend_refs
    }
}

impl AnyRule for GrpcRule {
    const KIND: RouteKind = RouteKind::Grpc;

    fn judge(&self) -> Result<Rule, Fault> {
        if self.session_persistence.is_some() {
            return Err(Fault::unsupported("`sessionPersistence`"));
        }
        if let Some(filter) = self
            .filters
            .iter()
            .find(|filter| !matches!(filter.r#type.as_str(), "RequestHeaderModifier" | "ResponseHeaderModifier"))
        {
            return Err(Fault::unsupported(&format!("the filter `{}` of a GRPCRoute", filter.r#type)));
        }
        let any = [GrpcMatch::default()];
        let matches = if self.matches.is_empty() { &any[..] } else { &self.matches };
        let matches: Vec<_> = matches.iter().map(grpc_match).collect::<Result<_, _>>()?;
        filtered(matches, &self.filters, &self.backend_refs, [Limit::Unsaid; 2], false)
    }

    fn backend_refs(&self) -> &[BackendRef] {
        &self.backend_refs
    }
}

fn http_match(given: &HttpMatch) -> Result<(Rank, Matching), Fault> {
    let path = http_path(given.path.as_ref().unwrap_or(&ValueMatch::default()))?;
    let (class, length) = match &path {
        PathMatch::Exact(path) => (0, path.len()),
        PathMatch::Regex(pattern) => (1, pattern.len()),
        PathMatch::Prefix(prefix) => (2, prefix.len()),
    };
    let method = given.method.as_deref().map(|method| {
        Method::from_bytes(method.as_bytes())
            .map(|method| method.to_string())
            .map_err(|_| wrong(format!("`{method}` is not a method")))
    });
    let matching = Matching {
        grpc: false,
        path,
        method: method.transpose()?,
        headers: headers(&given.headers)?,
        query: distinct(&given.query_params, |name| Ok(name.to_owned()))?,
    };
    Ok((rank(class, length, &matching), matching))
}

fn grpc_match(given: &GrpcMatch) -> Result<(Rank, Matching), Fault> {
    let method = given.method.clone().unwrap_or_default();
    let (service, name) = (method.service.filter(|it| !it.is_empty()), method.method.filter(|it| !it.is_empty()));
    let length = service.as_ref().map_or(0, String::len) + name.as_ref().map_or(0, String::len);
    let shape = match (&service, &name) {
        (Some(_), Some(_)) => 0,
        (Some(_), None) => 2,
        (None, Some(_)) => 4,
        (None, None) => 6,
    };
    let (class, path) = match method.r#type.as_deref().unwrap_or("Exact") {
        "Exact" => {
            for part in [&service, &name].into_iter().flatten() {
                if !part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')) {
                    return Err(wrong(format!("`{part}` is not the name of a gRPC service or method")));
                }
            }
            let path = match (service, name) {
                (Some(service), Some(name)) => PathMatch::Exact(format!("/{service}/{name}")),
                (Some(service), None) => PathMatch::Prefix(format!("/{service}")),
                (None, Some(name)) => PathMatch::Regex(format!("/[^/]+/{}", name.replace('.', "\\."))),
                (None, None) => PathMatch::Prefix(String::new()),
            };
            (shape, path)
        }
        "RegularExpression" => {
            let part = |text: Option<String>| match text {
                Some(text) => regex(&text).map(|text| format!("(?:{text})")),
                None => Ok("[^/]+".to_owned()),
            };
            (shape + 1, PathMatch::Regex(format!("/{}/{}", part(service)?, part(name)?)))
        }
        other => return Err(Fault::unsupported(&format!("matching a method by `{other}`"))),
    };
    let matching = Matching { grpc: true, path, method: None, headers: headers(&given.headers)?, query: Vec::new() };
    Ok((rank(class, length, &matching), matching))
}

fn rank(class: u8, length: usize, matching: &Matching) -> Rank {
    Rank {
        not_grpc: !matching.grpc,
        class,
        length: Reverse(length),
        any_method: matching.method.is_none(),
        headers: Reverse(matching.headers.len()),
        query: Reverse(matching.query.len()),
    }
}

fn http_path(given: &ValueMatch) -> Result<PathMatch, Fault> {
    let value = given.value.as_deref().unwrap_or("/");
    let absolute = || is_path(value).then(|| value.to_owned()).ok_or_else(|| wrong(format!("`{value}` is not a path")));
    match given.r#type.as_deref().unwrap_or("PathPrefix") {
        "Exact" => absolute().map(PathMatch::Exact),
        "PathPrefix" => Ok(PathMatch::Prefix(absolute()?.trim_end_matches('/').to_owned())),
        "RegularExpression" => regex(value).map(PathMatch::Regex),
        other => Err(Fault::unsupported(&format!("matching a path by `{other}`"))),
    }
}

/// What Envoy and the API take for one.
fn is_path(text: &str) -> bool {
    let forbidden = ["//", "/./", "/../", "%2f", "%2F", "#", "?"];
    text.starts_with('/')
        && !forbidden.iter().any(|part| text.contains(part))
        && !text.ends_with("/..")
        && !text.ends_with("/.")
        && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A regular expression that Envoy takes, too: one that it refuses would cost it the whole configuration. What its syntax
/// (RE2's) does not have is refused.
fn regex(text: &str) -> Result<String, Fault> {
    let foreign = ["(?x", "(?u", "(?R", "(?-", "&&", "--", "~~", "\\u", "\\U", "\\b{", "\\<", "\\>", "(?<"];
    let sound = regex_syntax::Parser::new().parse(text).is_ok() && text.len() <= 1024;
    if !sound || foreign.iter().any(|part| text.contains(part)) {
        return Err(wrong(format!("`{text}` is not a regular expression of RE2")));
    }
    Ok(text.to_owned())
}

fn headers(given: &[NamedMatch]) -> Result<Vec<TextMatch>, Fault> {
    distinct(given, header_name)
}

/// Of several with one name the first counts.
fn distinct(given: &[NamedMatch], name_of: impl Fn(&str) -> Result<String, Fault>) -> Result<Vec<TextMatch>, Fault> {
    let mut seen = HashSet::new();
    let mut texts = Vec::new();
    for NamedMatch { r#type, name, value } in given {
        let name = name_of(name)?;
        let (value, is_regex) = match r#type.as_deref().unwrap_or("Exact") {
            "Exact" => (value.clone(), false),
            "RegularExpression" => (regex(value)?, true),
            other => return Err(Fault::unsupported(&format!("matching `{name}` by `{other}`"))),
        };
        if seen.insert(name.clone()) {
            texts.push(TextMatch { name, value, regex: is_regex });
        }
    }
    Ok(texts)
}

fn header_name(name: &str) -> Result<String, Fault> {
    let read = HeaderName::from_bytes(name.as_bytes());
    read.map(|name| name.as_str().to_owned()).map_err(|_| wrong(format!("`{name}` is not a header's name")))
}

/// 0 means none.
fn limit(given: Option<&str>) -> Result<Limit, Fault> {
    let Some(text) = given else { return Ok(Limit::Unsaid) };
    match text.parse() {
        Ok(DurationText(duration)) if duration.is_zero() => Ok(Limit::Never),
        Ok(DurationText(duration)) => Ok(Limit::After(duration)),
        Err(error) => Err(wrong(format!("timeouts: `{text}`: {error}"))),
    }
}

fn filtered(
    matches: Vec<(Rank, Matching)>,
    filters: &[Filter],
    backends: &[BackendRef],
    [timeout, attempt_timeout]: [Limit; 2],
    all_prefixes: bool,
) -> Result<Rule, Fault> {
    if backends.iter().any(|backend| !backend.filters.is_empty()) {
        return Err(Fault::unsupported("`filters` of a backend"));
    }
    if backends.iter().any(|backend| backend.weight.is_some_and(|weight| weight > 1_000_000)) {
        return Err(wrong("a weight is at most 1000000"));
    }
    let sum: u64 = backends.iter().map(|backend| u64::from(backend.weight.unwrap_or(1))).sum();
    if sum > u64::from(u32::MAX) {
        return Err(wrong("the weights of a rule add up to more than 4294967295"));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = filters.iter().find(|filter| !seen.insert(filter.r#type.as_str())) {
        return Err(Fault::new("IncompatibleFilters", format!("the filter `{}` stands twice in a rule", twice.r#type)));
    }
    let (mut request_headers, mut response_headers) = (HeaderModifier::default(), HeaderModifier::default());
    let (mut redirect, mut rewrite) = (None, None);
    for filter in filters {
        let Filter { r#type, request_header_modifier, response_header_modifier, request_redirect, url_rewrite } =
            filter;
        let missing = || wrong(format!("the filter `{type}` lacks its own field"));
        match r#type.as_str() {
            "RequestHeaderModifier" => {
                request_headers = modifier(request_header_modifier.as_ref().ok_or_else(missing)?)?;
            }
            "ResponseHeaderModifier" => {
                response_headers = modifier(response_header_modifier.as_ref().ok_or_else(missing)?)?;
            }
            "RequestRedirect" => redirect = Some(request_redirect.as_ref().ok_or_else(missing)?),
            "URLRewrite" => rewrite = Some(url_rewrite.as_ref().ok_or_else(missing)?),
            other => return Err(Fault::unsupported(&format!("the filter `{other}`"))),
        }
    }
    let change = |path: &Option<PathModifier>| path.as_ref().map(|path| path_change(path, all_prefixes)).transpose();
    let action = match (redirect, rewrite) {
        (Some(_), Some(_)) => {
            let both = "RequestRedirect and URLRewrite cannot stand in one rule";
            return Err(Fault::new("IncompatibleFilters", both));
        }
        (Some(_), None) if !backends.is_empty() => {
            return Err(Fault::new("IncompatibleFilters", "a rule with a RequestRedirect cannot have backends"));
        }
        (Some(redirect), None) => RuleAction::Redirect(checked(redirect)?, change(&redirect.path)?),
        (None, rewrite) => {
            let none = Rewrite::default();
            let Rewrite { hostname, path } = rewrite.unwrap_or(&none);
            let host = hostname.as_deref().map(exact_host).transpose()?;
            RuleAction::Forward(Forward { shares: Vec::new(), host, path: change(path)?, timeout, attempt_timeout })
        }
    };
    Ok(Rule { matches, request_headers, response_headers, action })
}

fn modifier(given: &HeaderModifier) -> Result<HeaderModifier, Fault> {
    let name = |name: &str| match header_name(name)? {
        // Envoy takes these for parts of the request itself.
        host if host == "host" => Err(wrong("`host` is changed by a URLRewrite")),
        name => Ok(name),
    };
    let header = |header: &Header| {
        let value = HeaderValue::from_str(&header.value);
        value.map_err(|_| wrong(format!("the value of `{}` cannot stand in a header", header.name)))?;
        Ok(Header { name: name(&header.name)?, value: header.value.clone() })
    };
    Ok(HeaderModifier {
        set: given.set.iter().map(header).collect::<Result<_, _>>()?,
        add: given.add.iter().map(header).collect::<Result<_, _>>()?,
        remove: given.remove.iter().map(|it| name(it)).collect::<Result<_, _>>()?,
    })
}

fn checked(redirect: &Redirect) -> Result<Redirect, Fault> {
    if let Some(scheme) = redirect.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
        return Err(wrong(format!("`{scheme}` is not a scheme: expected http or https")));
    }
    if let Some(status) = redirect.status_code.filter(|status| !matches!(status, 301 | 302 | 303 | 307 | 308)) {
        return Err(wrong(format!("{status} is not a redirect's status: expected 301, 302, 303, 307 or 308")));
    }
    let hostname = redirect.hostname.as_deref().map(exact_host).transpose()?;
    Ok(Redirect { hostname, ..redirect.clone() })
}

fn exact_host(text: &str) -> Result<String, Fault> {
    match Hostname::read(Some(text)) {
        Ok(Hostname::Exactly(name)) => Ok(name),
        _ => Err(wrong(format!("`{text}` is not a host's name"))),
    }
}

fn path_change(given: &PathModifier, all_prefixes: bool) -> Result<PathChange, Fault> {
    let path = |text: &Option<String>| {
        let text = text.as_deref().ok_or_else(|| wrong("the path modifier lacks its own field"))?;
        let sound = text.is_empty() || is_path(text);
        sound.then(|| text.to_owned()).ok_or_else(|| wrong(format!("`{text}` is not a path")))
    };
    match given.r#type.as_str() {
        "ReplaceFullPath" => {
            let full = path(&given.replace_full_path)?;
            Ok(PathChange::Full(if full.is_empty() { "/".to_owned() } else { full }))
        }
        "ReplacePrefixMatch" if all_prefixes => {
            Ok(PathChange::Prefix(path(&given.replace_prefix_match)?.trim_end_matches('/').to_owned()))
        }
        "ReplacePrefixMatch" => Err(Fault::new(
            "IncompatibleFilters",
            "ReplacePrefixMatch needs every match of its rule to be a PathPrefix",
        )),
        other => Err(Fault::unsupported(&format!("changing a path by `{other}`"))),
    }
}

fn wrong(message: impl Into<String>) -> Fault {
    Fault::new("UnsupportedValue", message)
}

/// The redirect of a listener at `port`, over TLS or not.
pub(super) fn redirect_at(redirect: &Redirect, path: &Option<PathChange>, port: u16, tls: bool) -> Action {
    let default_of = |scheme: &str| if scheme == "https" { 443 } else { 80 };
    let scheme = redirect.scheme.as_deref().unwrap_or(if tls { "https" } else { "http" });
    let port = redirect.port.unwrap_or(match &redirect.scheme {
        Some(scheme) => default_of(scheme),
        None => port,
    });
    Action::Redirect(RedirectPlan {
        scheme: redirect.scheme.clone(),
        host: redirect.hostname.clone(),
        port: (port != default_of(scheme)).then_some(port),
        path: path.clone(),
        status: redirect.status_code.unwrap_or(302),
    })
}
