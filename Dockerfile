# The daemon in a container:
#
#   docker build -t strep .
#   docker run --rm -p 9000:9000/udp -v strep-recordings:/recordings \
#     --read-only --cap-drop ALL --security-opt no-new-privileges strep
#
# Settings are environment variables (-e STREP_MAX_TRACKS=1000) or arguments (strep serve ...). A
# folder of the host in place of the volume has to be writable for the user 10001; nothing else is
# written. What is installed is pinned by version and hash in requirements.lock and
# requirements-build.lock, which `make lock` makes.

FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
RUN python -m venv /opt/strep && python -m venv /opt/build
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock \
    && /opt/strep/bin/pip install --no-cache-dir --require-hashes --only-binary :all: \
        -r requirements.lock
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY strep strep
COPY strep_kernel strep_kernel
COPY pipeline pipeline
# without isolation, which would fetch setuptools anew, and without dependencies, which are there
RUN /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /dist . \
    && /opt/strep/bin/pip install --no-cache-dir --no-index --no-deps /dist/*.whl \
    && /opt/strep/bin/pip check \
    && /opt/strep/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /recordings \
        --shell /usr/sbin/nologin strep \
    && install --directory --owner=strep --group=strep /recordings
COPY --from=build /opt/strep /opt/strep
ENV PATH=/opt/strep/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STREP_RECORDINGS=/recordings
USER 10001:10001
WORKDIR /recordings
VOLUME /recordings
# Forked media; HTTP, which listens on the container's loopback until STREP_HTTP (0.0.0.0:8080, say)
# opens it to those who have the token (STREP_HTTP_TOKEN_FILE).
EXPOSE 9000/udp 8080/tcp
STOPSIGNAL SIGTERM
# Plain HTTP on loopback: with a certificate, or another port, give --health-cmd another one.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=2); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["strep"]
CMD ["serve"]
