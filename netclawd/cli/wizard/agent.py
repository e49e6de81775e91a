"""The pages about the agent: which provider answers, where it is, and how much it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from netclawd.adapters.model_servers import list_models
from netclawd.cli.wizard.keys import key_of, take_key, take_secret
from netclawd.cli.wizard.page import Page, schema_of
from netclawd.core import schema as schemas
from netclawd.core.edits import lookup
from netclawd.core.interview import CHOSEN, Answers, Choice, ModelServer, Question, changed_settings
from netclawd.core.origins import Path
from netclawd.core.providers import MOST_FOR_REPLY
from netclawd.core.words import shown
from netclawd.errors import ConfigMeaningError

#: Kinds of providers that can be set up here, and what they are.
KINDS = {
    "demo": "needs no key and no network; it explains itself and answers word by word",
    "openai": "chat completions: OpenAI, Ollama, llama.cpp, vLLM and others",
    "anthropic": "messages: Anthropic",
}
#: Where they are unless told otherwise.
URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
#: Models that are listed, at most.
MOST_CHOICES = 20


def kind_of(answers: Answers) -> str:
    """Return the kind of the provider that was chosen."""
    chosen = answers.value(CHOSEN)
    table = lookup(answers.in_file, ("providers", chosen))
    return str(table.get("kind")) if isinstance(table, Mapping) else str(chosen)


def url_of(answers: Answers) -> str:
    """Return where the server of the provider is."""
    return str(_URL.value(answers) or URLS.get(kind_of(answers), ""))


def _remote(answers: Answers) -> bool:
    return kind_of(answers) in URLS


def _compatible(answers: Answers) -> bool:
    return kind_of(answers) == "openai"


def _providers(answers: Answers) -> Sequence[Choice]:
    """Offer what is configured, and what can be."""
    tables = answers.before("providers")
    named = tables if isinstance(tables, Mapping) else {}
    words = {name: _words(table) for name, table in named.items()}
    found = ", ".join(server.name for server in answers.found)
    for kind, what in KINDS.items():
        also = f"; {found} runs here" if kind == "openai" and found else ""
        words.setdefault(kind, f"{what}{also}")
    return [Choice(name, what) for name, what in words.items()]


def _words(table: Any) -> str:
    kind, model = lookup(table, ("kind",)), lookup(table, ("model",))
    return f"{model}, {kind}" if model else KINDS.get(str(kind), "")


# -- where it is ---------------------------------------------------------------------------------


def _urls(answers: Answers) -> Sequence[Choice]:
    found = [
        Choice(server.base_url, f"{server.name} on this host, with {_some(server.models)}")
        for server in answers.found
    ]
    return [*found, Choice(URLS["openai"], "OpenAI")]


def _found(answers: Answers) -> ModelServer | None:
    url = url_of(answers)
    return next((server for server in answers.found if server.base_url == url), None)


def _some(models: Sequence[str]) -> str:
    more = f" and {len(models) - 3} more" if len(models) > 3 else ""
    return ", ".join(models[:3]) + more


def _default_url(answers: Answers) -> str:
    """Keep what is configured; a provider that is new is the one found on this host."""
    configured = answers.value_at(_URL.at(answers))
    found = answers.found
    if configured is None and found and _compatible(answers):
        return found[0].base_url
    return str(configured or URLS.get(kind_of(answers), ""))


def _split(url: str) -> SplitResult:
    """Split a URL; one that can't be an address (half of a bracket) has no host."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _judge_url(value: Any, answers: Answers) -> None:
    parts = _split(value)
    if value and not parts.hostname:
        raise ConfigMeaningError("The URL names no host.", "Write it as https://HOST/v1.")
    for end in ("/chat/completions", "/messages", "/models"):
        if parts.path.rstrip("/").endswith(end):
            raise ConfigMeaningError(
                f"The URL goes too far: {end} is added to it.",
                f"Leave out {'/v1' if kind_of(answers) == 'anthropic' else ''}{end}.",
            )


def _server(url: str) -> tuple[str, str]:
    parts = _split(url)
    return parts.scheme, parts.netloc.lower()


def _same_server(answers: Answers) -> bool:
    """Whether what is configured, the key above all, was for the server that is asked now."""
    before = lookup(answers.in_file, ("providers", answers.value(CHOSEN)))
    if not isinstance(before, Mapping):
        return False
    was = before.get("base_url") or URLS.get(kind_of(answers), "")
    return isinstance(was, str) and _server(was) == _server(url_of(answers))


# -- key and model -------------------------------------------------------------------------------


def _default_key(answers: Answers) -> Any:
    """Keep a key for the server that it was for; another one never gets it."""
    return answers.value_at(_KEY.at(answers)) if _same_server(answers) else None


def _key_optional(answers: Answers) -> bool:
    return _default_key(answers) is not None or url_of(answers) not in URLS.values()


def _models(answers: Answers) -> Sequence[Choice]:
    known = _found(answers)
    models = known.models if known is not None else ()
    if not models:
        models = list_models(kind_of(answers), url_of(answers), key_of(_KEY, answers))
    return [Choice(model) for model in models[:MOST_CHOICES]]


