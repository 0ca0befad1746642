//! How policy is written to disk and to peers: a format version, then JSON of openraft's and our own types.

use std::io;

use prost::Message as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format that this version writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

#[derive(prost::Message)]
struct Record {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(bytes = "vec", tag = "2")]
    body: Vec<u8>,
}

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not a record at all.
    #[error("the record is damaged: {0}")]
    Damaged(#[from] prost::DecodeError),
    /// From a newer version.
    #[error("the record has format {found}, this version reads up to {FORMAT}: run a newer version")]
    TooNew {
        /// Its format.
        found: u32,
    },
    /// The body does not fit its type.
    #[error("the record's body does not fit: {0}")]
    Body(#[from] serde_json::Error),
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Writes `value` as a record.
pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, RecordError> {
    Ok(Record { format: FORMAT, body: serde_json::to_vec(value)? }.encode_to_vec())
}

/// Reads a record. Fields that this version does not know are passed over.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let record = Record::decode(bytes)?;
    if record.format == 0 || record.format > FORMAT {
        return Err(RecordError::TooNew { found: record.format });
    }
    Ok(serde_json::from_slice(&record.body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let bytes = encode(&vec![1, 2, 3]).unwrap();
        assert_eq!(decode::<Vec<u32>>(&bytes).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_newer_format_is_refused_with_its_number() {
        let bytes = Record { format: 2, body: b"{}".to_vec() }.encode_to_vec();
        let error = decode::<Vec<u32>>(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "the record has format 2, this version reads up to 1: run a newer version");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_are_an_error_or_a_value(bytes: Vec<u8>) {
            let _ = decode::<Vec<u32>>(&bytes);
        }
    }
}
