"""Turns the text of an invoice or an e-mail into JSON: who, when, how much, and whether the sum is right.

A component of the world lading:agent/agent. Decimal arithmetic, no floats, no clock: the same text, the same bytes.
"""

import json
import re
from decimal import Decimal

import wit_world
from componentize_py_types import Err

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
CURRENCIES = {"€": "EUR", "$": "USD", "£": "GBP", "¥": "JPY"}
CODES = "EUR|USD|GBP|CHF|JPY|SEK|NOK|DKK|PLN|CZK"

ISO = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
NUMBERS = re.compile(r"\b(\d{1,2})([./])(\d{1,2})\2(\d{4})\b")
DAY_FIRST = re.compile(r"\b(\d{1,2})\.?\s+([A-Za-z]{3,9})\.?,?\s+(\d{4})\b")
MONTH_FIRST = re.compile(r"\b([A-Za-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})\b")
NUMBER = r"-?\d{1,3}(?:[ ,.'\u00a0]\d{3})*(?:[.,]\d{2})?(?!\d)|-?\d+(?:[.,]\d{2})?(?!\d)"
AMOUNT = re.compile(rf"(?:([€$£¥]|\b(?:{CODES})\b)\s?({NUMBER}))|(?:({NUMBER})\s?([€$£¥]|(?:{CODES})\b))")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
HEADER = re.compile(r"^(from|to|cc|date|subject):\s*(.+)$", re.IGNORECASE | re.MULTILINE)
INVOICE = re.compile(r"\binvoice(?:\s+(?:no\.?|number|nr\.?|#))?\s*[:#]?\s*([A-Z0-9][A-Z0-9/-]*\d)", re.IGNORECASE)
LABELS = (
    ("subtotal", re.compile(r"\b(sub-?\s?total|net(?: amount)?)\b", re.IGNORECASE)),
    ("tax", re.compile(r"\b(vat|tax|mwst|gst)\b", re.IGNORECASE)),
    ("total", re.compile(r"\b(total|amount due|balance due|to pay)\b", re.IGNORECASE)),
)
MAX_TEXT = 200_000


def iso(year: str, month: int, day: str) -> str | None:
    if 1 <= month <= 12 and 1 <= int(day) <= 31:
        return f"{year}-{month:02}-{int(day):02}"
    return None


def month_of(word: str) -> int:
    return next((at for at, name in enumerate(MONTHS, 1) if word.lower().startswith(name)), 0)


def dates(text: str) -> list[str]:
    """In the order in which they stand. Of 3/4/2026 the day comes first, unless that cannot be."""
    found: list[tuple[int, str | None]] = []
    for match in ISO.finditer(text):
        found.append((match.start(), iso(match[1], int(match[2]), match[3])))
    for match in NUMBERS.finditer(text):
        day, month = match[1], match[3]
        if int(month) > 12 and match[2] == "/":
            day, month = month, day
        found.append((match.start(), iso(match[4], int(month), day)))
    for match in DAY_FIRST.finditer(text):
        found.append((match.start(), iso(match[3], month_of(match[2]), match[1])))
    for match in MONTH_FIRST.finditer(text):
        found.append((match.start(), iso(match[3], month_of(match[1]), match[2])))
    return list(dict.fromkeys(date for _, date in sorted(found, key=lambda one: one[0]) if date))


def number(text: str) -> Decimal:
    """The last separator is the decimal one when two digits follow it."""
    digits = re.sub(r"[ '\u00a0]", "", text)
    if len(digits) > 3 and digits[-3] in ".,":
        whole, part = digits[:-3], digits[-2:]
        return Decimal(re.sub(r"[.,]", "", whole) + "." + part)
    return Decimal(re.sub(r"[.,]", "", digits))


def amounts(line: str) -> list[tuple[Decimal, str]]:
    found = []
    for match in AMOUNT.finditer(line):
        unit = match[1] or match[4]
        found.append((number(match[2] or match[3]), CURRENCIES.get(unit, unit)))
    return found


def label_of(line: str) -> str:
    for label, pattern in LABELS:
        if pattern.search(line):
            return label
    return "item"


def money(value: Decimal, currency: str) -> dict[str, str]:
    return {"amount": f"{value:.2f}", "currency": currency}


def sums(lines: list[str]) -> dict[str, object]:
    """Items, subtotal, tax and total; `checked` is whether they add up, None when there is too little to tell."""
    items: list[dict[str, str]] = []
    named: dict[str, tuple[Decimal, str]] = {}
    added = Decimal(0)
    for line in lines:
        found = amounts(line)
        if not found:
            continue
        value, currency = found[-1]
        label = label_of(line)
        if label == "item":
            words = AMOUNT.sub("", line).strip(" :-\t")
            items.append({"text": words, **money(value, currency)})
            added += value
        else:
            named[label] = (value, currency)
    total = named.get("total")
    checks = []
    if total and ("subtotal" in named or "tax" in named):
        net = named["subtotal"][0] if "subtotal" in named else added
        checks.append(net + named.get("tax", (Decimal(0), ""))[0] == total[0])
    if items and ("subtotal" in named or (total and "tax" not in named)):
        checks.append(added == (named["subtotal"] if "subtotal" in named else named["total"])[0])
    result: dict[str, object] = {name: money(*named[name]) if name in named else None for name, _ in LABELS}
    return {"items": items, **result, "checked": all(checks) if checks else None}


def extract(text: str) -> dict[str, object]:
    headers = {match[1].lower(): match[2].strip() for match in HEADER.finditer(text)}
    invoice = INVOICE.search(text)
    kind = "invoice" if invoice or "invoice" in text.lower() else "e-mail" if headers else "text"
    return {
        "kind": kind,
        "number": invoice[1] if invoice else None,
        "headers": headers,
        "dates": dates(text),
        "addresses": list(dict.fromkeys(EMAIL.findall(text))),
        **sums(text.splitlines()),
    }


class WitWorld(wit_world.WitWorld):
    def call(self, operation: str, input: str) -> str:
        if operation != "extract":
            raise Err(f"This agent does 'extract', not {operation!r}.")
        try:
            text = json.loads(input)["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Err('The input is {"text": "..."}.') from None
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise Err(f"The text is a string of at most {MAX_TEXT:,} characters.")
        return json.dumps(extract(text), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
