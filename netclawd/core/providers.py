"""Whether the providers and the agent make sense, as far as the settings alone can tell.

Pure. Every configured provider is judged, also one that doesn't answer now: it is there to be
chosen, perhaps in a hurry.
"""

from __future__ import annotations

from collections.abc import Iterable

from netclawd.core.session import ToolSpec
from netclawd.core.settings import ProviderSettings, Settings
from netclawd.core.tokens import fixed_tokens
from netclawd.core.words import dotted, shown
from netclawd.errors import ConfigMeaningError

#: Kinds that are nothing without the name of a model.
NEED_MODEL = frozenset({"openai", "anthropic"})
#: Part of a model's window that a reply may take at most: what is left must hold a conversation.
MOST_FOR_REPLY = 0.75
#: Tokens that a conversation needs at least, beside what each request takes anyway.
LEAST_ROOM = 512


def judge_agent(settings: Settings) -> None:
    """Raise ConfigMeaningError that names the first thing which is wrong."""
    if settings.provider not in settings.providers:
        names = ", ".join(sorted(settings.providers)) or "none"
        raise ConfigMeaningError(
            f"agent.provider names {shown(settings.provider)}, which is no configured provider"
            f" ({names}).",
            f"Add a table [{dotted(('providers', settings.provider))}], or name one that exists.",
        )
    for _, provider in sorted(settings.providers.items()):
        _judge_provider(provider)


def _judge_provider(provider: ProviderSettings) -> None:
    table = dotted(("providers", provider.name))
    if provider.kind in NEED_MODEL and not provider.model.strip():
        raise ConfigMeaningError(
            f"{table}.model is empty, but a provider of the kind {provider.kind} needs one.",
            "Set it to the name of the model as the server knows it.",
        )
    most = int(provider.context_tokens * MOST_FOR_REPLY)
    if provider.max_output_tokens > most:
        raise ConfigMeaningError(
            f"{table}.max_output_tokens is {provider.max_output_tokens}, which leaves no room for a"
            f" conversation in {table}.context_tokens, {provider.context_tokens}.",
            f"Lower it to {most} at most, or raise context_tokens if the model's window is larger.",
        )


def judge_room(settings: Settings, system: str, tools: Iterable[ToolSpec]) -> None:
    """Raise ConfigMeaningError unless the system prompt and the tools leave room for a conversation.

    Judged is the provider that the agent uses: with it every turn of every session would fail.
    """
    chosen = settings.providers[settings.provider]
    room = chosen.context_tokens - chosen.max_output_tokens
    fixed = fixed_tokens(system, tools)
    if fixed + LEAST_ROOM <= room:
        return
    table = dotted(("providers", chosen.name))
    prompt = "agent.system_prompt_file" if settings.system_prompt_file else "The built-in prompt"
    raise ConfigMeaningError(
        f"{prompt} and the tools take about {fixed} tokens of each request; {table}.context_tokens, less"
        f" {table}.max_output_tokens, is {room}, which leaves no room for a conversation.",
        f"Raise {table}.context_tokens to {fixed + LEAST_ROOM + chosen.max_output_tokens} if the model's"
        " window is as large; else lower max_output_tokens, shorten the prompt, or deny tools that are not"
        " needed.",
    )
