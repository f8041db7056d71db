"""A tenant's budget for a calendar month, in tokens or in money."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from faasmoe.errors import TenancyError

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Z]{3}|tokens)", re.ASCII)
_LONGEST = 30  # characters


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of tokens, or of money if there is a currency."""

    amount: Decimal
    currency: str | None = None  # ISO 4217

    def __str__(self) -> str:
        return f"{self.amount:f}{self.currency or 'tokens'}"

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Parse `5000000tokens` or `25.50USD`. Raises `TenancyError`, also without a unit."""
        found = _FORM.fullmatch(text.strip()) if len(text) <= _LONGEST else None
        try:
            amount = Decimal(found[1]) if found else Decimal(0)
        except InvalidOperation:
            amount = Decimal(0)
        currency = found[2] if found and found[2] != "tokens" else None
        if amount <= 0 or (currency is None and amount != amount.to_integral_value()):
            shown = " ".join(text[:_LONGEST].split()) or "''"
            raise TenancyError(
                f"budget {shown}: must be tokens a month, such as 5000000tokens, or an amount of money with "
                "its currency, such as 25.50USD"
            )
        return cls(amount, currency)


def month_of(seconds: float) -> tuple[float, float]:
    """Begin and end of the calendar month, in UTC, that an instant is in; all in seconds since the epoch."""
    now = datetime.fromtimestamp(seconds, UTC)
    begin = datetime(now.year, now.month, 1, tzinfo=UTC)
    end = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return begin.timestamp(), end.timestamp()
