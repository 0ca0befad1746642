//! Hostile xDS streams, through the decoders and the state machine.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portolan_controlplane::xds::fuzz::drive(bytes));
