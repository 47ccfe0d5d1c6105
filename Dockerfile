# The daemon in an image: docker build -t zkside .    (docs/image.md; `make image` builds it without Docker, and tests it)
# Another base: --build-arg PYTHON_IMAGE=...; Debian or a child of it, with Python 3.11 or newer and its venv.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# What is built with is in an environment of its own; only the other one, without pip, goes into the image.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/zkside
COPY requirements/run.txt requirements/build.txt requirements/
# Secrets, both optional: pip (a pip.conf) and ca (the authorities to trust), for an index of your own or a proxy.
# Nothing is compiled; pure-sasl has no wheel, and is built with what was checked before it.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    /opt/build/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements/build.txt \
    && /opt/build/bin/pip wheel --no-cache-dir --only-binary :all: --no-binary pure-sasl --use-pep517 \
        --no-build-isolation --require-hashes -r requirements/run.txt --wheel-dir /wheels
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY proto proto
COPY zkside zkside
# A root that is read-only cannot keep compiled code, so it is compiled here, whole, and never compared with its source:
# a start does not depend on the times of files. Without the columns of every instruction it is smaller in memory.
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/zkside/bin/python install --no-cache-dir --no-compile --no-deps --no-index \
        /wheels/*.whl \
    && find /opt/zkside -depth -type d -name tests -exec rm -r {} + \
    && PYTHONNODEBUGRANGES=1 python3 -m compileall -q --invalidation-mode unchecked-hash /opt/zkside/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title=zkside \
      org.opencontainers.image.description="One ZooKeeper session per host, served to every process there as streaming gRPC" \
      org.opencontainers.image.licenses=Apache-2.0
# Of the base: its Python compiled too, where it is not; and nothing with which to install, or to become root. The two
# directories are for a container without volumes.
RUN PYTHONNODEBUGRANGES=1 python3 -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(test|tests|idlelib|lib2to3|turtledemo|pydoc_data|ensurepip|site-packages|dist-packages)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && find / -xdev \( -path '*/python*/*-packages/pip*' -o -path '*/python*/*-packages/setuptools*' \
        -o -path '*/python*/*-packages/wheel*' -o -path '*/python3*/ensurepip' -o -path '/usr/share/python-wheels' \
        -o -path '/usr/local/bin/pip*' \) -prune -exec rm -r {} + \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && install -d -o 65532 -g 65532 -m 0755 /run/zkside \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/zkside
COPY --from=build /opt/zkside /opt/zkside
# Two malloc arenas: one would do for one event loop, the pages' threads get the other.
ENV PATH=/opt/zkside/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    ZKSIDE_LISTEN=unix:/run/zkside/zkside.sock \
    ZKSIDE_ADDRESS=unix:/run/zkside/zkside.sock \
    ZKSIDE_STATE_DIR=/var/lib/zkside
USER 65532:65532
WORKDIR /
STOPSIGNAL SIGTERM
# Kubernetes does not look at this; its probes ask the health port. ZooKeeper is not asked here either.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["zkside", "--timeout", "3s", "health"]
ENTRYPOINT ["zkside"]
CMD ["serve"]
