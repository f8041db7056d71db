"""The price table: prices of the quantities that tenants use."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

from faasmoe.errors import TenancyError
from faasmoe.tenancy.totals import Totals

AWS_LAMBDA = Path("aws-lambda")  # stands for the table that is part of this package
_MILLION = Decimal(10**6)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices in one currency. A GB is 10^9 bytes. What has no price costs nothing."""

    currency: str  # ISO 4217
    source: str = ""  # where the figures are from
    per_gb_second: Decimal = Decimal(0)
    per_idle_gb_second: Decimal = Decimal(0)
    per_million_invocations: Decimal = Decimal(0)
    per_million_prompt_tokens: Decimal = Decimal(0)
    per_million_cached_tokens: Decimal = Decimal(0)  # of prompts, instead of the price above
    per_million_completion_tokens: Decimal = Decimal(0)
    per_orchestrator_cpu_second: Decimal = Decimal(0)

    def cost(self, totals: Totals) -> Decimal:
        """The total cost, not rounded."""
        fresh = totals.prompt_tokens - totals.cached_tokens
        tokens = (
            self.per_million_prompt_tokens * fresh
            + self.per_million_cached_tokens * totals.cached_tokens
            + self.per_million_completion_tokens * totals.completion_tokens
        )
        return (
            tokens / _MILLION + self.resources(totals) + self.per_idle_gb_second * _decimal(totals.idle_gb_seconds)
        )

    def resources(self, totals: Totals) -> Decimal:
        """The part of the cost that is for functions and CPU time."""
        return (
            self.per_million_invocations * _decimal(totals.invocations) / _MILLION
            + self.per_gb_second * _decimal(totals.gb_seconds)
            + self.per_orchestrator_cpu_second * _decimal(totals.orchestrator_cpu_seconds)
        )

    def most(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """An upper bound of the cost of so many tokens, cached or not."""
        prompt = max(self.per_million_prompt_tokens, self.per_million_cached_tokens)
        return (prompt * prompt_tokens + self.per_million_completion_tokens * completion_tokens) / _MILLION


def read_prices(file: Path) -> Prices:
    """The table in a TOML file, or that of AWS Lambda for `AWS_LAMBDA`.

    Raises `TenancyError` naming the file and what is wrong in it.
    """
    source = files("faasmoe.tenancy").joinpath("aws-lambda.toml") if file == AWS_LAMBDA else file
    try:
        table = tomllib.loads(source.read_text(), parse_float=Decimal)
    except OSError as error:
        raise TenancyError(f"--prices {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise TenancyError(f"--prices {file}: not TOML: {error}") from error
    known = {field.name for field in fields(Prices)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise TenancyError(f"--prices {file}: {unknown[0]} is no price; there are: {', '.join(sorted(known))}")
    return Prices(**{name: _checked(file, name, value) for name, value in _with_currency(file, table).items()})


def _with_currency(file: Path, table: dict[str, Any]) -> dict[str, Any]:
    if "currency" not in table:
        raise TenancyError(f'--prices {file}: the currency is missing; add a line such as: currency = "USD"')
    return table


def _checked(file: Path, name: str, value: Any) -> Any:
    if name == "source":
        return str(value)
    if name == "currency":
        if isinstance(value, str) and _CURRENCY.fullmatch(value):
            return value
        raise TenancyError(f"--prices {file}: currency is {value!r}: must be three letters, such as USD")
    number = isinstance(value, (int, Decimal)) and not isinstance(value, bool) and Decimal(value).is_finite()
    if not number or not 0 <= value < 10**9:
        raise TenancyError(f"--prices {file}: {name} is {value}: must be a number, at least 0")
    return Decimal(value)


def _decimal(value: float) -> Decimal:
    return Decimal(repr(value))
