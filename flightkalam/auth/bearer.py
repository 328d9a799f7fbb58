"""Bearer tokens of every kind, told apart by their looks."""

from __future__ import annotations

from dataclasses import dataclass

from flightkalam.auth.api_tokens import PREFIX, ApiTokens
from flightkalam.auth.identity import Identity
from flightkalam.auth.oidc import Oidc
from flightkalam.auth.tokens import Tokens


@dataclass(frozen=True)
class Bearers:
    """:param tokens: those that a login hands out.
    :param api_tokens: those of CREATE TOKEN.
    :param oidc: those of an identity provider, if one is configured."""

    tokens: Tokens
    api_tokens: ApiTokens
    oidc: Oidc | None = None

    def verify(self, text: str) -> Identity:
        """Whose token it is.

        :raises Unauthenticated: for whatever reason; the text is always the same.
        """
        if text.startswith(PREFIX):
            return self.api_tokens.verify(text)
        if self.oidc is not None and self.oidc.meant(text):
            return self.oidc.verify(text)
        return self.tokens.verify(text)
