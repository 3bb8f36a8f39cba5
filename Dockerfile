# The harvester, for a read-only root: nothing is written but /data. Run it so:
#
#   docker run --rm --read-only --cap-drop all -v harvest:/data harvester demo
#   docker run --rm --read-only --cap-drop all -v harvest:/data -v "$PWD/sends.csv:/sends.csv:ro" -e BRAZE_API_KEY \
#     harvester run /sends.csv --endpoint https://rest.fra-01.braze.eu
#
#   docker run --read-only --cap-drop all -v harvest:/data -v "$PWD/harvester.toml:/etc/harvester.toml:ro" \
#     -v "$PWD/secrets:/run/secrets:ro" -p 127.0.0.1:8080:8080 harvester serve --config /etc/harvester.toml
#
# Ledger and parts need no name: they go below /data, a bucket's ledger to /data/.harvester. No variable says so here,
# since it would win over the file. Only the address of the web server is set: in a container, nobody reaches loopback.
#
# A folder of the host in place of the volume must be writable for uid 65532, or name its owner with --user: any
# uid will do. What is in flight lands within 25 seconds of a SIGTERM, so give it docker stop --time 30; killed
# sooner, the next run goes on all the same.
#
# Temporary files lie in /data too: plan, latest and run -o - need some, and SQLite now and then. Where that is no
# place for them, mount another and name it in TMPDIR.

# A tag can move. For reproducible builds, pin the base image by its digest. The first command prints it:
#   docker buildx imagetools inspect python:3.11-slim-bookworm
#   docker build --build-arg BASE=python:3.11-slim-bookworm@sha256:... .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
# All that is not ours is installed from the locks, by hash; scripts/dependencies renews them.
COPY locks locks
RUN python -m venv /build && /build/bin/python -m pip install --no-cache-dir --require-hashes -r locks/build.txt \
    && python -m venv --without-pip /venv \
    && python -m pip --python /venv/bin/python install --no-cache-dir --no-compile --root-user-action ignore \
        --require-hashes -r locks/image.txt
COPY pyproject.toml README.md ./
COPY harvester harvester
# Byte-code is compiled here, since a read-only root keeps none; by hash, since layers may be given other times.
RUN /build/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
    && python -m pip --python /venv/bin/python install --no-cache-dir --no-compile --root-user-action ignore \
        --no-deps /wheel/*.whl \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib

FROM ${BASE}
# The base comes without the byte-code of the standard library.
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
# Of serve alone: the other commands have no face, and are well for as long as they run.
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
