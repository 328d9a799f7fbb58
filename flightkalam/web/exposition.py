"""The figures as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from flightkalam.figures import PREFIX, Figure, figure
from flightkalam.telemetry import BUCKETS, Sample, Spread

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BOUNDS = [f"{b:g}" for b in BUCKETS] + ["+Inf"]


class Figures(Collector):
    """A collector over samples, so that figures are kept in one place only: our own."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        for name, group in groupby(self._samples, key=lambda s: s.name):
            yield _family(figure(name), list(group))


def text(samples: Iterable[Sample]) -> bytes:
    return generate_latest(Figures(samples))


def _family(kind: Figure, samples: Sequence[Sample]) -> Metric:
    name = PREFIX + kind.name
    if kind.kind == "histogram":
        histogram = HistogramMetricFamily(name, kind.help, labels=kind.labels)
        for sample in samples:
            assert isinstance(sample.value, Spread), name
            histogram.add_metric(sample.labels, _cumulated(sample.value), sample.value.total)
        return histogram
    family = (CounterMetricFamily if kind.kind == "counter" else GaugeMetricFamily)(name, kind.help, labels=kind.labels)
    for sample in samples:
        assert not isinstance(sample.value, Spread), name
        family.add_metric(sample.labels, sample.value)
    return family


def _cumulated(spread: Spread) -> list[tuple[str, float]]:
    so_far, found = 0, []
    for bound, n in zip(_BOUNDS, spread.counts, strict=True):
        so_far += n
        found.append((bound, float(so_far)))
    return found
