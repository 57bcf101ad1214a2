"""Servers that are not the bottleneck: nginx, in one process of its own.

:func:`fast_server` answers every cancel with a job of a realistic size, at once or some milliseconds later.
A requested job has completed, and its output is the file of its own name. Uploads are accepted and discarded.

:func:`limited_server` allows a limited rate of cancels, and fails now and then (``limit.lua``).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

BIN_SECONDS = 0.1
"""Seconds in a bin of the limited server's counts."""

_JOB = (
    '{"id":"$1","user_id":"6710aa3f4be8c09d51f2e7b4","project_id":"proj-example","organization_id":"org-example",'
    '"input_file_id":"file-3e9d1c70-52af-4f0e-8a5b-7c1b90d4e6f2","file_size_bytes":48213,"status":"CANCELING",'
    '"job_deadline":"2026-09-15T10:20:30.481922Z","created_at":"2026-09-14T10:20:30.481925Z",'
    '"endpoint":"/v1/chat/completions","progress":37.25,"model_id":"openai/gpt-oss-20b"}'
)

_FINISHED = '{"id":"$1","status":"COMPLETED","output_file_id":"$1"}'

_CONFIGURATION = """
%(modules)s
daemon off; worker_processes 1; pid %(home)s/pid; error_log %(home)s/errors crit;
events { worker_connections 16384; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path %(home)s; proxy_temp_path %(home)s; fastcgi_temp_path %(home)s;
  uwsgi_temp_path %(home)s; scgi_temp_path %(home)s;
  %(http)s
  server {
    listen 127.0.0.1:%(port)s backlog=16384;
    default_type application/json;
    %(locations)s
  }
}
"""

_FAST = """
    location ~ ^/v1/batches/([^/]+)/cancel$ { %(cancel)s }
    location ~ ^/v1/batches/([^/]+)$ { return 200 '%(finished)s'; }
    location = /v1/batches { alias %(files)s/jobs; }
    location ~ ^/v1/files/([^/]+)/content$ { default_type text/plain; alias %(files)s/$1; }
    # The body of an upload is read to its end, since it is passed on only then.
    client_max_body_size 0; client_body_buffer_size 256m;
    location = /v1/files {
      add_header X-Together-File-Id file-1 always; return 302 http://127.0.0.1:%(port)s/storage/file-1?signature=x;
    }
    location = /v1/files/file-1/preprocess { return 200 '{"id":"file-1"}'; }
    location /storage/ { proxy_pass http://127.0.0.1:%(port)s/stored/; }
    location /stored/ { return 200; }
"""

_LATE = """content_by_lua_block {
      ngx.sleep(%(seconds)s)
      local job = string.gsub('%(job)s', "$1", ngx.var[1], 1)
      ngx.header.content_length = #job
      ngx.print(job)
    }"""

_LIMITED = """
    location ~ ^/v1/batches/([^/]+)/cancel$ { content_by_lua_block { require("limit").cancel(ngx.var[1]) } }
    location = /counts { content_by_lua_block { require("limit").counts() } }
    location ~ ^/elsewhere/v1/batches/([^/]+)/cancel$ { return 200 '%(job)s'; }
"""


@attrs.frozen
class Limit:
    """The rate limit and the failures of a server: ``steps`` are pairs of a second and the rate from then on."""

    steps: tuple[tuple[float, float], ...] = ((0.0, 200.0),)
    burst: int = 50
    retry_after: int | None = None
    failing: float = 0.03
    losing: float = 0.01
    latency: float = 0.0
    seed: int = 1

    def calls_needed(self, ids: Iterable[str]) -> int:
        """Return the number of calls that must be admitted until each id has had a successful response."""
        needed = 0
        for job_id in ids:
            attempt = 1
            while self._chance(job_id, attempt) < self.failing + self.losing:
                attempt += 1
            needed += attempt
        return needed

    def seconds_for(self, calls: float) -> float:
        """Return the minimum time in which ``calls`` can be admitted, which a perfect sender would take."""
        left = max(0.0, calls - self.burst)
        ends = [*(began for began, _ in self.steps[1:]), float("inf")]
        for (began, rate), end in zip(self.steps, ends, strict=True):
            if left <= (end - began) * rate:
                return began + left / rate
            left -= (end - began) * rate
        raise AssertionError(self.steps)  # the last step has no end

    def drawn_until(self, second: float) -> list[tuple[float, float]]:
        """Return the rate over time as the corners of a line."""
        changes = [*self.steps, (second, self.steps[-1][1])]
        return [(at, rate) for (began, rate), (ended, _) in itertools.pairwise(changes) for at in (began, ended)]

    def _chance(self, job_id: str, attempt: int) -> float:
        text = f"{self.seed}:{job_id}:{attempt}"
        return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:8], 16) / 2**32

    def in_lua(self) -> str:
        """Return the settings in the form that limit.lua expects."""
        steps = ",".join(f"{{{began},{rate}}}" for began, rate in self.steps)
        retry_after = "nil" if self.retry_after is None else self.retry_after
        return (
            f"{{steps={{{steps}}},burst={self.burst},retry_after={retry_after},failing={self.failing},"
            f"losing={self.losing},latency={self.latency},seed={self.seed},bin={BIN_SECONDS},job='{_JOB}'}}"
        )


