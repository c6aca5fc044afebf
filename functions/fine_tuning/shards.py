"""How the work of reading a dataset's files is divided."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fine_tuning.file_kinds import pair_of
from fine_tuning.inventory import InventoryFile

# docs/scale.md: what a state's payload and an execution's history hold, with room for retries.
MOST_SHARDS = 1_000


def into_shards(files: Sequence[InventoryFile], shard_size: int) -> list[list[InventoryFile]]:
    """Shards of about `shard_size` files, of more where there would be too many of them.

    An image and its captions are never parted, so a shard may be a little larger.
    """
    shard_size = max(shard_size, math.ceil(len(files) / (MOST_SHARDS - 1)))
    shards: list[list[InventoryFile]] = []
    groups: dict[str, list[InventoryFile]] = {}
    for file in files:
        groups.setdefault(pair_of(file.path), []).append(file)
    for group in groups.values():
        if not shards or len(shards[-1]) + len(group) > shard_size:
            shards.append([])
        shards[-1].extend(group)
    return shards
