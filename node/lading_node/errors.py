"""Errors of the node, with the words that an operator will read.

A refusal of a job is a value, not an error: see core.
"""

from lading_protocol.errors import LadingError


class NodeError(LadingError):
    """Base of all; `code` is stable."""

    code = "node_error"


class BadSettings(NodeError):
    """A setting is missing or wrong."""

    code = "bad_settings"
    hint = "Correct the named setting in the file, the environment or the flag."


class FolderBusy(NodeError):
    """Another daemon works on this data folder."""

    code = "folder_busy"
    hint = "Stop the other node, or give this one its own folder with --data FOLDER."


class LedgerError(NodeError):
    """The ledger cannot be opened, or is not ours."""

    code = "ledger"
    hint = "Nothing that was written is lost. Check the data folder, or start with another one."


class DiskFull(LedgerError):
    """No room to write vouchers down."""

    code = "disk_full"
    hint = "Free some space; the node takes no new work until it can write, and writes what waits by itself."


class LedgerBusy(LedgerError):
    """Another program holds the ledger's lock."""

    code = "ledger_locked"
    hint = "Close the program that has the ledger open (a backup, a database browser)."


class NoPackage(NodeError):
    """The agent's files are not here and no coordinator gives them."""

    code = "no_package"
    hint = "Check the agent's digest and that a coordinator that holds it is reachable."


class NoTerms(NodeError):
    """The terms do not exist on the chain or belong to another agent."""

    code = "bad_terms"
    hint = "Ask the agent's publisher for the terms id, or look it up with `lading models`."


class CaseMismatch(NodeError):
    """A challenger's evidence is not what the receipt on the chain speaks of."""

    code = "case_mismatch"
    hint = "The challenger must show exactly the request and tokens that the receipt commits to."
