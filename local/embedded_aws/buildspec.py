"""buildspec.yml, version 0.2: read, and turned into one bash program. Pure.

CodeBuild runs all commands of version 0.2 in one shell, so that a variable of one phase is there in the next. A
failed install or pre_build phase ends the build; a failed build phase does not keep post_build from running.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

PHASES = ("INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD")
MARK = "[Embedded CodeBuild]"


class BuildspecError(Exception):
    """The file cannot be used; the message is what CodeBuild would put into the phase's context."""


@dataclass(frozen=True)
class ReportFiles:
    """Where a report's JUnit files lie: `patterns` below `base_directory`, which is below the source."""

    base_directory: str
    patterns: Sequence[str]


@dataclass(frozen=True)
class Buildspec:
    """`phases` maps each of PHASES to its commands and those of its `finally` block."""

    variables: Mapping[str, str]
    exported: Sequence[str]
    phases: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    reports: Mapping[str, ReportFiles]


def read_buildspec(text: str) -> Buildspec:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BuildspecError(f"YAML_FILE_ERROR: {error}") from error
    if not isinstance(document, dict) or str(document.get("version")) != "0.2":
        raise BuildspecError("YAML_FILE_ERROR: version must be 0.2")
    phases = document.get("phases") or {}
    unknown = set(phases) - {name.lower() for name in PHASES}
    if unknown or not phases:
        raise BuildspecError(
            f"YAML_FILE_ERROR: phases are wrong: {', '.join(sorted(map(str, unknown))) or 'none'}"
        )
    environment: Mapping[str, Any] = document.get("env") or {}
    for section in ("parameter-store", "secrets-manager"):
        if environment.get(section):
            raise BuildspecError(f"YAML_FILE_ERROR: env/{section} is not emulated")
    return Buildspec(
        variables={str(name): _text(value) for name, value in (environment.get("variables") or {}).items()},
        exported=[str(name) for name in environment.get("exported-variables") or []],
        phases={name: _commands(phases.get(name.lower()) or {}) for name in PHASES},
        reports={str(name): _report(files) for name, files in (document.get("reports") or {}).items()},
    )


def _report(section: Mapping[str, Any]) -> ReportFiles:
    if section.get("file-format", "JUNITXML") != "JUNITXML" or not section.get("files"):
        raise BuildspecError("YAML_FILE_ERROR: a report needs files, and only JUNITXML is emulated")
    return ReportFiles(str(section.get("base-directory", ".")), [str(each) for each in section["files"]])


def _commands(phase: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    return [_text(item) for item in phase.get("commands") or []], [
        _text(item) for item in phase.get("finally") or []
    ]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def shell_program(spec: Buildspec, variables_file: str) -> str:
    """The bash program of a build. Lines beginning with MARK tell what happens:

    `MARK NAME start`, `MARK NAME SUCCEEDED`, `MARK NAME FAILED <exit status> <command>`; at the end the exported
    variables are in `variables_file`, NUL-separated `name=value`. A phase without its last line has failed.
    """
    lines = [
        "export CODEBUILD_BUILD_SUCCEEDING=1",
        f"embedded_post_build={shlex.quote(_phase(spec, 'POST_BUILD'))}",
    ]
    exports = [
        f"printf '%s\\0' \"{name}=${{{name}-}}\" >> {shlex.quote(variables_file)}" for name in spec.exported
    ] or [":"]
    lines += [
        # Also when a command exits: a failed build phase does not keep post_build from running.
        "embedded_end() {",
        "  embedded_status=$?",
        "  trap - EXIT",
        '  if [ -n "$embedded_running" ]; then',
        "    embedded_report",
        '    [ "$embedded_before" != BUILD ] || eval "$embedded_post_build"',
        "  fi",
        *(f"  {line}" for line in exports),
        "  exit $((1 - CODEBUILD_BUILD_SUCCEEDING))",
        "}",
        "embedded_report() {",
        "  embedded_before=$embedded_running embedded_running=",
        "  if [ $embedded_status = 0 ]; then",
        f'    echo "{MARK} $embedded_before SUCCEEDED"',
        "  else",
        "    export CODEBUILD_BUILD_SUCCEEDING=0",
        f'    echo "{MARK} $embedded_before FAILED $embedded_status $embedded_command"',
        "  fi",
        "}",
        "trap embedded_end EXIT",
        _phase(spec, "INSTALL"),
        "[ $CODEBUILD_BUILD_SUCCEEDING = 1 ] || exit 1",
        _phase(spec, "PRE_BUILD"),
        "[ $CODEBUILD_BUILD_SUCCEEDING = 1 ] || exit 1",
        _phase(spec, "BUILD"),
        'eval "$embedded_post_build"',
        "",
    ]
    return "\n".join(lines)


def _phase(spec: Buildspec, name: str) -> str:
    commands, always = spec.phases[name]
    lines = [f"embedded_running={name} embedded_status=0 embedded_command=", f"echo '{MARK} {name} start'"]
    lines += [_guarded(command) for command in commands]
    lines += [f"eval {shlex.quote(command)}" for command in always]
    return "\n".join([*lines, "embedded_report"])


def _guarded(command: str) -> str:
    """Run a command in this very shell unless an earlier one of the phase has failed."""
    shown = shlex.quote(command.strip().splitlines()[0] if command.strip() else "")
    return (
        f"if [ $embedded_status = 0 ]; then printf '[Container] Running command %s\\n' {shown}; "
        f"embedded_command={shown}; eval {shlex.quote(command)} || embedded_status=$?; fi"
    )
