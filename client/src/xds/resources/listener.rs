//! LDS: a Listener with an `api_listener` names a route configuration, or holds one.

use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3::Listener as Proto;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter::ConfigType,
};

use super::route::{self, RouteConfig};
use super::{Invalid, duration, must_be_this_stream, parse, parse_any};

const CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// A Listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Where its routes are.
    pub routes: Routes,
    /// `max_stream_duration`: the timeout of calls whose route sets none. Zero: none.
    pub timeout: Option<Duration>,
}

/// Where routes are.
#[derive(Debug, Clone, PartialEq)]
pub enum Routes {
    /// In a RouteConfiguration of its own.
    Named(String),
    /// In the Listener itself.
    Inline(RouteConfig),
}

pub(super) fn decode(bytes: &[u8]) -> Result<(String, Result<Listener, Invalid>), Invalid> {
    let mut proto: Proto = parse("", bytes)?;
    Ok((std::mem::take(&mut proto.name), validate(&proto)))
}

fn validate(proto: &Proto) -> Result<Listener, Invalid> {
    let any = proto.api_listener.as_ref().and_then(|api| api.api_listener.as_ref());
    let any =
        any.ok_or_else(|| Invalid::new("api_listener.api_listener", "must be set: a client takes no socket listener"))?;
    let manager: HttpConnectionManager = parse_any("api_listener.api_listener", any, CONNECTION_MANAGER)?;
    connection_manager(&manager).map_err(|invalid| invalid.below("api_listener.api_listener"))
}

fn connection_manager(manager: &HttpConnectionManager) -> Result<Listener, Invalid> {
    if manager.xff_num_trusted_hops != 0 {
        return Err(Invalid::new("xff_num_trusted_hops", "must be zero"));
    }
    if !manager.original_ip_detection_extensions.is_empty() {
        return Err(Invalid::new("original_ip_detection_extensions", "must be empty"));
    }
    filters(&manager.http_filters)?;
    let stream = manager.common_http_protocol_options.as_ref().and_then(|options| options.max_stream_duration.as_ref());
    let timeout = stream.map(|it| duration("common_http_protocol_options.max_stream_duration", it)).transpose()?;
    let routes = match &manager.route_specifier {
        Some(RouteSpecifier::RouteConfig(routes)) => {
            Routes::Inline(route::validate(routes).map_err(|invalid| invalid.below("route_config"))?)
        }
        Some(RouteSpecifier::Rds(rds)) => {
            must_be_this_stream("rds.config_source", rds.config_source.as_ref())?;
            if rds.route_config_name.is_empty() {
                return Err(Invalid::new("rds.route_config_name", "must not be empty"));
            }
            Routes::Named(rds.route_config_name.clone())
        }
        Some(RouteSpecifier::ScopedRoutes(_)) | None => {
            return Err(Invalid::new("route_specifier", "neither route_config nor rds is set"));
        }
    };
    Ok(Listener { routes, timeout })
}

/// The router must end the chain, and be all that is in it but filters marked optional.
fn filters(filters: &[HttpFilter]) -> Result<(), Invalid> {
    let mut routers = 0;
    for (i, filter) in filters.iter().enumerate() {
        let field = format!("http_filters[{i}]");
        if filter.name.is_empty() {
            return Err(Invalid::new(format!("{field}.name"), "must not be empty"));
        }
        if filters[..i].iter().any(|earlier| earlier.name == filter.name) {
            return Err(Invalid::new(format!("{field}.name"), format!("duplicate HTTP filter name: {}", filter.name)));
        }
        match &filter.config_type {
            Some(ConfigType::TypedConfig(any)) if any.type_url == ROUTER => {
                routers += 1;
                if i + 1 < filters.len() {
                    return Err(Invalid::new(
                        field,
                        format!("terminal filter {} must be the last of the chain", filter.name),
                    ));
                }
            }
            _ if filter.is_optional => {}
            Some(ConfigType::TypedConfig(any)) => {
                let problem = format!("filter type `{}` is not supported yet", any.type_url);
                return Err(Invalid::new(format!("{field}.typed_config"), problem));
            }
            _ => return Err(Invalid::new(format!("{field}.typed_config"), "must be set")),
        }
    }
    if routers == 0 {
        return Err(Invalid::new("http_filters", "the chain must end in the router filter"));
    }
    Ok(())
}
