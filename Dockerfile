# The daemon in an image: docker build -t zkside .
# Another base: --build-arg PYTHON_IMAGE=...; it needs Python 3.11 with venv at the same path in both stages.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python3 -m venv /opt/zkside
COPY requirements/run.txt requirements/run.txt
RUN /opt/zkside/bin/pip install --no-cache-dir --require-hashes -r requirements/run.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY proto proto
COPY zkside zkside
RUN /opt/zkside/bin/pip install --no-cache-dir --no-deps . && /opt/zkside/bin/pip uninstall -y pip

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/zkside /opt/zkside
# The socket and the state are on volumes; these directories are for a container that has none.
RUN mkdir -p /run/zkside /var/lib/zkside && chown 10001:10001 /run/zkside /var/lib/zkside && chmod 0750 /var/lib/zkside
# Two malloc arenas: one would do for one event loop, the pages' threads get the other.
ENV PATH=/opt/zkside/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    ZKSIDE_LISTEN=unix:/run/zkside/zkside.sock \
    ZKSIDE_ADDRESS=unix:/run/zkside/zkside.sock \
    ZKSIDE_STATE_DIR=/var/lib/zkside
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["zkside"]
CMD ["serve"]
