# syntax=docker/dockerfile:1
# podlog as an image: one static binary and the certificates of public authorities, no shell, no package manager. The
# binary is built without the cargo feature lab, so it has no `podlog demo` and no `podlog simulate`.
#   docker build -t podlog .
#   docker buildx build --platform linux/amd64,linux/arm64 -t podlog .      each is built on (or emulated as) its own
ARG RUST=1.95

FROM docker.io/library/rust:${RUST}-bookworm AS build
# Debian keeps no older versions to pin.
# hadolint ignore=DL3008
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends musl-tools ca-certificates
WORKDIR /src
COPY . .
ARG TARGETARCH
# The timestamp in the image, instead of the current time; releases use that of the commit.
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,id=podlog-target-${TARGETARCH},sharing=locked \
    scripts/build-static /out/podlog

FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="podlog" \
      org.opencontainers.image.description="Collects the logs of Kubernetes pods, each line once, from any number of equal replicas" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/podlog /podlog
COPY LICENSE-MIT LICENSE-APACHE /licenses/
# By number, so that runAsNonRoot can be checked.
USER 65532:65532
EXPOSE 9464
ENTRYPOINT ["/podlog"]
