//! Shards as Envoy knows them: an endpoint's metadata names its shard, a request's header names the one that it wants, and
//! a load balancer around the usual one keeps the two together.

use envoy_types::pb::envoy::config::cluster::v3::LoadBalancingPolicy;
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use envoy_types::pb::envoy::config::core::v3::{Metadata, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::http::header_to_metadata::v3::Config as HeaderToMetadata;
use envoy_types::pb::envoy::extensions::filters::http::header_to_metadata::v3::config::{KeyValuePair, Rule};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use envoy_types::pb::envoy::extensions::load_balancing_policies::subset::v3::Subset;
use envoy_types::pb::envoy::extensions::load_balancing_policies::subset::v3::subset::{
    LbSubsetFallbackPolicy, LbSubsetSelector,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use envoy_types::util::pack_any;

/// The header by which a request names its shard.
const HEADER: &str = "portolan-shard";
/// Where Envoy's load balancers look, in the metadata of endpoints and of requests.
const NAMESPACE: &str = "envoy.lb";
const KEY: &str = "shard";

/// The metadata of an endpoint of this shard.
pub(super) fn metadata(shard: &str) -> Metadata {
    let value = Value { kind: Some(Kind::StringValue(shard.to_owned())) };
    let fields = Struct { fields: [(KEY.to_owned(), value)].into() };
    Metadata { filter_metadata: [(NAMESPACE.to_owned(), fields)].into(), ..Metadata::default() }
}

/// `policies`, each among the endpoints of a request's shard. A request that names none, or one that nobody has, goes to any.
pub(super) fn subsets(policies: LoadBalancingPolicy) -> Policy {
    let config = Subset {
        fallback_policy: LbSubsetFallbackPolicy::AnyEndpoint.into(),
        subset_selectors: vec![LbSubsetSelector { keys: vec![KEY.to_owned()], ..LbSubsetSelector::default() }],
        // A locality counts by what it has of the shard.
        locality_weight_aware: true,
        scale_locality_weight: true,
        subset_lb_policy: Some(policies),
        ..Subset::default()
    };
    let name = "envoy.load_balancing_policies.subset".to_owned();
    let config = TypedExtensionConfig { name, typed_config: Some(pack_any(config)) };
    Policy { typed_extension_config: Some(config) }
}

/// The filter that makes a request's header its metadata.
pub(super) fn filter() -> HttpFilter {
    let shard =
        KeyValuePair { metadata_namespace: NAMESPACE.to_owned(), key: KEY.to_owned(), ..KeyValuePair::default() };
    let rule = Rule { header: HEADER.to_owned(), on_header_present: Some(shard), ..Rule::default() };
    HttpFilter {
        name: "envoy.filters.http.header_to_metadata".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack_any(HeaderToMetadata {
            request_rules: vec![rule],
            ..HeaderToMetadata::default()
        }))),
        ..HttpFilter::default()
    }
}
