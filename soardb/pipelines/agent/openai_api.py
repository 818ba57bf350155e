"""Language models behind a server that speaks the OpenAI protocol over HTTP.

    a server: vLLM, llama.cpp, Ollama, OpenAI -> [openai_api.py] -> machine.py, feedback.py

A request for each prompt, some of them side by side. Log-probabilities are asked for with every
sample, as the agent goes by perplexity: a server that sends none is of no use here, and is told so.
The official client does the talking and tries again; what it raises becomes errors of ours, without
the key.
"""

from __future__ import annotations

import itertools
import math
import re
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

from soardb import deadline
from soardb.arrays import as_int
from soardb.errors import (
    InvalidArgument,
    NotAllowed,
    NotFound,
    SoarError,
    TimedOut,
    Unavailable,
)
from soardb.options import as_number
from soardb.pipelines.agent.language import Completion, Usage, Wish

__all__ = ["CONTINUE", "Endpoint", "OpenAIModel"]

Endpoint = Literal["completions", "chat"]

CONTINUE = (
    "You complete Python files. Write only what comes after the text that you are given, from "
    "where it ends: nothing of it again, no explanation around it, no Markdown."
)
"""What a chat is told first: its prompts are files to be written on."""

_MUTE = 3  # requests without any log-probabilities, after which that is an error
_SEEDS = 2**31  # some servers keep no larger ones
# A chat may put what it writes between lines of Markdown, though it is told not to.
_FENCED = re.compile(r"\s*```[^\n`]*\n(.*?)(?:\s*```\s*)?", re.DOTALL)
_STATUS: Mapping[int, type[SoarError]] = {
    400: InvalidArgument, 401: NotAllowed, 403: NotAllowed, 404: NotFound, 408: TimedOut,
    409: Unavailable, 413: InvalidArgument, 422: InvalidArgument, 429: Unavailable,
}  # fmt: skip
# How servers say that a prompt is too long: OpenAI's code; llama.cpp's type; words of vLLM, SGLang.
_TOO_LONG = (
    "context_length_exceeded", "exceed_context_size", "context length", "context size",
    "context window", "too long", "too many tokens",
)  # fmt: skip


