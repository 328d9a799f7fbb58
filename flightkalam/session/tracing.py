"""OpenTelemetry: a trace for each statement, with a span for each of its steps.  Nothing is loaded unless it is configured.

A statement notes when its steps begin and end anyway, for the slow-query log; so spans are made at its end, out of what was
noted, and a statement pays nothing for them while it runs.  Spans hold what log lines hold: no text, no values.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from flightkalam.config_running import TracingConfig
from flightkalam.errors import ConfigError
from flightkalam.session.queries import Ended, Hook

_NAME = "flightkalam"


class Traces:
    """:param exporter: where spans go; a batch of them at a time, from a thread of its own."""

    def __init__(self, exporter: Any, sample: float = 1.0) -> None:
        sdk, resources = _module("opentelemetry.sdk.trace"), _module("opentelemetry.sdk.resources")
        sampling = _module("opentelemetry.sdk.trace.sampling")
        self._trace = _module("opentelemetry.trace")
        self._provider = sdk.TracerProvider(
            resource=resources.Resource.create({"service.name": _NAME}), sampler=sampling.TraceIdRatioBased(sample)
        )
        self._provider.add_span_processor(_module("opentelemetry.sdk.trace.export").BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(_NAME)

    def __call__(self, ended: Ended) -> None:
        query, trace = ended.query, self._trace

        def ns(at: float) -> int:
            return query.started_at_us * 1_000 + int((at - query.began) * 1e9)

        root = self._tracer.start_span(query.kind, start_time=ns(query.began), attributes=_attributes(ended))
        if ended.outcome == "failed":
            root.set_status(trace.Status(trace.StatusCode.ERROR))
        inside = trace.set_span_in_context(root)
        for name, begin, end in sorted(query.phases, key=lambda p: p[1]):
            self._tracer.start_span(name, context=inside, start_time=ns(begin)).end(ns(end))
        root.end(ns(query.began + ended.seconds))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _attributes(ended: Ended) -> dict[str, Any]:
    query = ended.query
    found = {
        "db.system.name": _NAME,
        "db.operation.name": query.kind,
        "flightkalam.query_id": query.query_id,
        "flightkalam.request_id": query.request_id,
        "flightkalam.actor": query.actor,
        "flightkalam.subject": query.user,
        "flightkalam.statement_hash": query.statement_hash,
        "flightkalam.outcome": ended.outcome,
        "db.response.status_code": ended.sqlstate,
        "db.response.returned_rows": query.rows,
    }
    return {name: value for name, value in found.items() if value is not None}


def hooks(config: TracingConfig) -> Sequence[Hook]:
    """:raises ConfigError: traces are asked for, and what sends them is not installed."""
    if not config.endpoint:
        return ()
    exporter = _module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter(endpoint=config.endpoint)
    return (Traces(exporter, config.sample),)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            "tracing.endpoint is set and OpenTelemetry is not installed: pip install 'flightkalam[tracing]', or leave it empty"
        ) from None
