# One image for both commands, agent and coordinator. What the final stage copies is what tests run under chroot.
ARG NODE_IMAGE=node:26-trixie-slim

# Bundles run on every architecture: they are built once, on that of the builder.
FROM --platform=$BUILDPLATFORM ${NODE_IMAGE} AS build
WORKDIR /src
# The time of what is built, in seconds since 1970, where a build is to be the same each time.
ARG SOURCE_DATE_EPOCH
COPY . .
RUN npm run build

FROM ${NODE_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="checkpoint-restore-operator" \
      org.opencontainers.image.description="Keeps the disks of a cluster from filling up with container checkpoints, by policy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Scanners find by it what the bundles are made of, and licences ask for it.
COPY --from=build /src/dist/third-party /app/third-party
COPY --from=build /src/LICENSE /src/dist/sbom.cdx.json /src/dist/package.json \
     /src/dist/agent.js /src/dist/coordinator.js /app/
# So that `kubectl exec NAME -- agent list` needs to know no path.
COPY --from=build /src/dist/bin/agent /src/dist/bin/coordinator /usr/local/bin/
# The chart runs agents as root, to whom archives belong. Whatever is run otherwise is nobody.
USER 65532:65532
ENTRYPOINT ["node"]
CMD ["/app/agent.js", "--help"]