def nginx() -> str | None:
    """Return the path of nginx, if it is installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def lua_modules() -> list[Path]:
    """Return the modules that let nginx run Lua, in loading order; none if they are not installed."""
    program = nginx()
    if program is None:
        return []
    version = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
    prefixes = [
        Path(word.partition("=")[2]) for word in version.split() if word.startswith(("--modules-path=", "--prefix="))
    ]
    for place in (*prefixes, *(prefix / "modules" for prefix in prefixes), Path("/usr/lib/nginx/modules")):
        modules = [place / "ndk_http_module.so", place / "ngx_http_lua_module.so"]
        if all(module.exists() for module in modules):
            return modules
    return []


@contextlib.contextmanager
def fast_server(files: Path | None = None, *, latency: float = 0.0) -> Iterator[str]:
    """Run an nginx during the block, and yield its base URL; it serves the files of the directory ``files``.

    ``latency`` is the seconds before the response to a cancel; any value above zero needs Lua.
    """
    cancel = _LATE % {"seconds": latency, "job": _JOB} if latency else f"return 200 '{_JOB}';"
    with _running(_FAST, lua=latency > 0, cancel=cancel, finished=_FINISHED, files=files) as origin:
        yield f"{origin}/v1"


@attrs.frozen
class LimitedServer:
    """A running limited server; requests to the base URL ``elsewhere`` are neither limited nor counted."""

    base_url: str
    elsewhere: str
    origin: str

    def counts(self) -> Mapping[str, list[int]]:
        """Return the counts so far, by kind, for each tenth of a second since the first call.

        ``goodput`` counts the calls that cancelled a job and were answered, ``needless`` those for a job whose cancel
        had been answered before; the others are ``refused``, ``failed`` (500) and ``lost`` (done, but not answered).
        """
        with urllib.request.urlopen(f"{self.origin}/counts") as answer:
            return {kind: figures or [] for kind, figures in json.load(answer).items()}


@contextlib.contextmanager
def limited_server(limit: Limit) -> Iterator[LimitedServer]:
    """Run a server with this ``limit`` during the block. It needs Lua."""
    here = Path(__file__).parent
    http = (
        f'lua_package_path "{here}/?.lua;;"; '
        f"init_worker_by_lua_block {{ require('limit').start({limit.in_lua()}) }}"
    )
    with _running(_LIMITED, lua=True, http=http, job=_JOB) as origin:
        yield LimitedServer(f"{origin}/v1", f"{origin}/elsewhere/v1", origin)


@contextlib.contextmanager
def _running(locations: str, *, lua: bool, http: str = "", **words: object) -> Iterator[str]:
    """Run an nginx during the block, and yield its origin."""
    program = nginx()
    assert program is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    modules = "".join(f"load_module {module};\n" for module in lua_modules()) if lua else ""
    with tempfile.TemporaryDirectory() as home:
        words = {"port": port, **words, "files": words.get("files") or home}
        configuration = Path(home, "nginx.conf")
        configuration.write_text(
            _CONFIGURATION
            % {"modules": modules, "home": home, "port": port, "http": http, "locations": locations % words}
        )
        with subprocess.Popen([program, "-c", str(configuration)], stderr=subprocess.DEVNULL) as server:
            try:
                _await_port(port)
                yield f"http://127.0.0.1:{port}"
            finally:
                server.terminate()


def _await_port(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    message = "nginx did not start"
    raise RuntimeError(message)
