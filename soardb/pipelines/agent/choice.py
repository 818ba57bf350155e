"""Which language model is meant: one of the registry, or one behind a url.

    a name, a url -> [choice.py] -> local.py or openai_api.py

Commands and servers ask here, so that a model is named in the same way everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soardb.errors import InvalidArgument
from soardb.pipelines.agent.language import LanguageModel

if TYPE_CHECKING:
    from soardb.models.registry import Registry

__all__ = ["language_model"]


def language_model(
    model: str,
    *,
    url: str | None = None,
    key: str | None = None,
    registry: Registry | None = None,
    **options: Any,
) -> LanguageModel:
    """The model of that name behind url, or in the registry where there is no url.

    key      of the server behind url
    options  of OpenAIModel with a url, else of LocalModel

    Errors: InvalidArgument without either; NotFound, CorruptStorage from the registry; those of
    OpenAIModel and LocalModel.
    """
    if url is not None:
        from soardb.pipelines.agent.openai_api import OpenAIModel

        return OpenAIModel(url, model, key=key, **options)
    if key is not None:
        raise InvalidArgument("expected url beside key: a model of the registry wants none")
    if registry is None:
        raise InvalidArgument(
            f"expected the url of a server that has the model {model!r}, or a registry of models"
        )
    from soardb.pipelines.agent.local import LocalModel

    return LocalModel(registry.load(model), **options)
