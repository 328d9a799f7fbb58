# Built in one stage, run in another: the image that runs has neither pip's cache nor build tools.

FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY flightkalam ./flightkalam
RUN python -m venv /opt/flightkalam \
 && /opt/flightkalam/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin flightkalam \
 && install -d -o flightkalam -g flightkalam -m 0700 /data
COPY --from=build /opt/flightkalam /opt/flightkalam

ENV PATH=/opt/flightkalam/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FLIGHTKALAM__SERVER__DATA_DIR=/data \
    FLIGHTKALAM__SERVER__HOST=0.0.0.0 \
    FLIGHTKALAM__SERVER__PORT=31337 \
    FLIGHTKALAM__LOG__FORMAT=json

# A listener beyond loopback needs TLS (FLIGHTKALAM__SERVER__TLS_CERT and FLIGHTKALAM__SERVER__TLS_KEY), or somebody who
# asks for plain text: FLIGHTKALAM__SERVER__PLAIN_TEXT_BEYOND_LOOPBACK=true. The image does not ask.

USER flightkalam
WORKDIR /data
VOLUME /data
EXPOSE 31337

# Whether the listener answers Flight: a handshake without credentials is answered, and gains nothing.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["flightkalam", "ping"]

# The server stops on SIGTERM by itself: it lets running results end, then closes the log.
STOPSIGNAL SIGTERM
ENTRYPOINT ["flightkalam"]
CMD ["serve"]
