"""What a long record means: when a host gets no more jobs, and when an auditor is not asked any more. Pure."""

from enum import Enum

import msgspec

# Suspect in so many of the last epochs, a host gets no new jobs.
SUSPECT_EPOCHS = 3
# Silent, outvoted or with a broken seal so often in one epoch, an auditor rests until the next one.
REST_AFTER = 3
# Contradicted by the court so often, an auditor is never asked again. Once may be the court's own error.
STRIKES = 3


class Kind(Enum):
    """A remark on an auditor: it did not answer, it showed other numbers than it had sealed, a majority of three said
    the opposite, it passed a known fault, the court acquitted a host that it had accused."""

    SILENT = "silent"
    BROKEN = "broken"
    OUTVOTED = "outvoted"
    MISSED = "missed"
    OVERRULED = "overruled"

    @classmethod
    def of(cls, code: str) -> "Kind | None":
        """The remark that belongs to a finding's code, if there is one: a refusal is nothing to remark on."""
        if code == "broken_seal":
            return cls.BROKEN
        return cls.SILENT if code == "silent" or code.startswith("net_") else None


class AuditorRecord(msgspec.Struct, frozen=True):
    """Counts over all time, and of the epoch that runs (`_now`). `audits` led to an answer."""

    audits: int = 0
    outvoted: int = 0
    missed: int = 0
    overruled: int = 0
    silent_now: int = 0
    broken_now: int = 0
    outvoted_now: int = 0


def host_bar(suspect_epochs: int, twins: bool) -> str:
    """Why a host gets no new jobs, in words it will read; "" when it does."""
    if twins:
        return "signed two different final receipts for one attempt"
    if suspect_epochs >= SUSPECT_EPOCHS:
        return f"was suspect in {suspect_epochs} epochs: its answers lie too far from what honest hosts give"
    return ""


def struck_off(record: AuditorRecord) -> str:
    """Why an auditor is never asked again; "" when it may be."""
    if record.missed:
        return "called a known fault honest"
    if record.overruled >= STRIKES:
        return f"accused {record.overruled} hosts that the court acquitted"
    return ""


def resting(record: AuditorRecord) -> str:
    """Why an auditor is not asked in this epoch."""
    if record.silent_now >= REST_AFTER:
        return f"did not answer {record.silent_now} times in this epoch"
    if record.broken_now >= REST_AFTER:
        return f"showed other numbers than it had sealed {record.broken_now} times in this epoch"
    if record.outvoted_now >= REST_AFTER:
        return f"was outvoted {record.outvoted_now} times in this epoch"
    return ""
