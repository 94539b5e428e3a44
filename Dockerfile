# The container image: Node, the packages of a fleet and the compiled program, with `arcadia` as the entry point.
# The last stage starts from nothing. It has no shell, no npm, no compiler and no package manager, and is less than half
# the size of node:24-bookworm-slim with the same packages. It runs as user 10001 and writes no file, so that the root
# file system can be read-only: docs/how-to/deploy.md.
FROM node:24-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json ./
# Without install scripts: they fetch a Node for development and lay out the embedded Postgres. The image has neither.
RUN npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
COPY tsconfig.json tsconfig.build.json LICENSE ./
COPY script ./script
COPY src ./src
COPY migrations ./migrations
RUN node script/build.ts

# What the image holds. The program is a package beside the packages that it needs: an app of your own in /srv/arcadia
# imports `arcadia-cloud/engine` by name.
RUN set -eu; \
    program=/image/srv/arcadia/node_modules/arcadia-cloud; \
    mkdir -p "$program" /image/usr/local/bin /image/etc /image/tmp; \
    chmod 1777 /image/tmp; \
    cp -R package.json LICENSE dist migrations "$program"; \
    sed -i '1s|.*|#!/usr/local/bin/node|' "$program/dist/main.js"; \
    chmod 755 "$program/dist/main.js"; \
    ln -s /srv/arcadia/node_modules/arcadia-cloud/dist/main.js /image/usr/local/bin/arcadia; \
    node script/image-packages.ts; \
    npm prune --omit=dev --ignore-scripts --offline --no-audit --no-fund --loglevel=error; \
    cp -R node_modules/. /image/srv/arcadia/node_modules; \
    cp /usr/local/bin/node /image/usr/local/bin/node; \
    ldd /usr/local/bin/node | grep -o '/[^ ]*' | sort -u | while read -r library; do \
      mkdir -p "/image$(dirname "$library")"; cp -L "$library" "/image$library"; \
    done; \
    echo 'arcadia:x:10001:10001::/tmp:/usr/local/bin/arcadia' >/image/etc/passwd; \
    echo 'arcadia:x:10001:' >/image/etc/group; \
    echo 'hosts: files dns' >/image/etc/nsswitch.conf

FROM scratch
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="arcadia-cloud" \
      org.opencontainers.image.description="Provisions and destroys DigitalOcean droplets as sagas" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /image /
# HOST: a container has an address of its own. Off loopback, `web` starts only with credentials.
ENV PATH=/usr/local/bin HOME=/tmp NODE_ENV=production HOST=0.0.0.0
WORKDIR /srv/arcadia
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 3000
STOPSIGNAL SIGTERM
ENTRYPOINT ["arcadia"]
CMD ["--help"]
