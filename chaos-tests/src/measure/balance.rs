//! How evenly a service's backends share its requests.

use portolan_topology::names::ServiceId;

use super::record::{Record, Window};

/// Requests per backend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Balance {
    /// The busiest backend's requests over the mean of all that are in service.
    pub max_over_mean: f64,
    /// Requests counted.
    pub calls: usize,
    /// Backends in service.
    pub backends: usize,
}

/// How evenly the successful requests of `window` were spread over the backends of `service` that are in service at its
/// end. Requests from clients and from other services' backends count alike. `None` without requests.
#[must_use]
pub fn balance(record: &Record, service: &ServiceId, window: Window) -> Option<Balance> {
    let mut counts = vec![0_usize; record.backends.len()];
    for call in record.calls.iter().filter(|call| call.ok && window.contains(call.start)) {
        for backend in [call.backend, call.callee].into_iter().flatten() {
            counts[usize::from(backend.0)] += 1;
        }
    }
    let in_service = |removed: Option<std::time::Duration>| removed.is_none_or(|at| at >= window.until);
    let of_service = || record.backends.iter().zip(&counts).filter(|(backend, _)| backend.service == *service);
    let calls: usize = of_service().map(|(_, count)| *count).sum();
    let backends = of_service().filter(|(backend, _)| in_service(backend.removed)).count();
    let busiest = of_service().map(|(_, count)| *count).max()?;
    let mean = calls as f64 / backends as f64;
    (calls > 0 && backends > 0).then(|| Balance { max_over_mean: busiest as f64 / mean, calls, backends })
}