def _default_model(answers: Answers) -> str | None:
    configured, known = answers.value_at(_MODEL.at(answers)), _found(answers)
    if known is not None and (not configured or not _same_server(answers)):
        return known.models[0]
    return str(configured) if configured else None


def _judge_model(value: Any, _answers: Answers) -> None:
    if not value.strip():
        raise ConfigMeaningError("A model has to be named.", "Say its name as the server knows it.")
    if value.strip().isdecimal():
        raise ConfigMeaningError(
            f"No model has the number {value.strip()} here.", "Say its name as the server knows it."
        )


_TABLE = ("providers", schemas.ANY_NAME)
_URL: Question = Question(
    (*_TABLE, "base_url"),
    "--base-url",
    "Where the server is",
    "Its URL, up to what precedes /chat/completions; a number, or any other one.",
    choices=_urls,
    applies=_compatible,
    judge=_judge_url,
    default=_default_url,
    free=True,
    stays=True,
)
_KEY: Question = Question(
    (*_TABLE, "api_key"),
    "--api-key",
    "API key",
    "It isn't shown, and is kept in a file that only the daemon's user can read. Or say where it is: "
    "credential:NAME, env:NAME or file:/PATH; none for a server that wants none.",
    applies=_remote,
    default=_default_key,
    has_default=_key_optional,
    hidden=True,
    take=lambda text, answers, typed: take_key(_KEY, text, answers, typed=typed),
)
_MODEL: Question = Question(
    (*_TABLE, "model"),
    "--model",
    "Model",
    "Its name as the server knows it; a number, if the server has listed it here.",
    choices=_models,
    applies=_remote,
    judge=_judge_model,
    default=_default_model,
    free=True,
)


def _default_window(answers: Answers) -> Any:
    return _set_or_default(answers, _WINDOW.at(answers))


def _set_or_default(answers: Answers, path: Path) -> Any:
    return answers.value_at(path) or schema_of(path)["default"]


_WINDOW: Question = Question(
    (*_TABLE, "context_tokens"),
    "--context-tokens",
    "Tokens of the model's window",
    "Input and output together, as the server runs it; of a conversation that outgrows it the oldest part "
    "is summarised.",
    applies=_remote,
    default=_default_window,
)


# -- the pages -----------------------------------------------------------------------------------


def _table(answers: Answers) -> Mapping[Path, Any]:
    """Add the table of a provider that the file lacks; keep an address that is the kind's own unsaid."""
    chosen, kind = answers.value(CHOSEN), kind_of(answers)
    tables = answers.in_file.get("providers")
    others = isinstance(tables, Mapping) and tables
    if kind in KINDS and (not others or chosen not in others) and (others or kind in URLS):
        return {("providers", chosen, "kind"): kind}
    own = _compatible(answers) and url_of(answers) == URLS["openai"]
    if own and not lookup(answers.in_file, _URL.at(answers)):
        return {_URL.at(answers): ""}
    return {}


def _room(answers: Answers) -> Mapping[Path, Any]:
    """Let a reply be so short that a small window has room for a conversation."""
    if not _remote(answers):
        return {}
    path = ("providers", answers.value(CHOSEN), "max_output_tokens")
    most, window = _set_or_default(answers, path), _WINDOW.value(answers)
    fits = not isinstance(most, int) or most <= int(window * MOST_FOR_REPLY)
    return {} if fits else {path: window // 4}


def settings_of(answers: Answers) -> Mapping[Path, Any]:
    """Return what the provider that was chosen would be set to."""
    return AGENT.settings(answers)


def is_as_configured(answers: Answers) -> bool:
    """Whether the provider that answers is the one that the file has, unchanged."""
    return not changed_settings(answers, AGENT.settings(answers)) and not answers.pending(
        AGENT.settings(answers)
    )


def window_path(answers: Answers) -> Path:
    return _WINDOW.at(answers)


def provider_key(answers: Answers) -> str | None:
    """Return the key; None where there is none, or where only the daemon has it."""
    return key_of(_KEY, answers)


def keep_key(key: str, answers: Answers) -> Answers:
    """Answer with the key itself."""
    return take_secret(_KEY, key, answers)


def refuse_idle(answers: Answers) -> None:
    """Raise ConfigMeaningError for an answer about a model that the provider doesn't have."""
    if _remote(answers):
        return
    idle = [q.option for q in (_URL, _KEY, _MODEL, _WINDOW) if q.at(answers) in answers.given]
    if idle:
        raise ConfigMeaningError(
            f"{idle[0]} means nothing to the provider {shown(answers.value(CHOSEN))}.",
            "Leave it out, or give --provider openai or --provider anthropic.",
        )


AGENT = Page(
    "agent",
    "Who answers in the sessions.",
    (
        Question(
            ("agent", "provider"),
            "--provider",
            "Provider",
            "The model that answers; the demo agent is there to try everything without a key.",
            choices=_providers,
        ),
        _URL,
        _KEY,
        _MODEL,
    ),
    more=_table,
    try_out=lambda trial: trial.call(trial.answers),
)

WINDOW = Page("window", "How much of a conversation the model sees.", (_WINDOW,), more=_room)
