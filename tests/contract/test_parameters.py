"""What a person types for the template's parameters, as sam and CloudFormation take it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess

import pytest
from botocore.session import get_session

from fine_tuning.errors import ConfigurationError
from fine_tuning.settings import Settings
from tests.contract.definitions import ROOT, template

PARAMETERS = template()["Parameters"]
# What stands in PricesUsdPerHour's description to be typed.
PRICES = "ml.g5.8xlarge=3.06,ml.g5.8xlarge/spot=1.2"


def is_allowed(parameter: str, value: str) -> bool:
    """CloudFormation holds the pattern against the whole value."""
    return re.fullmatch(PARAMETERS[parameter]["AllowedPattern"], value) is not None


def as_sam_hands_it_on(*overrides: str) -> dict[str, str]:
    """By sam's own parser of --parameter-overrides, which takes a value apart at quotes and spaces."""
    program = (
        "import json, sys; from samcli.cli.types import CfnParameterOverridesType as Type; "
        "print(json.dumps(Type().convert(tuple(sys.argv[1:]), None, None)))"
    )
    command = [f"{os.environ['TOOLS_BIN']}/python", "-c", program, *overrides]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    handed_on: dict[str, str] = json.loads(answer.stdout)
    return handed_on


def test_prices_are_typed_without_quotes_and_arrive_whole() -> None:
    typed = shlex.split(f"KohyaVersion=v25.2.2 PricesUsdPerHour={PRICES} MaxCostUsd=20")
    handed_on = as_sam_hands_it_on(*typed)
    assert handed_on == {"KohyaVersion": "v25.2.2", "PricesUsdPerHour": PRICES, "MaxCostUsd": "20"}
    assert is_allowed("PricesUsdPerHour", PRICES)
    own = Settings({"PRICES_USD_PER_HOUR": handed_on["PricesUsdPerHour"]}).prices
    assert (own.on_demand("ml.g5.8xlarge"), own.spot("ml.g5.8xlarge")) == (3.06, 1.2)


@pytest.mark.parametrize("told_in", ["template.yaml", "README.md", "docs/operations.md"])
def test_the_form_of_prices_that_people_are_told_is_this_one(told_in: str) -> None:
    assert PRICES in (ROOT / told_in).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "value",
    [
        "{",
        '{"ml.g5.8xlarge":3.06}',
        "3.06",
        "ml.g5.8xlarge",
        "ml.g5.8xlarge=",
        "ml.g5.8xlarge=free",
        f"{PRICES},",
    ],
)
def test_cloudformation_refuses_prices_that_the_functions_could_not_read(value: str) -> None:
    assert not is_allowed("PricesUsdPerHour", value)
    with pytest.raises(ConfigurationError):
        _ = Settings({"PRICES_USD_PER_HOUR": value}).prices


@pytest.mark.parametrize("name", ["abc", "kohya-ss-fine-tuning", "a--b", "lora-", "-lora", "a" * 33])
def test_a_projects_name_is_one_that_ecr_takes_for_a_repository(name: str) -> None:
    takes = get_session().get_service_model("ecr").shape_for("RepositoryName").metadata["pattern"]
    assert is_allowed("ProjectName", name) is (re.fullmatch(takes, name) is not None and len(name) <= 32)


def test_whose_version_aws_or_the_image_gives_up_is_named_where_updates_are_told() -> None:
    """sam deploy keeps a stack's value of what is not named, so that a newer default never comes by itself."""
    told = (
        (ROOT / "docs" / "operations.md")
        .read_text(encoding="utf-8")
        .split("\n## Update\n")[1]
        .split("\n## ")[0]
    )
    versions = {"LambdaRuntime", "ImageBuildEnvironment", "KohyaVersion"}
    assert versions <= set(PARAMETERS)
    assert versions <= set(re.findall(r"`(\w+)`", told))


def test_a_stack_without_prices_of_its_own_is_allowed() -> None:
    assert is_allowed("PricesUsdPerHour", PARAMETERS["PricesUsdPerHour"]["Default"])
