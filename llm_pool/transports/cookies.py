"""Keeps cookies out of the httpx clients that a pool's callers share."""

from __future__ import annotations

from http.cookiejar import Cookie, CookieJar
from typing import Any

import httpx
from httpx._client import BaseClient

__all__ = ["WithoutCookies"]


class _NoCookies(CookieJar):
    """A cookie jar that stays empty. In a shared client, a caller's cookies would go out with all calls."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Do nothing: the cookies of a response are kept by the response alone."""

    def set_cookie(self, cookie: Cookie) -> None:
        """Raise RuntimeError: the cookie would go out with the calls of all callers."""
        raise RuntimeError(
            "a pool's httpx client keeps no cookies, because all callers share it; give a cookie with each "
            "request that needs it: headers={'Cookie': 'name=value'}"
        )


class WithoutCookies(BaseClient):
    """A mixin for httpx clients that keep no cookies."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cookies=_NoCookies(), **options)

    @property
    def cookies(self) -> httpx.Cookies:
        """No cookies. Setting a cookie, here or in the returned value, raises RuntimeError."""
        return self._cookies

    @cookies.setter
    def cookies(self, cookies: Any) -> None:
        self._cookies.update(cookies)
