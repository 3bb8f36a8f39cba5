# The harvester as a container: one volume at /data, nothing else is written.
#
#   docker build -t harvester .
#   docker run --rm --read-only -v "$PWD/data:/data" harvester demo
#   docker run --rm --read-only -v "$PWD/data:/data" -e BRAZE_API_KEY harvester run sends.csv --endpoint https://...
#
# The volume must be writable for uid 65532. It holds the ledger: keep it.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/harvester
COPY pyproject.toml README.md ./
COPY harvester ./harvester
# Byte-code is made here once, so that no start pays for it and a read-only root can use it.
RUN /opt/harvester/bin/pip install --no-cache-dir --no-compile . \
    && /opt/harvester/bin/pip uninstall --yes pip setuptools \
    && /opt/harvester/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/harvester/lib

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="harvester" \
      org.opencontainers.image.description="Captures Braze send analytics before they expire"
COPY --from=build /opt/harvester /opt/harvester
ENV PATH=/opt/harvester/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/data
RUN install -d -o 65532 -g 65532 /data
USER 65532:65532
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["harvester"]
CMD ["--help"]
