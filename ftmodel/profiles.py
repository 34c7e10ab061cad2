"""Profiles: how many examples, of how many steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ftmodel.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`examples` 0 means: until the time is over."""

    name: str
    examples: int
    steps: int
    about: str


PROFILES: Final = (
    Profile(name="quick", examples=60, steps=30, about="the default"),
    Profile(name="ci", examples=10, steps=20, about="for a pipeline"),
    Profile(name="thorough", examples=200, steps=50, about="an hour or so"),
    Profile(name="soak", examples=0, steps=30, about="until the time is over (--for)"),
)


def find(name: str) -> Profile:
    """The profile of this name. Raises UsageError."""
    for profile in PROFILES:
        if profile.name == name:
            return profile
    known = ", ".join(profile.name for profile in PROFILES)
    raise UsageError(f"profile {name!r}: unknown, expected one of {known}; try: ftmodel list profiles")
