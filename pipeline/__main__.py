"""`python -m pipeline` renders the definition and writes it into template.yaml, between its two markers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).parent.parent / "template.yaml"
BEGIN = "# The pipeline's definition, written by `./dev render-pipeline`: begin"
END = "# The pipeline's definition: end"
INDENT = 10
WIDTH = 118

# What stands in the template's Fn::Sub for the arguments of `pipeline.definition.render`.
PLACEHOLDERS = {
    "bucket": "${Bucket}",
    "image_uri": "${ImageRepository.RepositoryUri}:latest",
    "role_arn": "${TrainingRole.Arn}",
}


def layout(value: Any, depth: int = 0) -> str:
    """JSON with every list and object that fits on one line of WIDTH columns on one line."""
    flat = json.dumps(value)
    if not isinstance(value, dict | list) or len(flat) + depth + INDENT <= WIDTH:
        return flat
    inner = " " * (depth + 1)
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(key)}: {layout(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + "\n" + " " * depth + "}"
    return "[\n" + ",\n".join(inner + layout(item, depth + 1) for item in value) + "\n" + " " * depth + "]"


def written_into(template: str, definition: dict[str, Any]) -> str:
    """The template's text with the definition between the markers."""
    before, _, rest = template.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise ValueError(f"{TEMPLATE.name}: the markers of the pipeline's definition are missing")
    body = "".join(" " * INDENT + line + "\n" for line in layout(definition).splitlines())
    property_indent = " " * (INDENT - 2)
    return f"{before}{BEGIN}\n{property_indent}PipelineDefinitionBody: !Sub |\n{body}{property_indent}{END}{after}"


def main() -> int:
    from pipeline.definition import render  # slow: the SDK imports for seconds

    text = TEMPLATE.read_text()
    new = written_into(text, render(**PLACEHOLDERS))
    TEMPLATE.write_text(new)
    print(f"{TEMPLATE.name}: {'unchanged' if new == text else 'the definition was renewed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
