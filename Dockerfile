# The control plane's image: `docker build -t portolan .`. The example's backend and client, for a trial:
# `docker build --target example -t portolan-example .`.
#
# One Debian release builds and runs, so that the C library is the one that was linked against: the tests run on that
# library, its resolver and its allocator, which a static musl build would not have.
FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin portolan --example backend --example call \
    && mkdir /out && cp target/release/portolan target/release/examples/backend target/release/examples/call /out/

FROM gcr.io/distroless/cc-debian13:nonroot AS example
COPY --from=build /out/backend /out/call /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/backend", "0.0.0.0:50051"]

# No shell, no package manager. It runs with a read-only root file system: only --data-dir is written to.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /out/portolan /usr/local/bin/portolan
USER 65532:65532
EXPOSE 7443 7444 7481
ENTRYPOINT ["/usr/local/bin/portolan"]
