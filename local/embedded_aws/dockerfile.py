"""Dockerfiles, read without executing anything. Pure.

Source: docs.docker.com, Dockerfile reference. Heredocs and ONBUILD are not read.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

INSTRUCTIONS = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)
_VARIABLE = re.compile(r"(\\\$)|\$(?:(\w+)|\{(\w+)(?:(:?[-+])([^}]*))?\})")


class DockerfileError(Exception):
    """The file cannot be read; the message names the line."""


@dataclass(frozen=True)
class Instruction:
    """`flags` are the leading --name=value; `text` is what follows them, with variables still in it."""

    name: str
    flags: Mapping[str, str]
    text: str
    line: int

    def words(self) -> list[str]:
        """The arguments, of the JSON form or of the shell form."""
        listed = self.json()
        return listed if listed is not None else shlex.split(self.text)

    def json(self) -> list[str] | None:
        """The JSON (exec) form, or None."""
        if not self.text.startswith("["):
            return None
        try:
            found = json.loads(self.text)
        except ValueError:
            return None
        return [str(item) for item in found] if isinstance(found, list) else None


@dataclass
class Stage:
    """FROM `base` [AS `name`] and its instructions."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)


@dataclass
class Dockerfile:
    """`arguments` are the ARG instructions before the first FROM."""

    arguments: list[Instruction]
    stages: list[Stage]

    def until(self, target: str) -> "Dockerfile":
        """The stages up to `target`, which `docker build --target` makes the last one."""
        names = [stage.name for stage in self.stages]
        if target not in names:
            raise DockerfileError(f"target stage {target} could not be found")
        return Dockerfile(self.arguments, self.stages[: names.index(target) + 1])


def read_dockerfile(text: str) -> Dockerfile:
    arguments: list[Instruction] = []
    stages: list[Stage] = []
    for instruction in _instructions(text):
        if instruction.name == "FROM":
            words = instruction.text.split()
            name = words[2] if len(words) == 3 and words[1].upper() == "AS" else str(len(stages))
            stages.append(Stage(words[0], name))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.name == "ARG":
            arguments.append(instruction)
        else:
            raise DockerfileError(f"line {instruction.line}: {instruction.name} before the first FROM")
    if not stages:
        raise DockerfileError("there is no FROM")
    return Dockerfile(arguments, stages)


def _instructions(text: str) -> Iterator[Instruction]:
    pending, first = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        first = first if pending else number
        if line.endswith("\\"):
            pending += line[:-1]
            continue
        yield _instruction(pending + line, first)
        pending = ""
    if pending:
        yield _instruction(pending, first)


def _instruction(text: str, line: int) -> Instruction:
    name, _, rest = text.partition(" ")
    if name.upper() not in INSTRUCTIONS:
        raise DockerfileError(f"line {line}: unknown instruction {name}")
    flags: dict[str, str] = {}
    rest = rest.strip()
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        key, _, value = flag.removeprefix("--").partition("=")
        flags[key], rest = value, rest.strip()
    return Instruction(name.upper(), flags, rest, line)


def pairs(text: str) -> dict[str, str]:
    """`name=value …` of ENV and LABEL, quotes removed; or the older `ENV name value`."""
    words = shlex.split(text)
    if words and "=" not in words[0]:
        return {words[0]: text.strip().split(None, 1)[1].strip() if len(words) > 1 else ""}
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """`$name`, `${name}`, `${name:-default}` and `${name:+value}` replaced; an unknown name is empty."""

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        found = variables.get(match[2] or match[3], "")
        if match[4] in (":-", "-"):
            return found or match[5]
        if match[4] in (":+", "+"):
            return match[5] if found else ""
        return found

    return _VARIABLE.sub(value, text)
