"""What has been seen, told as it comes: the machine may be taken away before the end."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD = "| holds | check | seen | seconds |\n|---|---|---|---|"


@dataclass(frozen=True)
class Result:
    """One row: what was shown, whether it holds, and the numbers or the failure that say so."""

    name: str
    passed: bool
    detail: str
    seconds: float = 0.0

    def row(self) -> str:
        """Markdown, ready for docs/gpu-verification.md."""
        holds, detail = "yes" if self.passed else "NO", self.detail.replace("|", "/")
        return f"| {holds} | {self.name} | {detail} | {f'{self.seconds:.0f}' if self.seconds else ''} |"


class Report:
    """In `folder`: rows.md and logs.txt grow, the file `name` comes at the end. Several threads tell."""

    def __init__(self, folder: Path, name: str = "results.json") -> None:
        self._folder, self._name = folder, name
        self._lock = threading.Lock()
        self._closed = False
        self.results: list[Result] = []
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("rows.md", "logs.txt", name):
            (folder / file).unlink(missing_ok=True)

    def add(self, result: Result) -> None:
        """Printed and written at once."""
        with self._lock:
            if self._closed:
                return
            self.results.append(result)
            print(result.row(), flush=True)
            self._append("rows.md", f"{result.row()}\n")

    def add_log(self, log: Path) -> None:
        """Of a training root, with its name."""
        with self._lock:
            self._append(
                "logs.txt", f"\n===== {log.stem}\n{log.read_text(encoding='utf-8', errors='replace')}"
            )

    def close(self, machine: Mapping[str, str], seconds: float) -> bool:
        """Prints the table, to which nothing is added any more; whether every check holds."""
        with self._lock:
            self._closed = True
            told: dict[str, Any] = {"machine": dict(machine), "seconds": round(seconds)}
            told["results"] = [vars(result) for result in self.results]
            text = json.dumps(told, indent=1, ensure_ascii=False)
            (self._folder / self._name).write_text(text, encoding="utf-8")
            print(json.dumps(told["machine"]))
            print("\n".join([HEAD, *(result.row() for result in self.results)]))
            held = sum(result.passed for result in self.results)
            print(f"{held} of {len(self.results)} hold; {seconds:.0f} s in all", flush=True)
            # Of no check, such as of a misspelt --only, nothing is shown.
            return 0 < held == len(self.results)

    def _append(self, file: str, text: str) -> None:
        with (self._folder / file).open("a", encoding="utf-8") as opened:
            opened.write(text)
