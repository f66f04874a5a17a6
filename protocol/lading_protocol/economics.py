"""The shipped parameters of spot checks, in one place. Shares are millionths. Pure."""

import msgspec


class AuditRates(msgspec.Struct, frozen=True):
    """How often who is checked. A new host's share is `new_ppm`; it is half of that after `halving` audits without a
    fault, a third after twice as many, and so on: 2 % after 90, never below `floor_ppm`. A suspect host's share is
    `suspect_factor` times as high. `second_ppm` of clean findings get a second auditor, and for each `canary_ppm` of
    audits there is one more, of a known fault.
    """

    new_ppm: int = 200_000
    halving: int = 10
    floor_ppm: int = 10_000
    suspect_factor: int = 10
    second_ppm: int = 100_000
    canary_ppm: int = 10_000

    def host_ppm(self, clean: int, suspect: bool) -> int:
        """The share of a host's receipts that is checked after `clean` audits without a fault."""
        share = max(self.new_ppm * self.halving // (self.halving + clean), self.floor_ppm)
        return min(share * (self.suspect_factor if suspect else 1), 1_000_000)
