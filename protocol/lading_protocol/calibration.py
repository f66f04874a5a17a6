"""Signed tables of what known-good hosts show: from them come the limits of a numeric class, and nobody is slashed
without one.

Pure. A table is for one spec (what an agent computes, whoever publishes it), one class of hosts and one of auditors.
How it is measured is lading_node.calibrate's business.
"""

from collections.abc import Iterable
from math import inf
from typing import Annotated

import msgspec
from msgspec import Meta

from lading_protocol.audit import EXACT_MARGIN, TOLERANCES, Tolerance
from lading_protocol.conduct import Honest
from lading_protocol.errors import BadSignature, LadingError
from lading_protocol.ids import Address, Digest, from_hex, to_hex
from lading_protocol.keys import PrivateKey, recover
from lading_protocol.manifest import Manifest
from lading_protocol.transcript import CHUNK_TOKENS, SKETCH_BYTES, sha256

# Floors: below them lies nothing that a cheat gains by, and no calibration has seen everything.
LEAST_MARGIN, LEAST_PROMPT = 0.1, 0.1
# A sketch is of halves, whose own steps are this coarse.
LEAST_CHUNK = 2.0**-10
MARGIN_FACTOR, CHUNK_FACTOR, PROMPT_FACTOR = 3, 2, 3
MAX_TABLES = 4096
LEAST_JOBS = 20
# Where numbers may differ, the widest difference is a rare one: fewer jobs have not seen it (docs/verification.md).
LEAST_JOBS_INEXACT = 2000

