"""Addresses of the AWS console's pages, from ARNs alone.

A pipeline execution has no page here: it has one in SageMaker Studio, below a domain that no ARN names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

# partition → domain of its console. A partition that is not listed gets no links: none is better than a wrong one.
_DOMAINS = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
_TRAINING_LOGS = "/aws/sagemaker/TrainingJobs"


@dataclass(frozen=True)
class Link:
    label: str
    address: str


@dataclass(frozen=True)
class _Place:
    """Where an ARN lies; `arn:partition:service:region:account:resource`."""

    partition: str
    region: str
    account: str
    resource: str

    @classmethod
    def of(cls, arn: str) -> _Place | None:
        """None for what is no ARN, and in a partition whose console is not known."""
        parts = arn.split(":", 5)
        if len(parts) < 6 or parts[0] != "arn" or parts[1] not in _DOMAINS or not parts[3]:
            return None
        return cls(parts[1], parts[3], parts[4], parts[5])

    def page(self, service: str, fragment: str) -> str:
        return f"{self.root}/{service}/home?region={self.region}#{fragment}"

    @property
    def root(self) -> str:
        return f"https://{self.region}.{_DOMAINS[self.partition]}"


def of_run(record: Mapping[str, Any]) -> tuple[Link, ...]:
    """The pages of a run, as far as its record knows them: the flow, the GPU job, the trainer's log."""
    arn = str(record.get("execution_arn") or "")
    place = _Place.of(arn)
    if place is None:
        return ()
    links = [Link("Every step of the run", place.page("states", f"/v2/executions/details/{arn}"))]
    if job := (record.get("observation") or {}).get("training_job"):
        links.append(Link("GPU job", place.page("sagemaker", f"/jobs/{job}")))
        links.append(Link("Its log", place.page("cloudwatch", _log_streams(_TRAINING_LOGS, job))))
    return tuple(links)


def of_build(build_arn: str) -> tuple[Link, ...]:
    """A build's page with its log; `arn:…:build/<project>:<id>`."""
    place = _Place.of(build_arn)
    if place is None:
        return ()
    build = place.resource.removeprefix("build/")
    project = build.partition(":")[0]
    page = f"{place.account}/projects/{quote(project, safe='')}/build/{quote(build, safe='')}/log"
    return (Link("The build's log", f"{place.root}/codesuite/codebuild/{page}?region={place.region}"),)


def _log_streams(group: str, prefix: str) -> str:
    """The streams of a log group that begin so: SageMaker ends their names with what nobody knows beforehand."""
    # The console decodes this fragment twice, with $ for %.
    encoded = quote(quote(group, safe=""), safe="").replace("%", "$")
    return f"logsV2:log-groups/log-group/{encoded}$3FlogStreamNameFilter$3D{prefix}"
