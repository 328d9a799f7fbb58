"""What a section of the settings is made of."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


def setting(default: Any, *, unit: str = "", allowed: str = "", **limits: Any) -> Any:
    """A setting.  `allowed` says what fits where the type and its limits do not say it all."""
    return Field(default=default, json_schema_extra={"unit": unit, "allowed": allowed}, **limits)


class Section(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,  # the text under a key is its description
    )

    @field_validator("*", mode="before")
    @classmethod
    def _nothing_is_guessed(cls, value: object, info: ValidationInfo) -> object:
        # pydantic would read `port = true` as port 1, and an unset shell variable as the path ".".
        kinds = alternatives(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and bool not in kinds:
            raise ValueError("true and false are not values of this key")
        if value == "" and Path in kinds:
            raise ValueError("a path is never empty")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _home_is_expanded(cls, value: object) -> object:
        # Neither TOML nor the environment expands ~, and a folder named "~" is never what was meant.
        return value.expanduser() if isinstance(value, Path) else value


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """`X | None` as (X, None's type); any other annotation as itself."""
    return (annotation,) if get_origin(annotation) in (None, Literal) else get_args(annotation)


def is_loopback(host: str) -> bool:
    """Whether a listener on `host` can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # a name may resolve to anything
