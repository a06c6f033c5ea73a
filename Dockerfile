# syntax=docker/dockerfile:1
# Build:  docker build -t weir .
# Run:    docker run -p 9099:9099 -e WEIR_BACKEND_URL=http://prometheus:9090 -v weir-data:/data weir

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin weir \
    # Names of functions stay: /debug/pprof/ and the message of a panic are read by people.
    && strip --strip-debug -o /weir target/release/weir

# The binary needs libc and libgcc; https:// backends need the certificates of authorities.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 65532 weir \
    && useradd --system --uid 65532 --gid weir --no-create-home --shell /usr/sbin/nologin weir \
    && mkdir -p /etc/weir /data && chown weir:weir /data
COPY --from=build /weir /usr/local/bin/weir
COPY config/container.yaml /etc/weir/weir.yaml
USER 65532:65532
VOLUME /data
EXPOSE 9099 9098
# The admin API answers under any load of queries, with TLS or without.
HEALTHCHECK --interval=15s --timeout=3s --start-period=5s CMD ["weir", "check-health", "--config", "/etc/weir/weir.yaml"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["weir"]
CMD ["proxy", "--config", "/etc/weir/weir.yaml", "--data", "/data"]