class OpenAIModel:
    """A model behind url; a LanguageModel.

    url       up to where /completions follows; /v1 is added where it has no path
    model     its name there
    key       sent as a bearer's token; None: none is, whatever the environment holds
    endpoint  "completions", which a pretrained model and the agent's own prompts want, or "chat"
    timeout   seconds of one request
    retries   of a request that met 408, 409, 429, 5xx or no server, with growing pauses
    parallel  requests side by side
    prices    of a token read and one written, in any money: usage.cost is counted in it
    system    what a chat is told first

    Errors: InvalidArgument; Unavailable without the openai package.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        endpoint: Endpoint = "completions",
        timeout: float = 120.0,
        retries: int = 3,
        parallel: int = 8,
        prices: tuple[float, float] = (0.0, 0.0),
        system: str = CONTINUE,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise InvalidArgument(f"expected the name of a model, got {model!r}")
        if endpoint not in get_args(Endpoint):
            raise InvalidArgument(f"expected endpoint completions or chat, got {endpoint!r}")
        if as_number(timeout, "timeout") <= 0:
            raise InvalidArgument(f"expected a timeout above 0 seconds, got {timeout}")
        self._url, self._model, self._endpoint = _as_url(url), model, endpoint
        self._key, self._system = _as_key(key), system
        self._timeout = float(timeout)
        self._parallel = as_int(parallel, "parallel", 1, 256)
        self._prices = as_number(prices[0], "prices[0]"), as_number(prices[1], "prices[1]")
        self._usage, self._lock = Usage(), threading.Lock()
        self._client = _need_openai().OpenAI(
            base_url=self._url,
            api_key=self._key or "none",  # never None: the client would look into the environment
            timeout=self._timeout,
            max_retries=as_int(retries, "retries", 0, 100),
        )
        # What the environment holds for OpenAI is no business of this server.
        self._client.organization = self._client.project = None
        self._client._custom_headers = {}

    def __repr__(self) -> str:
        return f"OpenAIModel({self._url!r}, {self._model!r}, endpoint={self._endpoint!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """As the server knows it."""
        return self._model

    @property
    def usage(self) -> Usage:
        """What it cost so far; calls are requests that were answered."""
        return self._usage

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def complete(
        self, prompts: Sequence[str], wish: Wish
    ) -> list[list[Completion] | InvalidArgument]:
        """wish.n samples for each prompt; for one that does not fit, the error.

        At temperature 0 one sample is asked for, and stands for all.

        Errors: those of LanguageModel; NotFound where the server has no such model.
        """
        wish.check()
        if not prompts:
            return []
        began = time.perf_counter()
        pool = ThreadPoolExecutor(min(self._parallel, len(prompts)), "soardb-openai")
        until = deadline.until()
        try:
            asked = [pool.submit(self._samples, prompt, wish, until) for prompt in prompts]
            _await(asked)
            return [one.result() for one in asked]
        finally:
            # Those that still run end with their own timeout; none begins.
            pool.shutdown(wait=False, cancel_futures=True)
            with self._lock:
                self._usage.seconds += time.perf_counter() - began

    def _samples(self, prompt: str, wish: Wish, until: float) -> list[Completion] | InvalidArgument:
        """Of one prompt, asked for again where fewer came than were asked for."""
        wanted = wish.n if wish.temperature > 0 else 1
        found: list[Completion] = []
        asked = 0
        while len(found) < wanted:
            # Another seed for each prompt and each time; the same whatever is asked beside it.
            said = zlib.crc32(prompt.encode())
            seed = (wish.seed * 1_000_003 + said + 1009 * asked) % _SEEDS
            came = self._request(prompt, wanted - len(found), wish, seed, until)
            if isinstance(came, InvalidArgument):
                return came
            asked += 1
            found += came
            if not came and asked >= _MUTE:
                raise InvalidArgument(
                    "expected log-probabilities of each token, by which samples are compared; "
                    f"{self._url} sent none with model {self._model}. Ask a server that sends "
                    "them, such as vLLM or llama.cpp, or its other endpoint"
                )
        return found[:wanted] if wish.temperature > 0 else found[:1] * wish.n

    def _request(
        self, prompt: str, n: int, wish: Wish, seed: int, until: float
    ) -> list[Completion] | InvalidArgument:
        openai = _need_openai()
        told: dict[str, Any] = {
            "model": self._model, "n": n, "max_tokens": wish.longest, "seed": seed,
            "temperature": wish.temperature, "timeout": self._left(until),
        }  # fmt: skip
        if wish.stop:
            told["stop"] = list(wish.stop)
        if wish.grammar is not None:
            told["extra_body"] = {"grammar": wish.grammar}
        try:
            if self._endpoint == "chat":
                first = [{"role": "system", "content": self._system}] if self._system else []
                messages = [*first, {"role": "user", "content": prompt}]
                reply = self._client.chat.completions.create(
                    messages=messages, logprobs=True, **told
                )
            else:
                reply = self._client.completions.create(prompt=prompt, logprobs=1, **told)
        except openai.APITimeoutError:
            raise TimedOut(
                f"{self._url}: no answer within {told['timeout']:g} s; ask for fewer or shorter "
                "samples, or allow more by timeout"
            ) from None
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            raise Unavailable(f"{self._url}: no server answers: {self._plain(reason)}") from None
        except openai.APIStatusError as error:
            return self._refused(error)
        except (openai.OpenAIError, ValueError) as error:
            raise self._malformed(str(error)) from None
        return self._read(reply, n)

    def _left(self, until: float) -> float:
        """Seconds that a request may take. Errors: TimedOut."""
        left = min(self._timeout, until - time.monotonic())
        if left <= 0:
            raise TimedOut("the call's time was up before all samples were asked for")
        return left

    def _refused(self, error: Any) -> InvalidArgument:
        """InvalidArgument for a prompt that is refused; other errors are raised."""
        said = self._plain(error.message)
        status = int(error.status_code)
        if status in (400, 413, 422):  # of this prompt: others may do
            is_long = any(word in said.lower() for word in _TOO_LONG)
            wanted = "that fits beside the sample into the context" if is_long else "to the taste"
            return InvalidArgument(
                f"expected a prompt {wanted} of {self._model}, got another; the server says: {said}"
            )
        kind = _STATUS.get(status, Unavailable if status >= 500 else InvalidArgument)
        raise kind(f"{self._url}, model {self._model}: {status}: {said}") from None

    def _read(self, reply: Any, n: int) -> list[Completion]:
        """The samples of a reply, at most n. Errors: Unavailable for one that is none."""
        choices = getattr(reply, "choices", None)
        if not isinstance(choices, list) or not choices:
            raise self._malformed("it has no choices")
        read_all = [self._completion(choice) for choice in choices[:n]]
        # llama.cpp sends no log-probabilities with a text that ends within a character.
        found = [one for one in read_all if one is not None]
        written = sum(one.tokens for one in found)
        usage = getattr(reply, "usage", None)
        with self._lock:
            mine = self._usage
            mine.calls += 1
            read = int(getattr(usage, "prompt_tokens", None) or 0)
            # llama.cpp counts the tokens of one choice alone.
            written = max(int(getattr(usage, "completion_tokens", None) or 0), written)
            mine.prompt_tokens += read
            mine.completion_tokens += written
            mine.cost += read * self._prices[0] + written * self._prices[1]
        return found

    def _completion(self, choice: Any) -> Completion | None:
        """None for one without log-probabilities."""
        if self._endpoint == "chat":
            text = getattr(getattr(choice, "message", None), "content", None) or ""
        else:
            text = getattr(choice, "text", None)
        if not isinstance(text, str):
            raise self._malformed("a choice has no text")
        told = getattr(choice, "logprobs", None)
        laws = _logprobs(told)
        fenced = _FENCED.fullmatch(text) if self._endpoint == "chat" else None
        if fenced is not None and laws is not None:
            text, (begins, ends) = fenced[1], fenced.span(1)
            places = _ends(told)
            if places is not None:
                laws = [law for law, at in zip(laws, places, strict=True) if begins < at <= ends]
        if laws is None and not text:
            laws = []  # of no token there is nothing to send
        if laws is None:
            return None
        reason = getattr(choice, "finish_reason", None)
        return Completion(text, math.fsum(laws), len(laws), reason != "length")

    def _malformed(self, why: str) -> Unavailable:
        return Unavailable(
            f"{self._url}: expected an answer of the OpenAI protocol, got another: "
            f"{self._plain(why)[:200]}"
        )

    def _plain(self, message: object) -> str:
        """A message without the key, which a server may send back."""
        return str(message).replace(self._key, "***") if self._key else str(message)


def _await(asked: Sequence[Future[Any]]) -> None:
    """Until all are done or one failed. Errors: TimedOut where the call's time is up first."""
    going = set(asked)
    while going:
        done, going = wait(
            going, deadline.POLL_S if deadline.is_set() else None, return_when=FIRST_EXCEPTION
        )
        for one in done:
            one.result()
        deadline.check()


