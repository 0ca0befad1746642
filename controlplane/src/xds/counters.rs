//! What the xDS server counts, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since the start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
        #[serde(rename_all = "camelCase")]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads them.
            #[must_use]
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Streams that gave their node.
    streams,
    /// Streams refused: no node, or none for a minute, too many names, no place in the topology.
    refused_streams,
    /// Requests taken.
    requests,
    /// Responses handed to the transport.
    responses,
    /// Responses that clients accepted.
    acks,
    /// Responses that clients refused.
    nacks,
    /// Requests ignored because their nonce was not the last.
    stale_requests,
    /// Requests ignored because of their type.
    unknown_types,
    /// Streams that ended on a frame that is no request, or larger than a request may be.
    bad_frames,
    /// Streams closed because their client did not read.
    stalled_streams,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
