"""The account's limit that SageMaker says a request would pass."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = r"(\d[\d,]*(?:\.\d+)?)"
# "The account-level service limit 'ml.g5.8xlarge for training job usage' is 1 Instances, with current utilization of
# 1 Instances and a request delta of 1 Instances." Some limits are told without their name.
_LIMIT = re.compile(rf"account-level service limit (?:'([^']+)' )?is {_NUMBER} ", re.IGNORECASE)
_IN_USE = re.compile(rf"current utilization of {_NUMBER} ", re.IGNORECASE)
_ASKED = re.compile(rf"request delta of {_NUMBER} ", re.IGNORECASE)


@dataclass(frozen=True)
class AccountLimit:
    """A limit in words and numbers, as far as they were told; the numbers are in its own unit.

    Attributes:
        name: as Service Quotas lists it.
        limit: what the account may have.
        in_use: what it has already.
        asked: what the refused request would have added.
    """

    name: str | None = None
    limit: float | None = None
    in_use: float | None = None
    asked: float | None = None

    @classmethod
    def of(cls, text: str) -> AccountLimit:
        """What SageMaker's message tells; nothing is known where it tells of no such limit."""
        found = _LIMIT.search(text)
        if found is None:
            return cls()
        return cls(found[1], _number(found[2]), _first(_IN_USE, text), _first(_ASKED, text))

    @property
    def never_allows(self) -> bool:
        """Whether the request alone is above the limit, whatever else the account does."""
        return self.limit is not None and (self.limit == 0 or (self.asked or 0) > self.limit)

    @property
    def is_in_use(self) -> bool:
        """Whether the request would be allowed, if it were not for what the account uses already."""
        if self.limit is None or self.in_use is None or self.asked is None or self.never_allows:
            return False
        return self.in_use + self.asked > self.limit


def _first(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    return _number(found[1]) if found else None


def _number(text: str) -> float:
    return float(text.replace(",", ""))
