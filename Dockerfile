# syntax=docker/dockerfile:1
# The archiver, its UI and its console script in one image, run by an ordinary user. docs/deployment.md says how.
# Tags of releases; to hold an image for good, put its digest behind the tag (docker buildx imagetools inspect IMAGE).
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
# pip stays outside of it: what runs needs none.
RUN python -m venv --without-pip .venv

# The dependencies have a layer of their own: a change of the code does not install them again.
COPY deploy/*.lock deploy/
RUN python -m pip --python .venv/bin/python install --require-hashes -r deploy/requirements.lock \
    && python -m pip install --require-hashes -r deploy/build.lock

# The install refers to /app, where workspace.yaml and deploy/ lie beside the package as they do in a checkout.
COPY . .
RUN mkdir /wheel && python -c "from hatchling.build import build_editable; build_editable('/wheel')" \
    && python -m pip --python .venv/bin/python install --no-deps /wheel/*.whl \
    && python -m compileall -q archiver_pipeline \
    && rm deploy/*.lock


FROM ${PYTHON_IMAGE}

ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="archiver" \
      org.opencontainers.image.description="Copies Kafka topics into Hive-partitioned Parquet, exactly once" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"

# A uid by number, so that Kubernetes can see that it is not root. /data is BASE_DIR.
RUN groupadd --gid 10001 archiver \
    && useradd --uid 10001 --gid 10001 --create-home archiver \
    && install --directory --owner archiver --group archiver /data /dagster
COPY --from=build /app /app

WORKDIR /app
USER 10001:10001
# Nothing is written but below BASE_DIR, DAGSTER_HOME and /tmp: the root file system may be read-only.
ENV PATH=/app/.venv/bin:$PATH BASE_DIR=/data PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME /data
EXPOSE 3000 4000 9464
STOPSIGNAL SIGTERM
# Of the command below. Whatever else is run in the image has a check of its own, or none (--no-healthcheck).
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=6 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://localhost:3000/server_info', timeout=5)"]

CMD ["python", "-m", "archiver_pipeline.dev", "--host", "0.0.0.0"]
