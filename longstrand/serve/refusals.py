"""Errors as answers: one form for every status, in our words, never with what the client has sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from longstrand.errors import InputError, LongstrandError, nearest
from longstrand.serve.schemas import FIELDS

_LONG_WORD = re.compile(r"\S{41,}")
CODES = {400: "bad_request", 401: "token", 403: "forbidden", 404: "not_found", 405: "method", 408: "slow",
         413: "too_large", 422: "invalid", 429: "busy", 499: "gone", 500: "internal",
         503: "unavailable", 504: "timeout"}  # fmt: skip
WORDS = {404: "There is nothing at this address; see /docs.", 405: "This address takes another method; see /docs.",
         400: "The request could not be read."}  # fmt: skip


class Refusal(Exception):
    """Why there is no answer.

    Attributes:
        status: of HTTP.
        message: what is wrong, where, and what to do.
        code: a word for programs.
        where: the field of the request, such as ``inputs[2].region``.
        position: 0-based place in that field's text.
        hint: the nearest name that exists.
        retry_after: seconds after which another try is worth it.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, where: str | None = None, *,
        position: int | None = None, hint: str | None = None, retry_after: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.code = status, message, code or CODES.get(status, "error")
        self.where, self.position, self.hint, self.retry_after = where, position, hint, retry_after

    def body(self, request_id: str) -> bytes:
        """Write the answer."""
        names = ("code", "message", "where", "position", "hint", "retry_after")
        return json.dumps(
            {"error": {name: getattr(self, name) for name in names} | {"request_id": request_id}}
        ).encode()

    def headers(self) -> dict[str, str]:
        """Give the headers that belong to it."""
        found = {"content-type": "application/json"}
        if self.retry_after is not None:
            found["retry-after"] = str(self.retry_after)
        if self.status in (408, 413):  # the rest of the body is not read
            found["connection"] = "close"
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        return found


def refusal_from(error: Exception) -> Refusal:
    """Turn whatever was raised into an answer; what nobody expected is status 500, and its text stays in the log."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, LongstrandError):
        return refusal_of(error)
    if isinstance(error, ValidationError):
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        return refusal_of_fields([{**one, "loc": ("body", *one["loc"])} for one in problems])
    if isinstance(error, RequestValidationError):
        return refusal_of_fields(error.errors())
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, WORDS.get(error.status_code, "The request was refused."))
    return Refusal(500, "The server has made a mistake; its log has the request id.")


def near(name: str, choices: Iterable[str]) -> str | None:
    """Give the nearest of some names, or None."""
    found = re.search(r"'(.+)'", nearest(name, choices))
    return found[1] if found else None


def refusal_of(error: LongstrandError, where: str | None = None) -> Refusal:
    """Turn an error of the library into an answer; words of more than 40 characters, which can only be input, go."""
    message = _LONG_WORD.sub("...", str(error))
    found = re.search(r"at position (\d+) is no nucleotide", message)
    position = int(found[1]) - 1 if found else None
    code = "letter" if found else "input" if isinstance(error, InputError) else "option"
    return Refusal(422, message, code, where, position=position)


def refusal_of_fields(problems: Iterable[Any]) -> Refusal:
    """Turn what a schema found into an answer about the first problem, without repeating the input."""
    problem = min(problems, key=lambda one: one["type"] != "extra_forbidden")  # a misspelt field is missing, too
    kind, place = problem["type"], list(problem["loc"])
    if kind == "json_invalid":
        return Refusal(422, "The body is no JSON.", "json", "body")
    key = str(place.pop()) if kind == "extra_forbidden" else None
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place[1:]).lstrip(".") or "body"
    if key is not None:
        hint = near(key, FIELDS)
        more = f"did you mean '{hint}'?" if hint else "see /docs."
        return Refusal(422, f"{where} has a field that does not exist; {more}", "unknown_field", where, hint=hint)
    words = "is missing" if kind == "missing" else _LONG_WORD.sub("...", problem["msg"])
    words = words.replace("Input should be", "should be").removeprefix("Value error, ")
    return Refusal(422, f"{where} {words}.", "field", where)
