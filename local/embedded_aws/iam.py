"""IAM for those who act by themselves: state machines, rules, pipelines, training jobs and builds.

ministack judges callers of its API. What a service does with the role that it was given is judged here, with the same
evaluator and the same policies; so is what a service does in its own name (EventBridge calling a function).
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region
from ministack.services import iam as identities

from local.embedded_aws.patching import replace
from local.embedded_aws.registration import RESOURCE_ARNS, arn, register_resource_arn


def install() -> None:
    """Judge callers on the ARNs that `register_resource_arn` tells; let policies see TLS, as on AWS."""
    known = replace(iam_actions, "extract_resource_arn", lambda *call: resource_arn(known, *call))
    register_resource_arn("logs", log_arn)
    register_resource_arn("codebuild", build_project_arn)
    register_resource_arn("ecr", image_repository_arn)
    known_context = replace(
        iam_actions,
        "request_tag_context",
        lambda service, *call: {**known_context(service, *call), **metric_namespace(service, *call)},
    )
    pin_origin = replace(app, "pin_request_origin", lambda address, secure: pin_origin(address, True))


def resource_arn(
    known: Callable[..., str],
    service: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    parameters: Mapping[str, str],
    region: str,
    account: str,
) -> str:
    """The ARN on which a request is judged: the registered services' own, else what ministack `known`."""
    resource_of = RESOURCE_ARNS.get(service)
    if resource_of is not None:
        try:
            found = resource_of(headers.get("x-amz-target", "").rpartition(".")[2], json.loads(body or b"{}"))
        except (ValueError, KeyError, TypeError, AttributeError):
            found = None  # the service answers a malformed request itself
        if found is not None:
            return found
    return known(service, method, path, headers, body, parameters, region, account)


def log_arn(operation: str, request: Mapping[str, Any]) -> str | None:
    """What is done in a log group is authorized on its streams: `log-group:<name>:*` allows it."""
    if operation not in LOG_STREAM_OPERATIONS:
        return None
    return arn("logs", f"log-group:{request['logGroupName']}:log-stream:{request.get('logStreamName', '')}")


LOG_STREAM_OPERATIONS = frozenset(
    (
        "CreateLogGroup",
        "CreateLogStream",
        "PutLogEvents",
        "GetLogEvents",
        "DescribeLogStreams",
        "FilterLogEvents",
    )
)


def build_project_arn(operation: str, request: Mapping[str, Any]) -> str | None:
    """Builds, whose ids begin with their project's name, are authorized on the project, reports on their group."""
    if reports := request.get("reportArns"):
        return arn("codebuild", f"report-group/{reports[0].rpartition('report/')[2].partition(':')[0]}")
    builds = request.get("ids") or [request.get("id") or ""]
    project = builds[0].rpartition("/")[2].partition(":")[0]
    return arn("codebuild", f"project/{project}") if project else None


def image_repository_arn(operation: str, request: Mapping[str, Any]) -> str | None:
    """DescribeRepositories alone names its repositories in the plural."""
    names = request.get("repositoryNames")
    return arn("ecr", f"repository/{names[0]}") if names else None


def metric_namespace(service: str, action: str, body: bytes, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The condition key cloudwatch:namespace; the SDK for Python sends JSON, older ones a form."""
    if action != "cloudwatch:PutMetricData":
        return {}
    request = json.loads(body) if body[:1] == b"{" else {}
    namespace = request.get("Namespace") or parameters.get("Namespace", "")
    return {"cloudwatch:namespace": namespace[0] if isinstance(namespace, list) else str(namespace)}


def role_denial(
    role_arn: str,
    action: str,
    resource: str,
    conditions: Mapping[str, str] | None = None,
    assumed_by: str | None = None,
) -> str | None:
    """None when the role may do `action` on `resource`, else AWS's sentence about why not.

    `conditions` are the request's condition keys, such as {"iam:PassedToService": "sagemaker.amazonaws.com"};
    `assumed_by` is the service that acts with the role ("states.amazonaws.com") and must be trusted by it.
    A role that does not exist may nothing.
    """
    account, name = get_account_id(), role_arn.rpartition("/")[2]
    role = identities._roles.get(name)
    if role is None:
        return f"The role {role_arn} does not exist."
    if assumed_by is not None and not trusts(role["AssumeRolePolicyDocument"], assumed_by):
        return f"{assumed_by} is not authorized to assume the role {role_arn}"
    context = evaluation_context(
        f"arn:aws:sts::{account}:assumed-role/{name}/{assumed_by or 'embedded-aws'}",
        action,
        resource,
        conditions,
    )
    result = iam_evaluator.evaluate(
        context,
        iam_evaluator._gather_role_policies(name, account),
        *iam_evaluator._permissions_boundary(identities._roles, name, account),
    )
    found = iam_evaluator._resource_policy(action.partition(":")[0], resource)
    if found is not None:
        result = iam_evaluator.combine_resource_policy(result, context, *found)
    if result.decision == "Allow":
        return None
    because = (
        "with an explicit deny"
        if result.decision == "Deny"
        else f"because no identity-based policy allows the {action} action"
    )
    user = f"User: {context.principal_arn}"
    return f"{user} is not authorized to perform: {action} on resource: {resource} {because}"


def service_denial(service: str, action: str, resource: str, source_arn: str) -> str | None:
    """None when the policy of `resource` lets the service (`events.amazonaws.com`) act for `source_arn`."""
    context = evaluation_context(
        service, action, resource, {"aws:SourceArn": source_arn, "aws:SourceAccount": get_account_id()}
    )
    found = iam_evaluator._resource_policy(action.partition(":")[0], resource)
    policy = found[0] if found else None
    if iam_evaluator.evaluate_resource_policy(policy, context, service=service).decision == "Allow":
        return None
    return f"The policy of {resource} does not allow {service} to perform {action} for {source_arn}"


def evaluation_context(
    principal: str, action: str, resource: str, conditions: Mapping[str, str] | None
) -> iam_evaluator.EvalContext:
    return iam_evaluator.EvalContext(
        principal_arn=principal,
        principal_type="AssumedRole",
        principal_account=get_account_id(),
        action=action,
        resource_arn=resource,
        region=get_region(),
        secure_transport=True,
        service_context={key.lower(): value for key, value in (conditions or {}).items()},
    )


def trusts(trust_policy: str | Mapping[str, Any], service: str) -> bool:
    """Whether the trust policy lets the service assume the role (its conditions are not judged)."""
    document = json.loads(trust_policy) if isinstance(trust_policy, str) else trust_policy
    statements = document.get("Statement", [])
    return any(
        statement.get("Effect") == "Allow"
        and iam_evaluator._service_principal_matches(statement.get("Principal"), service)
        for statement in (statements if isinstance(statements, list) else [statements])
    )
