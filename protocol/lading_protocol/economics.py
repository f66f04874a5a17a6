"""What honesty is worth: the rates of spot checks, and when a cheat loses by them. Pure; exact where it is money."""

import msgspec


class AuditRates(msgspec.Struct, frozen=True):
    """How often receipts are audited, and audits audited. Every coordinator's policy reads these numbers from here.

    In millionths: `base_ppm` of a known host's receipts, `new_ppm` of a host's nobody has audited yet, which falls with
    each clean audit and reaches the base after `clean_audits_to_base` of them; never fewer than `floor_ppm`. A suspect
    host's rate is `suspect_factor` times its own. `reaudit_ppm` of audits are repeated by another auditor, and
    `canary_ppm` of an auditor's cases are faults made on purpose, which it has to find.
    """

    base_ppm: int = 20_000
    new_ppm: int = 200_000
    floor_ppm: int = 10_000
    suspect_factor: int = 10
    reaudit_ppm: int = 100_000
    canary_ppm: int = 10_000
    clean_audits_to_base: int = 8
