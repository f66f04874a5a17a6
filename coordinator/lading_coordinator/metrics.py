"""What the coordinator counts, in a registry of its own so that two may run in one process."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# What every process counts for itself, and means the same by.
_SEEN_BY_ALL = frozenset(
    {"lading_hosts", "lading_hosts_quoted", "lading_summaries", "lading_offers", "lading_chain_up"}
)


class _Refused:
    """Counts that another part keeps, read when somebody looks."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily("lading_net_refused", "What the limits of the network kept out", labels=("kind",))
        for kind, count in self._counts.items():
            family.add_metric((kind,), count)
        yield family


class Tally:
    """A counter or gauge for what happens with every job: to count here costs a twentieth of counting there."""

    __slots__ = ("_shown", "_waiting")

    def __init__(self, shown: Counter | Gauge) -> None:
        self._shown = shown
        self._waiting = 0

    def inc(self, amount: int = 1) -> None:
        self._waiting += amount

    def show(self) -> None:
        amount, self._waiting = self._waiting, 0
        self._shown.inc(amount)


class Waits:
    """How long something was waited for, in seconds. As with Tally: a Histogram takes twenty times as long to count."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: HistogramMetricFamily, operation: str) -> None:
        bounds = [*map(floatToGoString, _SECONDS), "+Inf"]
        family.add_metric((operation,), list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)


class _FirstTokens:
    """Reads them when somebody looks."""

    def __init__(self) -> None:
        self.waits: dict[str, Waits] = {}

    def of(self, operation: str) -> Waits:
        return self.waits.setdefault(operation, Waits())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        words = "From the request to its first token"
        family = HistogramMetricFamily("lading_first_token_seconds", words, labels=("operation",))
        for operation, waits in self.waits.items():
            waits.add_to(family, operation)
        yield family


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Counter(
            "lading_jobs", "Jobs by operation and outcome", ("operation", "code"), registry=self.registry
        )
        self.running = Gauge("lading_jobs_running", "Jobs in progress", registry=self.registry)
        self.waiting = Gauge("lading_jobs_waiting", "Jobs that wait for their turn", registry=self.registry)
        self.shed = Counter(
            "lading_jobs_shed", "Jobs turned away for want of room", ("band", "why"), registry=self.registry
        )
        self.moved = Counter("lading_moved", "Hosts that dropped out of a job", ("code",), registry=self.registry)
        self.tokens = Counter("lading_tokens", "Tokens billed", ("direction",), registry=self.registry)
        self.spent = Counter("lading_spent_wei", "Promised to hosts, in wei", registry=self.registry)
        self.hosts = Gauge("lading_hosts", "Hosts with a live heartbeat", registry=self.registry)
        self.offers = Gauge("lading_offers", "Offers known", registry=self.registry)
        self.quoted = Gauge("lading_hosts_quoted", "Hosts that other coordinators quoted", registry=self.registry)
        self.summed = Gauge("lading_summaries", "Agents in regions that others sum up", registry=self.registry)
        self.audits = Counter("lading_audits", "Audits by verdict", ("verdict",), registry=self.registry)
        self.audit_fees = Counter(
            "lading_audit_fees", "Findings of auditors, by whether they were paid", ("outcome",), registry=self.registry
        )
        self.audit_fees_wei = Counter("lading_audit_fees_wei", "Promised to auditors, in wei", registry=self.registry)
        self.disputes = Counter("lading_disputes", "Steps of disputes", ("step",), registry=self.registry)
        self.chain_up = Gauge("lading_chain_up", "1 while the chain answers", registry=self.registry)
        self.clock_off = Gauge(
            "lading_clock_off_seconds", "By how much most hosts' clocks are ahead of this one", registry=self.registry
        )
        self.lost_records = Counter("lading_ledger_retries", "Ledger writes to be repeated", registry=self.registry)

        # Looking a child up by its labels costs more than to count: what every job needs is kept here.
        self._tallies: list[Tally] = []
        self.began, self.spending = self._tally(self.running), self._tally(self.spent)
        self.tokens_in, self.tokens_out = (self._tally(self.tokens.labels(way)) for way in ("input", "output"))
        first_tokens = _FirstTokens()
        self.registry.register(first_tokens)
        self.first_of = cache(first_tokens.of)
        self.jobs_of = cache(lambda operation, code: self._tally(self.jobs.labels(operation, code)))

    def _tally(self, shown: Counter | Gauge) -> Tally:
        self._tallies.append(Tally(shown))
        return self._tallies[-1]

    def show_refused(self, counts: Mapping[str, int]) -> None:
        """Shows what the direct network keeps out, by kind, from now on."""
        self.registry.register(_Refused(counts))

    def text(self) -> bytes:
        for tally in self._tallies:
            tally.show()
        return generate_latest(self.registry)


def merged(texts: Sequence[bytes]) -> bytes:
    """The figures of several processes as those of one: counts added up, and of what each process sees the most."""
    families: dict[str, tuple[str, str]] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            families[family.name] = (family.type, family.documentation)
            held = sums.setdefault(family.name, {})
            for sample in family.samples:
                key = sample.name, tuple(sample.labels.items())
                seen = held.get(key, 0.0)
                same = family.name in _SEEN_BY_ALL or family.name.endswith("_created")
                held[key] = max(seen, sample.value) if same else seen + sample.value
    lines = []
    for name, (kind, words) in families.items():
        shown = f"{name}_total" if kind == "counter" else name
        lines += [f"# HELP {shown} {words}", f"# TYPE {shown} {kind}"]
        for (sample_name, labels), value in sums[name].items():
            named = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
            lines.append(f"{sample_name}{{{named}}} {value!r}" if named else f"{sample_name} {value!r}")
    return ("\n".join(lines) + "\n").encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