def _logprobs(told: Any) -> list[float] | None:
    """Of each token of a choice, in either form; None where there are none.

    A token whose probability a server cannot write down, as 0 is in JSON, counts as e^-100.
    """
    found = getattr(told, "token_logprobs", None)
    if found is None:
        listed = getattr(told, "content", None)
        if not isinstance(listed, list):
            return None
        found = [_field(one, "logprob") for one in listed]
    if not isinstance(found, list):
        return None
    return [-100.0 if one is None else max(-100.0, float(one)) for one in found]


def _ends(told: Any) -> list[int] | None:
    """Where each token of a choice ends in its text; None where they are not told as in a chat."""
    listed = getattr(told, "content", None)
    if not isinstance(listed, list):
        return None
    return list(itertools.accumulate(len(str(_field(one, "token") or "")) for one in listed))


def _field(told: Any, name: str) -> Any:
    """Of an object or, where the client knows no type for it, a mapping."""
    return told.get(name) if isinstance(told, Mapping) else getattr(told, name, None)


def _as_url(url: object) -> str:
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f"expected a url such as http://127.0.0.1:8000/v1, got {url!r}")
    if parts.username is not None or parts.password is not None:
        raise InvalidArgument("expected a url without a name and a password; give key in its place")
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _as_key(key: str | None) -> str | None:
    """The error does not show it."""
    if key is None or (isinstance(key, str) and key and key.isascii() and key.isprintable()):
        return key
    raise InvalidArgument("expected key as printable ASCII, got something else")


def _need_openai() -> Any:
    try:
        import openai
    except ModuleNotFoundError as error:
        raise Unavailable("openai is not installed; pip install 'soardb[agent]'") from error
    return openai
