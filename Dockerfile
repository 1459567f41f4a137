# The archiver, its UI and its console script in one image, run by an ordinary user.
FROM python:3.11-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
RUN python -m venv .venv

# The dependencies have a layer of their own: a change of the code does not install them again.
COPY requirements.lock .
RUN .venv/bin/pip install --require-hashes -r requirements.lock

# The install refers to /app, where workspace.yaml and deploy/ lie beside the package as they do in a checkout.
COPY . .
RUN .venv/bin/pip install --no-build-isolation --no-deps -e . && .venv/bin/python -m compileall -q archiver_pipeline


FROM python:3.11-slim

RUN useradd --uid 10001 --create-home archiver && install --directory --owner archiver /data
COPY --from=build /app /app

WORKDIR /app
USER archiver
ENV PATH=/app/.venv/bin:$PATH BASE_DIR=/data PYTHONUNBUFFERED=1
EXPOSE 3000

CMD ["python", "-m", "archiver_pipeline.dev", "--host", "0.0.0.0"]
