"""What honesty is worth: the rates of spot checks, and when a cheat loses by them. Pure; exact where it is money."""

import msgspec

MILLION = 1_000_000


class AuditRates(msgspec.Struct, frozen=True):
    """How often who is checked, in millionths. Every coordinator's policy reads these numbers from here.

    A new host's share is `new_ppm`. It falls with every audit without a fault: to `base_ppm` after
    `clean_audits_to_base` of them, on towards zero, and never below `floor_ppm`. A suspect host's share is
    `suspect_factor` times as high. `reaudit_ppm` of clean findings get a second auditor, and for each `canary_ppm` of
    audits there is one more, of a known fault.
    """

    base_ppm: int = 20_000
    new_ppm: int = 200_000
    floor_ppm: int = 10_000
    suspect_factor: int = 10
    reaudit_ppm: int = 100_000
    canary_ppm: int = 10_000
    clean_audits_to_base: int = 90

    def host_ppm(self, clean: int, suspect: bool) -> int:
        """The share of a host's receipts that is checked after `clean` audits without a fault."""
        way = self.clean_audits_to_base * self.base_ppm
        share = max(self.new_ppm * way // (way + clean * (self.new_ppm - self.base_ppm)), self.floor_ppm)
        return min(share * (self.suspect_factor if suspect else 1), MILLION)
