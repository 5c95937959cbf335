"""A server that speaks OpenAI's API for embeddings, as far as harca asks it."""

import base64
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

KEY = "sk-c4nary-0123456789"


def vector_of(text: str, dims: int) -> list[float]:
    """Return the embedding that the server makes of a text: of length 1, different for each."""
    seed = int.from_bytes(sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=dims)
    return (vector / np.linalg.norm(vector)).astype(np.float32).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Answered:
    """An answer, as it goes over the wire."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def refused(status: int, message: str) -> Answered:
    """Return a refusal in OpenAI's form, after which the client need not wait long."""
    body = {"error": {"message": message, "type": "error", "code": None, "param": None}}
    return Answered(status, json.dumps(body).encode(), {"retry-after-ms": "1"})


def embeddings(vectors: Sequence[Any], *, encoding: str = "float") -> Answered:
    """Return an answer in OpenAI's form, its last embedding first."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(np.array(vector, "<f4").tobytes()).decode()
            if encoding == "base64"
            else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    answer = {"object": "list", "data": data[::-1], "model": "m", "usage": usage}
    return Answered(body=json.dumps(answer).encode())


@dataclass
class EmbeddingServer:
    """What it was asked, and what it is to answer: *answers* first, then embeddings."""

    url: str
    dims: int = 4
    encoding: str | None = None  # None: as the request says
    answers: list[Answered] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """The variables that lead the library here."""
        return {"OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": KEY}

    def answer(self, request: dict[str, Any]) -> Answered:
        """Return the answer to a request."""
        self.requests.append(request)
        if self.answers:
            return self.answers.pop(0)
        dims = request.get("dimensions", self.dims)
        encoding = self.encoding or request.get("encoding_format", "float")
        return embeddings([vector_of(text, dims) for text in request["input"]], encoding=encoding)


@contextmanager
def embedding_server() -> Iterator[EmbeddingServer]:
    """Run a server on loopback."""
    answering: list[Callable[[dict[str, Any]], Answered]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request["authorization"] = self.headers.get("Authorization")
            answer = (
                answering[0](request)
                if self.path == "/v1/embeddings"
                else refused(404, f"no such path: {self.path}")
            )
            self.send_response(answer.status)
            kind = "application/json" if answer.body[:1] in (b"{", b"[") else "text/html"
            for name, value in {"Content-Type": kind, **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True  # the client keeps its connection open
        made = EmbeddingServer(f"http://127.0.0.1:{server.server_port}/v1")
        answering.append(made.answer)
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
