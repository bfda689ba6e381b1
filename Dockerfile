# One image for every part of the service: bitfront serve, worker, dashboard, upgrade.
FROM python:3.11.14-slim-bookworm AS build
# Extras of bitfront: service,vision,s3 for artifacts in a bucket.
ARG EXTRAS=service,vision
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/bitfront
COPY pyproject.toml README.md LICENSE constraints.txt /src/
COPY bitfront /src/bitfront
RUN /opt/bitfront/bin/pip install -c /src/constraints.txt "/src[${EXTRAS}]" \
    && /opt/bitfront/bin/pip uninstall -y pip

FROM python:3.11.14-slim-bookworm
# Triton compiles what starts its kernels where they run, and loads it from its cache.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home bitfront && install -d -o bitfront -g bitfront /data /scratch
COPY --from=build /opt/bitfront /opt/bitfront
ENV PATH=/opt/bitfront/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TRITON_CACHE_DIR=/scratch/.triton
USER bitfront
WORKDIR /scratch
EXPOSE 8765 8766 9464
ENTRYPOINT ["bitfront"]
CMD ["serve"]
