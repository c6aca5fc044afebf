"""An operation behind the checks of AWS's own service model; what is refused becomes the API's error."""

from collections.abc import Callable, Mapping
from typing import Any

from ministack.core.responses import error_response_json, json_response

from local.embedded_aws.registration import Response
from local.embedded_aws.request_validation import RequestError, validate

Request = Mapping[str, Any]
Answer = dict[str, Any]


def checked(
    service: str, name: str, operation: Callable[[Request], Answer], refused_as: str | None = None
) -> Callable[[Request], Response]:
    """`operation` as an answer of the API. `refused_as` is the service's own code for a request of the wrong shape.

    Operations whose name begins with Embedded are not of AWS and have no model.
    """

    def answer(request: Request) -> Response:
        response: Response
        try:
            if not name.startswith("Embedded"):
                _validate(request)
            response = json_response(operation(request))
        except RequestError as error:
            response = error_response_json(error.code, str(error), 400)
        return response

    def _validate(request: Request) -> None:
        try:
            validate(service, name, request)
        except RequestError as error:
            raise RequestError(refused_as or error.code, str(error)) from error

    return answer
