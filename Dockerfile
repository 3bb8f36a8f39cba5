# The image of harvester. It runs with a read-only root file system and writes only to /data. Examples:
#
#   docker run --rm --read-only --cap-drop all -v harvest:/data harvester demo
#   docker run --rm --read-only --cap-drop all -v harvest:/data -v "$PWD/sends.csv:/sends.csv:ro" -e BRAZE_API_KEY \
#     harvester run /sends.csv --endpoint https://rest.fra-01.braze.eu
#
#   docker run --read-only --cap-drop all -v harvest:/data -v "$PWD/harvester.toml:/etc/harvester.toml:ro" \
#     -v "$PWD/secrets:/run/secrets:ro" -p 127.0.0.1:8080:8080 harvester serve --config /etc/harvester.toml
#
# By default, the ledger and the parts are below /data; the ledger of a bucket is in /data/.harvester. The image sets no
# variables for them, because variables override the configuration file. It sets only the address of the web server,
# because the loopback address of a container cannot be reached from outside.
#
# If you mount a folder of the host instead of the volume, it must be writable for uid 65532; or pass its owner with
# --user, which may be any uid. After a SIGTERM, harvester ends within 25 seconds, so use docker stop --time 30. If it
# is killed earlier, the next run continues where it stopped.
#
# Temporary files are in /data too: plan, latest and run -o - need some, and SQLite sometimes does. To put them
# elsewhere, mount another volume and name it in TMPDIR.

# A tag can move. For reproducible builds, pin the base image by its digest. The first command prints it:
#   docker buildx imagetools inspect python:3.11-slim-bookworm
#   docker build --build-arg BASE=python:3.11-slim-bookworm@sha256:... .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
# Dependencies are installed from the locks, by hash; scripts/dependencies renews the locks.
COPY locks locks
RUN python -m venv /build && /build/bin/python -m pip install --no-cache-dir --require-hashes -r locks/build.txt \
    && python -m venv --without-pip /venv \
    && python -m pip --python /venv/bin/python install --no-cache-dir --no-compile --root-user-action ignore \
        --require-hashes -r locks/image.txt
COPY pyproject.toml README.md ./
COPY harvester harvester
# Bytecode is compiled here, because none can be written to a read-only root. It is not checked against the times of the
# source files, because these may differ between layers.
RUN /build/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
    && python -m pip --python /venv/bin/python install --no-cache-dir --no-compile --root-user-action ignore \
        --no-deps /wheel/*.whl \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib

FROM ${BASE}
# The base image has no bytecode of the standard library.
RUN python -m compileall -q -j 0 -x '/(tests?|idlelib|lib2to3|turtledemo|(dist|site)-packages)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && install -d -o 65532 -g 65532 /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH TMPDIR=/data HARVESTER_WEB_HOST=0.0.0.0
WORKDIR /data
VOLUME /data
USER 65532:65532
STOPSIGNAL SIGTERM
EXPOSE 8080
# Only serve has a web server. Other commands are healthy while they run.
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s --retries=6 CMD ["python", "-c", "\
import os, urllib.request; \
b'serve' in open('/proc/1/cmdline', 'rb').read().split(b'\\0') and \
urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('HARVESTER_WEB_PORT', 8080)}/livez\", timeout=9)"]
ENTRYPOINT ["harvester"]
CMD ["--help"]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="harvester" \
      org.opencontainers.image.description="Captures Braze send analytics before they expire" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
