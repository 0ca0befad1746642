//! The service that a scenario's backends offer, generated from `proto/portolan/chaos/v1/echo.proto`.
#![allow(missing_docs, unreachable_pub, reason = "generated")]
#![allow(clippy::all, clippy::pedantic, reason = "generated")]

tonic::include_proto!("portolan.chaos.v1");
