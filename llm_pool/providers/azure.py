"""Azure OpenAI: https://learn.microsoft.com/azure/ai-foundry/openai/reference"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from llm_pool.exceptions import InvalidParameter, with_article
from llm_pool.providers.base import CompletionRequest, EmbeddingInput, Messages
from llm_pool.providers.openai import OpenAI

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


__all__ = ["Azure"]


class Azure(OpenAI):
    """OpenAI's chat completions and embeddings on Azure. The path depends on BASE_URL:

    ========================================  ======================================  ===============
    BASE_URL                                  the path of a call below it             ``api-version``
    ========================================  ======================================  ===============
    https://NAME.openai.azure.com             /openai/deployments/MODEL/chat/...      required
    https://NAME.../openai                    /deployments/MODEL/chat/...             required
    https://NAME.../openai/deployments/MODEL  /chat/completions                       required
    https://NAME.../models                    /chat/completions                       required
    https://NAME.../openai/v1                 /chat/completions                       not required
    ========================================  ======================================  ===============

    The key goes into the header ``api-key``, and a token of Microsoft Entra ID into ``Authorization``.
    """

    name = "azure"
    base_url = ""
    base_url_env = "AZURE_OPENAI_ENDPOINT"
    api_key_env = "AZURE_OPENAI_API_KEY"
    request_id_headers = ("x-request-id", "apim-request-id")
    models_path = "/openai/models"
    lists_models = False
    required_query: tuple[tuple[str, str], ...] = (("api-version", "OPENAI_API_VERSION"),)
    _deployments: str | None = "/openai/deployments"  # the path of all deployments; None if BASE_URL has one

    def for_url(self, base_url: str) -> Self:
        """See ``Provider.for_url``."""
        provider, path = copy(self), urlsplit(base_url).path.removesuffix(self.completion_path)
        if path.endswith("/openai"):
            provider._deployments, provider.models_path = "/deployments", "/models"
        elif path.endswith(("/v1", "/models")) or "/deployments/" in path:
            provider._deployments, provider.models_path = None, "/models"
        if path.endswith("/v1"):
            provider.required_query = ()
        return provider

    def headers(self, api_key: str | None) -> dict[str, str]:
        """See ``Provider.headers``."""
        if api_key and _is_token(api_key):
            return super().headers(api_key)
        return {**super().headers(None), **({"api-key": api_key} if api_key else {})}

    def completion_request(
        self, messages: Messages, model: str | None, params: Mapping[str, Any], *, stream: bool
    ) -> CompletionRequest:
        """See ``OpenAI.completion_request``. Raises ``InvalidParameter`` if the path lacks a deployment."""
        return self._in_deployment(super().completion_request(messages, model, params, stream=stream))

    def embedding_request(
        self, inputs: Sequence[EmbeddingInput], model: str | None, params: Mapping[str, Any]
    ) -> CompletionRequest:
        """See ``Provider.embedding_request``. Raises ``InvalidParameter`` if the path lacks a deployment."""
        return self._in_deployment(super().embedding_request(inputs, model, params))

    def _in_deployment(self, request: CompletionRequest) -> CompletionRequest:
        """Return ``request`` with the deployment that its ``model`` names in the path."""
        if self._deployments is None:
            return request
        model = request.body.get("model")
        if not isinstance(model, str):
            what = "is missing" if model is None else f"is {with_article(model)}"
            raise InvalidParameter(
                f"model {what}; give the name of a deployment as model, or set MODEL in the pool's settings."
            )
        if not model.strip("."):
            raise InvalidParameter(f"model is {model!r}; give the name of a deployment.")
        deployment = quote(model, safe="", errors="replace")  # ``encode`` refuses what UTF-8 cannot carry
        return request._replace(path=f"{self._deployments}/{deployment}{request.path}")


def _is_token(key: str) -> bool:
    """Return whether ``key`` is a token of Microsoft Entra ID: a JSON Web Token (RFC 7519, section 3).

    Its first part is a JSON object in base64, which begins with ``{"``. A key of Azure has no dot.
    """
    return key.startswith("eyJ") and "." in key