Word = Annotated[str, Meta(min_length=1, max_length=64)]
Line = Annotated[str, Meta(max_length=300)]
Share = Annotated[float, Meta(ge=0, le=1e6)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Hex32 = Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$")]


class BadCalibration(LadingError):
    """A table of calibrations does not read, is not signed by whom it must be, or its numbers make no sense."""

    code = "bad_calibration"
    hint = "Measure it again: lading audit calibrate."


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The largest value of all honest jobs, and the one that one job in a thousand passes."""

    most: Share
    rare: Share


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `jobs` known-good jobs with `tokens` output tokens showed.

    `margin` is in logits, `chunk` and `prompt` are relative errors of sketches (audit.Tolerance), each the largest of a
    job. `clipped` is the mean margin of a token, cut at audit.CLIP; `clipped_sd` the standard deviation of a job's sum
    over the root of its tokens; `flips` the share of tokens that the auditor would not have chosen; `chunk_mean` and
    `chunk_sd` are of a job's largest chunk error. `exact` classes promise equal numbers.
    """

    spec: Hex32
    agent: Line
    host: Word
    auditor: Word
    host_engine: Line
    auditor_engine: Line
    hardware: Line
    date: Annotated[str, Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    seed: Count
    jobs: Count
    tokens: Count
    exact: bool
    margin: Seen
    chunk: Seen
    prompt: Seen
    clipped: Share
    clipped_sd: Share
    flips: Share
    chunk_mean: Share
    chunk_sd: Share


class SignedCalibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`signature` is over sha256("lading/calibration/1" || the table's canonical JSON), by an operator key."""

    table: Calibration
    signature: Annotated[str, Meta(pattern="^0x[0-9a-f]{130}$")]


_tables = msgspec.json.Decoder(Annotated[tuple[SignedCalibration, ...], Meta(max_length=MAX_TABLES)])


def canonical(table: Calibration) -> bytes:
    """Keys in order, no spaces, each number the shortest that reads back the same."""
    return msgspec.json.encode(table, order="sorted")


def digest(table: Calibration) -> Digest:
    return sha256(b"lading/calibration/1" + canonical(table))


def sign(table: Calibration, key: PrivateKey) -> SignedCalibration:
    return SignedCalibration(table, to_hex(key.sign_digest(digest(table))))


def signer(signed: SignedCalibration) -> Address:
    """Raises BadSignature."""
    return recover(digest(signed.table), from_hex(signed.signature, 65))


def read(data: bytes, trusted: Iterable[Address]) -> tuple[Calibration, ...]:
    """The tables of a file. One that nobody of `trusted` signed spoils the file. Raises BadCalibration."""
    known = frozenset(trusted)
    try:
        every = _tables.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadCalibration(f"The calibrations do not read: {error}.") from error
    for one in every:
        where = f"{one.table.agent[:60]!r}, {one.table.host} against {one.table.auditor}"
        try:
            by = signer(one)
        except BadSignature as error:
            raise BadCalibration(f"The signature of a table ({where}) is bad: {error.message}") from error
        if by not in known:
            raise BadCalibration(f"A table ({where}) is signed by {to_hex(by)}, whom nobody here trusts.")
        if not _sensible(one.table):
            raise BadCalibration(f"A table ({where}) contradicts itself, or is of too little to judge by.")
    return tuple(one.table for one in every)


def write(signed: Iterable[SignedCalibration]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(tuple(signed), order="sorted"), indent=1) + b"\n"


def spec_hash(manifest: Manifest) -> Digest:
    """What an agent computes, whoever publishes it and under whatever name: its files, and this version's rules."""
    rules = f"sampler 1, logits f32, chunk {CHUNK_TOKENS}, sketch {SKETCH_BYTES}, context {manifest.context}"
    files = sorted(f"{file.role} {file.digest}" for file in manifest.files)
    return sha256("\n".join(["lading/spec/1", rules, *files]).encode())


def tolerance(table: Calibration) -> Tolerance:
    """The limits that follow from a table. Beyond them no honest host of the class has been, by a wide gap."""
    if table.exact:
        margin = rare = EXACT_MARGIN
    else:
        margin, rare = max(LEAST_MARGIN, MARGIN_FACTOR * table.margin.most), table.margin.rare
    return Tolerance(
        margin=margin,
        relative=0.0,
        chunk=max(LEAST_CHUNK, CHUNK_FACTOR * table.chunk.most),
        prompt=max(LEAST_PROMPT, PROMPT_FACTOR * table.prompt.most),
        rare_margin=rare,
        rare_chunk=max(LEAST_CHUNK, table.chunk.rare),
        rare_prompt=max(LEAST_CHUNK, table.prompt.rare),
    )


def find(tables: Iterable[Calibration], spec: bytes, host: str, auditor: str) -> Calibration | None:
    """The table with most jobs for this spec and this pair of classes."""
    named = to_hex(spec)
    fitting = [one for one in tables if (one.spec, one.host, one.auditor) == (named, host, auditor)]
    return max(fitting, key=lambda one: one.jobs, default=None)


def limits(tables: Iterable[Calibration], spec: bytes, host: str, auditor: str) -> Tolerance | None:
    """By the table; else what is known of the class whatever it computes; else None, and nobody is slashed.

    A table of an inexact class with too few jobs has only the limits that cast suspicion.
    """
    table = find(tables, spec, host, auditor)
    if table is None:
        return TOLERANCES.get(host) if host == auditor else None
    made, usual = tolerance(table), TOLERANCES.get(host)
    if usual is not None and host == auditor:
        made = msgspec.structs.replace(made, relative=usual.relative)
    if table.exact or table.jobs >= LEAST_JOBS_INEXACT:
        return made
    return msgspec.structs.replace(made, margin=inf, chunk=inf, prompt=inf)


def honest(table: Calibration) -> Honest:
    """What a host's long record is compared with."""
    return Honest(
        clipped=table.clipped,
        clipped_sd=table.clipped_sd,
        flips=table.flips,
        chunk=table.chunk_mean,
        chunk_sd=table.chunk_sd,
    )


def _sensible(table: Calibration) -> bool:
    """Whether its numbers can be of one measurement, and of enough jobs."""
    ordered = all(one.rare <= one.most for one in (table.margin, table.chunk, table.prompt))
    fits = table.chunk_mean <= table.chunk.most and table.clipped <= table.margin.most and table.flips <= 1
    kept = not table.exact or table.margin.most <= EXACT_MARGIN
    return ordered and fits and kept and LEAST_JOBS <= table.jobs <= table.tokens
