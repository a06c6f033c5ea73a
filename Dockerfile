# syntax=docker/dockerfile:1
# Build:  docker build -t weir .
# Run:    docker run -p 9099:9099 -e WEIR_BACKEND_URL=http://prometheus:9090 -v weir-data:/data weir

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin weir \
    && strip -o /weir target/release/weir

# The binary needs libc and libgcc, nothing else; the health check needs bash.
FROM debian:bookworm-slim
RUN useradd --system --uid 65532 --no-create-home --shell /usr/sbin/nologin weir \
    && mkdir -p /etc/weir /data && chown weir: /data
COPY --from=build /weir /usr/local/bin/weir
COPY config/container.yaml /etc/weir/weir.yaml
USER 65532:65532
VOLUME /data
EXPOSE 9099 9098
# bash opens the socket by itself, which spares the image a client. The admin API answers under any load of queries.
HEALTHCHECK --interval=15s --timeout=3s --start-period=5s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/9098 && printf 'GET /-/healthy HTTP/1.0\\r\\n\\r\\n' >&3 && head -n1 <&3 | grep -q ' 200 '"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["weir"]
CMD ["proxy", "--config", "/etc/weir/weir.yaml", "--data", "/data"]
