"""What all parts of the simulated API share of OpenAI's protocol: its errors, and who may ask."""

from starlette.requests import Request

REFUSED_KEY = "refused"
"""The one API key that is turned away, so that a refusal can be seen."""


class ApiError(Exception):
    """An error in OpenAI's form; a `patient` 429 says how long to wait."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str = "",
                 *, patient: bool = True):
        super().__init__(message)
        kind = {429: "rate_limit_error", 500: "server_error"}.get(status, "invalid_request_error")
        self.status, self.patient = status, patient
        self.error = {"message": message, "type": kind, "param": param or None, "code": code}


def authorize(request: Request) -> None:
    """Raise ApiError for the key that is refused; any other one will do."""
    if request.headers.get("authorization", "").removeprefix("Bearer ").strip() == REFUSED_KEY:
        raise ApiError(401, "Incorrect API key provided: refused.", "invalid_api_key")
