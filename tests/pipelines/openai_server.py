"""A server that speaks the OpenAI protocol over HTTP, with answers and faults out of a script.

-> [openai_server.py] -> test_agent_language.py, and the tests of all that asks such a server

    with OpenAIServer(lambda prompt, body: ["Hello"] * body["n"]) as server:
        OpenAIModel(server.url, "scripted").complete([...], Wish())

It takes /completions and /chat/completions below its url; texts are cut at `stop` and at
`max_tokens`, a token being a word with the spaces before it, and each token's log-probability is
made from its letters, so that the same text always has the same.
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

__all__ = ["Fault", "OpenAIServer", "Request", "logprob_of", "tokens_of"]

Reply = Callable[[str, dict[str, Any]], list[str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is sent in place of an answer.

    status   of HTTP; message: in the error's body, as OpenAI's servers write it
    raw      the body itself, whatever it is
    seconds  to wait before the answer; with status 200 and no raw the right answer follows
    """

    status: int = 200
    message: str = ""
    raw: bytes | None = None
    seconds: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: path below url, the body read, headers in small letters."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


class OpenAIServer:
    """A context manager of a running server.

    reply     prompt, body -> texts, of which at most body["n"] are sent. For a chat the prompt is
              its last message
    faults    sent one by one in place of the first answers
    key       what has to be sent as a bearer's token; None: nothing
    model     the only one that there is; None: any name will do
    logprobs  in which form: "legacy" {"token_logprobs": [..]}, "content" [{"logprob": ..}], or
              None, as a server that sends none. A chat has the second or none
    most      choices of one answer, for a server that overlooks n
    """

    def __init__(
        self,
        reply: Reply | None = None,
        *,
        faults: Iterable[Fault] = (),
        key: str | None = None,
        model: str | None = None,
        logprobs: Literal["legacy", "content"] | None = "legacy",
        most: int | None = None,
    ) -> None:
        self.reply: Reply = reply or (lambda prompt, body: [" ok"] * int(body.get("n") or 1))
        self.faults = list(faults)
        self.key, self.model = key, model
        self.logprobs, self.most = logprobs, most
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """Below which the paths are, http://127.0.0.1:PORT/v1."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body for one request."""
        with self._lock:
            self.requests.append(request)
            fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            self._closed.wait(fault.seconds)
            if fault.raw is not None:
                return fault.status, fault.headers, fault.raw
            if fault.status != 200:
                return fault.status, fault.headers, _error(fault.message)
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return 401, {}, _error("Incorrect API key provided")
        if self.model is not None and request.body.get("model") != self.model:
            return 404, {}, _error(f"The model {request.body.get('model')!r} does not exist")
        if request.path == "/completions":
            return 200, {}, json.dumps(self._completed(request.body)).encode()
        if request.path == "/chat/completions":
            return 200, {}, json.dumps(self._chatted(request.body)).encode()
        return 404, {}, _error(f"no path {request.path}")

    def _completed(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        choices = []
        for number, (tokens, reason) in enumerate(self._texts(prompt, body)):
            told = self._legacy(tokens) if self.logprobs == "legacy" else self._content(tokens)
            choices.append(
                {
                    "index": number,
                    "text": "".join(tokens),
                    "finish_reason": reason,
                    "logprobs": told if body.get("logprobs") is not None else None,
                }
            )
        return self._whole("text_completion", prompt, choices, body)

    def _chatted(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["messages"][-1]["content"]
        choices = []
        for number, (tokens, reason) in enumerate(self._texts(prompt, body)):
            choices.append(
                {
                    "index": number,
                    "message": {"role": "assistant", "content": "".join(tokens)},
                    "finish_reason": reason,
                    "logprobs": self._content(tokens) if body.get("logprobs") else None,
                }
            )
        return self._whole("chat.completion", prompt, choices, body)

    def _texts(self, prompt: str, body: dict[str, Any]) -> list[tuple[list[str], str]]:
        """Tokens of each choice, and why it ended."""
        wanted = int(body.get("n") or 1)
        texts = self.reply(prompt, body)[: min(wanted, self.most or wanted)]
        stops = body.get("stop") or []
        found = []
        for text in texts:
            for stop in [stops] if isinstance(stops, str) else stops:
                text = text.partition(stop)[0]
            tokens = tokens_of(text)
            longest = body.get("max_tokens") or body.get("max_completion_tokens") or len(tokens)
            found.append((tokens[:longest], "stop" if len(tokens) <= longest else "length"))
        return found

    def _legacy(self, tokens: list[str]) -> dict[str, Any]:
        laws = [logprob_of(one) for one in tokens]
        return {"tokens": tokens, "token_logprobs": laws, "top_logprobs": None, "text_offset": []}

    def _content(self, tokens: list[str]) -> dict[str, Any] | None:
        if self.logprobs is None:
            return None
        told: list[dict[str, Any]] = [
            {"token": one, "logprob": logprob_of(one), "bytes": None, "top_logprobs": []}
            for one in tokens
        ]
        return {"content": told, "refusal": None}

    def _whole(
        self, kind: str, prompt: str, choices: list[dict[str, Any]], body: dict[str, Any]
    ) -> dict[str, Any]:
        read = len(tokens_of(prompt))
        texts = [one.get("text") or one.get("message", {}).get("content", "") for one in choices]
        written = sum(len(tokens_of(text)) for text in texts)
        return {
            "id": "scripted-1",
            "object": kind,
            "created": int(time.time()),
            "model": body.get("model"),
            "choices": choices,
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
            },
        }


def tokens_of(text: str) -> list[str]:
    """Words with the spaces before them; what they are joined to is the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def logprob_of(token: str) -> float:
    """Between -1 and -0.01, from the token's letters alone."""
    return -(1 + zlib.crc32(token.encode()) % 100) / 100


def _error(message: str) -> bytes:
    told = {"message": message, "type": "invalid_request_error", "code": None}
    return json.dumps({"error": told}).encode()


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = self.path.removeprefix("/v1")
            status, more, sent = server.answer(Request(path, body, headers))
            try:
                self._send(status, more, sent)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client waited no longer

        def do_GET(self) -> None:
            told = {"object": "list", "data": [{"id": server.model or "any", "object": "model"}]}
            is_known = self.path.removeprefix("/v1") == "/models"
            sent = json.dumps(told).encode() if is_known else _error("no such path")
            self._send(200 if is_known else 404, {}, sent)

        def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests look at server.requests."""

    return Handler
