"""Spot checks in motion: anchoring, asking auditors, taking disputes to the court. The rules are core's."""
