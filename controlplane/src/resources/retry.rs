//! What is tried again, as each class of clients is told of it: what a policy asks for, and for Envoy also what a gRPC
//! client does by itself, elsewhere and whatever the policy: a request of which no byte reached a server. Pure.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::RetryPolicy;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use envoy_types::pb::google::protobuf::UInt32Value;
use envoy_types::util::pack_any;
use portolan_topology::policy::{Retry, RetryOn};

use super::class::ClientClass;

use super::route::duration;

/// What never reached a server, in Envoy's words.
const NEVER_SENT: [&str; 3] = ["connect-failure", "refused-stream", "reset-before-request"];
/// How often Envoy tries that again where no policy says how often: twice in each of the own zone, the own region and
/// the others, which may all be dead before anybody has said so.
const NEVER_SENT_RETRIES: u32 = 6;
/// How many tries may go to one priority before the next is taken.
const TRIES_PER_PRIORITY: i32 = 2;
/// How often another endpoint is drawn when it is one that was tried.
const DRAWS: i64 = 5;
const NEVER_SENT_BASE: Duration = Duration::from_millis(5);
const NEVER_SENT_MAX: Duration = Duration::from_millis(50);

/// The policy of a route. `None`: nothing is tried again, which has no words of its own: gRPC refuses 0 retries.
pub(super) fn policy(retry: Option<&Retry>, class: ClientClass) -> Option<RetryPolicy> {
    let asked = retry.filter(|retry| retry.attempts > 0 && !retry.on.is_empty()).map(|retry| asked(retry, class));
    if class != ClientClass::Envoy {
        return asked;
    }
    let policy = asked.unwrap_or_else(|| RetryPolicy {
        num_retries: Some(UInt32Value { value: NEVER_SENT_RETRIES }),
        retry_back_off: Some(back_off(NEVER_SENT_BASE, NEVER_SENT_MAX)),
        ..RetryPolicy::default()
    });
    let reasons = policy.retry_on.split(',').filter(|reason| !reason.is_empty()).chain(NEVER_SENT);
    Some(RetryPolicy {
        retry_on: reasons.collect::<Vec<_>>().join(","),
        retry_priority: Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(pack_any(PreviousPrioritiesConfig {
                update_frequency: TRIES_PER_PRIORITY,
            }))),
        }),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack_any(PreviousHostsPredicate {}))),
        }],
        host_selection_retry_max_attempts: DRAWS,
        ..policy
    })
}

fn asked(retry: &Retry, class: ClientClass) -> RetryPolicy {
    let on = |status: &RetryOn| match status {
        RetryOn::Cancelled => "cancelled",
        RetryOn::DeadlineExceeded => "deadline-exceeded",
        RetryOn::Internal => "internal",
        RetryOn::ResourceExhausted => "resource-exhausted",
        RetryOn::Unavailable => "unavailable",
    };
    let per_try_timeout = retry.per_try_timeout.filter(|_| !class.is_stock_grpc());
    // Envoy counts a try that took too long as a reset, whatever its status.
    let too_slow = per_try_timeout.map(|_| "reset");
    RetryPolicy {
        retry_on: retry.on.iter().map(on).chain(too_slow).collect::<Vec<_>>().join(","),
        num_retries: Some(UInt32Value { value: retry.attempts }),
        per_try_timeout: per_try_timeout.map(duration),
        retry_back_off: Some(back_off(retry.backoff.base, retry.backoff.max)),
        ..RetryPolicy::default()
    }
}

fn back_off(base: Duration, max: Duration) -> RetryBackOff {
    RetryBackOff { base_interval: Some(duration(base)), max_interval: Some(duration(max)) }
}
