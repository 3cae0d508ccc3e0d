"""The error that turns one sample down without touching the others."""

from __future__ import annotations


class Reject(Exception):
    """A sample that cannot be annotated.

    Attributes:
        reason: one word that can be counted, such as `undecodable`.
        detail: the cause, for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail
