# The service with the shipped weights, on CPU. Build with TORCH_INDEX=https://download.pytorch.org/whl/cu128 for CUDA.
FROM python:3.12-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /source
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python -m venv /app
RUN /app/bin/pip install --no-cache-dir "torch>=2.7,<2.14" --index-url ${TORCH_INDEX}
COPY pyproject.toml setup.py README.md LICENSE NOTICE ./
COPY src src
RUN /app/bin/pip install --no-cache-dir ".[provenance]" "psycopg[binary]>=3.2" "s3fs>=2024.6"

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home kontext && install -d -o kontext /data
COPY --from=build /app /app
USER kontext
ENV PATH=/app/bin:$PATH KONTEXT_HOME=/data PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["kontext", "serve", "--host", "0.0.0.0", "--port", "8000", "--data", "/data"]
