# The images of the four services and of the operator's command, one at a time:
#   docker build --build-arg SERVICE=session-api --tag localhost/tlim/session-api .
# `make images` builds all of them. BASE is in deploy/images.lock; another Python 3.11 or newer on Debian does as well.
ARG BASE=docker.io/library/python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b

# --- what all of them have in common: a small system with Python --------------------------------------------------------
FROM ${BASE} AS system
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=bind,source=deploy/image,target=/src/deploy/image \
    python3 -m compileall -q --invalidation-mode unchecked-hash "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && /src/deploy/image/rootfs /system

# --- the packages of one service: those of others, which change seldom, then ours ---------------------------------------
FROM ${BASE} AS packages
ARG SERVICE
RUN --mount=type=bind,source=requirements.lock,target=/src/requirements.lock \
    --mount=type=bind,source=deploy/image,target=/src/deploy/image \
    --mount=type=bind,source=deploy/packages,target=/src/deploy/packages \
    --mount=type=bind,source=deploy/wheelhouse,target=/src/deploy/wheelhouse \
    /src/deploy/image/packages /src/deploy/packages/builder.txt /opt/builder \
    && /src/deploy/image/packages "/src/deploy/packages/${SERVICE}.txt" /opt/tlim
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=bind,target=/src \
    /src/deploy/image/ours "${SERVICE}" /packages

FROM scratch
COPY --from=system /system/ /
COPY --from=packages /packages/ /
ENV PATH=/opt/tlim/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# The process of this name is the first one: it gets SIGTERM, and drains.
ENTRYPOINT ["/opt/tlim/bin/start"]
# Whether it gets on and is ready. The operator's command serves nothing, and its containers switch this off.
# Run it with a restart policy: a service whose work is stuck is told to end.
HEALTHCHECK --interval=5s --timeout=10s --start-period=5m --retries=6 CMD ["/opt/tlim/bin/healthy"]
ARG SERVICE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tlim ${SERVICE}" \
      org.opencontainers.image.description="Part of tlim, instant messaging on your own machines" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
