"""An image out of a Dockerfile without executing RUN: configuration, and one layer a COPY of local files."""

import fnmatch
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from local.embedded_aws.dockerfile import Dockerfile, DockerfileError, Instruction, Stage, pairs, substitute
from local.embedded_aws.image_format import Image, LayerFile, assemble, layer_of

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PREDEFINED = (
    "TARGETPLATFORM",
    "TARGETARCH",
    "TARGETOS",
    "BUILDPLATFORM",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "BUILDKIT_INLINE_CACHE",
)


@dataclass
class _Assembled:
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    labels: dict[str, str] = field(default_factory=dict)
    configuration: dict[str, Any] = field(default_factory=dict)
    directory: str = "/"
    layers: list[bytes] = field(default_factory=list)


def assemble_image(
    dockerfile: Dockerfile,
    context: Path,
    arguments: Mapping[str, str],
    labels: Mapping[str, str],
    say: Callable[[str], None],
) -> tuple[Image, int]:
    """The last stage's image and the number of RUN steps that it and the stages before it would have executed.

    Args:
        dockerfile: as read.
        context: the build context; `.git` and what .dockerignore names are not in it.
        arguments: --build-arg.
        labels: --label.
        say: told of each instruction that is skipped.
    """
    ignored = _ignored(context)
    outer = _defaults(dockerfile.arguments, arguments)
    unknown = set(arguments) - set(PREDEFINED) - set(outer) - set(_declared(dockerfile))
    if unknown:
        say(f"[Warning] One or more build-args {sorted(unknown)} were not consumed")
    done: dict[str, _Assembled] = {}
    for stage in dockerfile.stages:
        base = substitute(stage.base, outer)
        assembled = _copy_of(done[base]) if base in done else _Assembled()
        if base not in done:
            say(f"FROM {base}: not fetched, the stage begins empty")
        for instruction in stage.instructions:
            _apply(instruction, assembled, context, ignored, outer, arguments, done, say)
        done[stage.name] = assembled
    final = done[dockerfile.stages[-1].name]
    configuration = {
        **final.configuration,
        "Env": [f"{name}={value}" for name, value in final.environment.items() if not name.startswith("\0")],
        "Labels": {**final.labels, **labels},
        "WorkingDir": final.directory,
    }
    return assemble(configuration, final.layers), sum(map(_run_steps, dockerfile.stages))


def _run_steps(stage: Stage) -> int:
    return sum(instruction.name == "RUN" for instruction in stage.instructions)


def _copy_of(base: _Assembled) -> _Assembled:
    return replace(
        base,
        environment=dict(base.environment),
        labels=dict(base.labels),
        configuration=dict(base.configuration),
        layers=list(base.layers),
    )


def _declared(dockerfile: Dockerfile) -> Iterator[str]:
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            if instruction.name == "ARG":
                yield from (word.partition("=")[0] for word in instruction.words())


def _defaults(declarations: list[Instruction], given: Mapping[str, str]) -> dict[str, str]:
    """Values of the ARG instructions before the first FROM."""
    values: dict[str, str] = {}
    for declaration in declarations:
        for word in declaration.words():
            name, _, default = word.partition("=")
            values[name] = given.get(name, substitute(default, values))
    return values


def _apply(
    instruction: Instruction,
    state: _Assembled,
    context: Path,
    ignored: Callable[[str], bool],
    outer: Mapping[str, str],
    given: Mapping[str, str],
    stages: Mapping[str, _Assembled],
    say: Callable[[str], None],
) -> None:
    # ARGs of the stage are kept beside its ENV, under a name that no ENV can have.
    scope = {name.lstrip("\0"): value for name, value in state.environment.items()}
    text = substitute(instruction.text, scope)
    match instruction.name:
        case "ARG":
            for word in Instruction("ARG", {}, text, instruction.line).words():
                name, has_default, default = word.partition("=")
                value = given.get(name, default if has_default else outer.get(name, ""))
                if name not in state.environment:  # an ENV of the same name wins
                    state.environment["\0" + name] = value
        case "ENV":
            state.environment.update(pairs(text))
        case "LABEL":
            state.labels.update(pairs(text))
        case "WORKDIR":
            state.directory = posixpath.normpath(posixpath.join(state.directory, text))
        case "USER":
            state.configuration["User"] = text
        case "ENTRYPOINT" | "CMD":
            member = instruction.name.title() if instruction.name == "ENTRYPOINT" else "Cmd"
            state.configuration[member] = instruction.json() or ["/bin/sh", "-c", instruction.text]
        case "COPY" | "ADD":
            source = instruction.flags.get("from")
            if source is not None:
                say(f"COPY --from={source} {text}: skipped, that stage's RUN steps were not executed")
                return
            state.layers.append(layer_of(_copied(instruction, text, state.directory, context, ignored)))


def _copied(
    instruction: Instruction, text: str, directory: str, context: Path, ignored: Callable[[str], bool]
) -> Iterator[LayerFile]:
    *sources, destination = Instruction(instruction.name, {}, text, instruction.line).words()
    target = posixpath.normpath(posixpath.join(directory, destination)).lstrip("/")
    chmod = instruction.flags.get("chmod")
    into_folder = destination.endswith("/") or len(sources) > 1 or destination in (".", "..")
    for pattern in sources:
        found = sorted(context.glob(pattern.strip("/"))) if pattern.strip("/.") else [context]
        if not found:
            raise DockerfileError(
                f'line {instruction.line}: COPY failed: "{pattern}" not found in build context'
            )
        for source in found:
            files = (
                [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
            )
            for path in files:
                if ignored(path.relative_to(context).as_posix()):
                    continue
                if source.is_dir():
                    place = posixpath.join(target, path.relative_to(source).as_posix())
                else:
                    place = (
                        posixpath.join(target, path.name) if into_folder or target in ("", ".") else target
                    )
                executable = (
                    bool(path.stat().st_mode & 0o100) if chmod is None else bool(int(chmod, 8) & 0o100)
                )
                yield LayerFile(place, path.read_bytes(), executable)


def _ignored(context: Path) -> Callable[[str], bool]:
    """Whether a path of the context is left out: .git, and .dockerignore's patterns, of which the last one
    decides."""
    path = context / ".dockerignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    patterns = [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]

    def decide(relative: str) -> bool:
        parts = relative.split("/")
        fronts = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        found = parts[0] == ".git"
        for pattern in patterns:
            bare = pattern.removeprefix("!").removeprefix("**/")
            candidates = [*fronts, *parts] if "**/" in pattern else fronts
            if any(fnmatch.fnmatchcase(front, bare) for front in candidates):
                found = not pattern.startswith("!")
        return found

    return decide
