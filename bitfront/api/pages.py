"""Pages of long lists, by opaque tokens that name the last item of the page before."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from bitfront.errors import InvalidArgument

T = TypeVar("T")
PageSize = Annotated[int, Query(ge=1, le=200, description="Items of a page.")]
PageToken = Annotated[
    str | None,
    Query(
        max_length=100,
        pattern="^[A-Za-z0-9_-]*$",
        description="`next_page_token` of the page before.",
    ),
]


def token(place: str | int) -> str:
    """What names the place after which a page begins."""
    return base64.urlsafe_b64encode(f"after:{place}".encode()).decode().rstrip("=")


def place(text: str, pattern: str) -> str:
    """The place of a token.

    >>> place(token(17), "[0-9]+")
    '17'

    Raises:
        InvalidArgument: no token of ours.
    """
    try:
        # The padding that was cut off; more of it does no harm.
        found = base64.urlsafe_b64decode(f"{text}==").decode("ascii")
    except (binascii.Error, ValueError):
        found = ""
    match = re.fullmatch(f"after:({pattern})", found)
    if match is None:
        raise InvalidArgument("page_token is none of ours: give next_page_token of a page.")
    return match.group(1)


def cut(
    items: Sequence[T], size: int, name: Callable[[T], str | int]
) -> tuple[Sequence[T], str | None]:
    """The first items, and the token of the page after them if there are more."""
    if len(items) <= size:
        return items, None
    return items[:size], token(name(items[size - 1]))
