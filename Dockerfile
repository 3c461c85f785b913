# Images of meshserve: `cpu` for pools and CPU LLMs, `cuda` for pods with GPUs.
#
#     docker build --target cpu  -t meshserve:0.1.0-cpu  .
#     docker build --target cuda -t meshserve:0.1.0-cuda .
#
# What is installed is pinned with its digests in deploy/locks (`make lock`).

FROM python:3.11.13-slim-bookworm AS base
ENV PATH=/opt/meshserve/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# The user of the manifests' security contexts.
RUN useradd --uid 1000 --create-home --home-dir /var/lib/meshserve meshserve

FROM base AS source
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY meshserve ./meshserve
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM base AS build-cpu
COPY deploy/locks/cpu.txt /locks/cpu.txt
COPY --from=source /wheels /wheels
RUN python -m venv /opt/meshserve \
    && pip install --no-cache-dir --require-hashes --no-deps -r /locks/cpu.txt \
    && pip install --no-cache-dir --no-deps /wheels/*.whl

FROM base AS build-cuda
COPY deploy/locks/cuda.txt /locks/cuda.txt
COPY --from=source /wheels /wheels
RUN python -m venv /opt/meshserve \
    && pip install --no-cache-dir --require-hashes --no-deps -r /locks/cuda.txt \
    && pip install --no-cache-dir --no-deps /wheels/*.whl

FROM base AS cuda
COPY --from=build-cuda /opt/meshserve /opt/meshserve
USER 1000:1000
WORKDIR /var/lib/meshserve
EXPOSE 8080
CMD ["meshserve", "--help"]

# Last, so that it is what a build without a target makes.
FROM base AS cpu
COPY --from=build-cpu /opt/meshserve /opt/meshserve
USER 1000:1000
WORKDIR /var/lib/meshserve
EXPOSE 8080
CMD ["meshserve", "--help"]
