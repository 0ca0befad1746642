//! ORCA: what a server says of its own load, in the trailers of a response.
//!
//! The message is `xds.data.orca.v3.OrcaLoadReport`; envoy-types has none. Whatever does not decode, or holds numbers that
//! no server can mean, is no report: it never fails a call.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName};
use prost::Message;
use tonic::metadata::MetadataMap;

/// The trailer, in binary: tonic and gRPC encode it in base64.
const TRAILER: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");
/// More is no report: an honest one has a few hundred bytes.
const LARGEST: usize = 16 * 1024;

/// A server's load as it sees it.
#[derive(Clone, PartialEq, Message)]
pub struct OrcaReport {
    /// CPU used, as a part of what it was given; may exceed 1.
    #[prost(double, tag = "1")]
    pub cpu_utilization: f64,
    /// Memory used, as a part of what it was given.
    #[prost(double, tag = "2")]
    pub mem_utilization: f64,
    /// Costs of this one request, by name; each server names its own.
    #[prost(map = "string, double", tag = "4")]
    pub request_cost: HashMap<String, f64>,
    /// Utilisations of other resources, by name, each a part of 1.
    #[prost(map = "string, double", tag = "5")]
    pub utilization: HashMap<String, f64>,
    /// Requests a second that it serves.
    #[prost(double, tag = "6")]
    pub rps_fractional: f64,
    /// Errors a second that it answers.
    #[prost(double, tag = "7")]
    pub eps: f64,
    /// Whatever else it tells, by name.
    #[prost(map = "string, double", tag = "8")]
    pub named_metrics: HashMap<String, f64>,
    /// How busy it is by its own measure; may exceed 1.
    #[prost(double, tag = "9")]
    pub application_utilization: f64,
}

impl OrcaReport {
    /// The report in the trailers, if there is one that makes sense.
    #[must_use]
    pub fn of(trailers: &HeaderMap) -> Option<Self> {
        let text = trailers.get(&TRAILER).filter(|text| text.len() <= LARGEST)?;
        let alone = MetadataMap::from_headers(HeaderMap::from_iter([(TRAILER, text.clone())]));
        let bytes = alone.get_bin(TRAILER.as_str())?.to_bytes().ok()?;
        Self::decode(bytes).ok().filter(Self::is_sane)
    }

    /// How busy the server is: by its own measure, else by its CPU. `None` if it says neither.
    #[must_use]
    pub fn utilization(&self) -> Option<f64> {
        [self.application_utilization, self.cpu_utilization].into_iter().find(|it| *it > 0.0)
    }

    fn is_sane(&self) -> bool {
        let plain =
            [self.cpu_utilization, self.mem_utilization, self.rps_fractional, self.eps, self.application_utilization];
        let named = self.request_cost.values().chain(self.utilization.values()).chain(self.named_metrics.values());
        plain.iter().all(|it| it.is_finite() && *it >= 0.0) && named.into_iter().all(|it| it.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::metadata::BinaryMetadataValue;

    use super::*;

    fn trailers(bytes: &[u8]) -> HeaderMap {
        let mut metadata = MetadataMap::new();
        metadata.insert_bin("endpoint-load-metrics-bin", BinaryMetadataValue::from_bytes(bytes));
        metadata.into_headers()
    }

    #[test]
    fn a_report_is_read() {
        let report = OrcaReport {
            cpu_utilization: 0.7,
            named_metrics: HashMap::from([("queue".to_owned(), 3.0)]),
            ..OrcaReport::default()
        };
        let read = OrcaReport::of(&trailers(&report.encode_to_vec())).unwrap();
        assert_eq!(read, report);
        assert_eq!(read.utilization(), Some(0.7));
        assert_eq!(OrcaReport::of(&HeaderMap::new()), None);
        assert_eq!(OrcaReport::default().utilization(), None);
    }

    #[test]
    fn the_tags_are_those_of_the_published_message() {
        // cpu_utilization 0.5 and application_utilization 2.0, by hand.
        let mut bytes = vec![0x09];
        bytes.extend(0.5f64.to_le_bytes());
        bytes.push(0x49);
        bytes.extend(2.0f64.to_le_bytes());
        let report = OrcaReport::of(&trailers(&bytes)).unwrap();
        assert_eq!((report.cpu_utilization, report.utilization()), (0.5, Some(2.0)));
    }

    #[test]
    fn what_no_server_can_mean_is_no_report() {
        for cpu_utilization in [f64::NAN, f64::INFINITY, -1.0] {
            let report = OrcaReport { cpu_utilization, ..OrcaReport::default() };
            assert_eq!(OrcaReport::of(&trailers(&report.encode_to_vec())), None);
        }
        let mut headers = HeaderMap::new();
        headers.insert(TRAILER, http::HeaderValue::from_static("!!! not base64 !!!"));
        assert_eq!(OrcaReport::of(&headers), None);
    }

    proptest! {
        #[test]
        fn garbage_is_no_report_or_a_sane_one(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(report) = OrcaReport::of(&trailers(&bytes)) {
                prop_assert!(report.is_sane());
            }
        }
    }
}
