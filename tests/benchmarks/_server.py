"""A server that is not the bottleneck: nginx.

It answers every cancel with a job of the size that is seen live. A job that is asked for has completed, and its
output is the file of its own name. Uploads are taken, and thrown away.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_JOB = (
    '{"id":"$1","user_id":"6710aa3f4be8c09d51f2e7b4","project_id":"proj-example","organization_id":"org-example",'
    '"input_file_id":"file-3e9d1c70-52af-4f0e-8a5b-7c1b90d4e6f2","file_size_bytes":48213,"status":"CANCELING",'
    '"job_deadline":"2026-09-15T10:20:30.481922Z","created_at":"2026-09-14T10:20:30.481925Z",'
    '"endpoint":"/v1/chat/completions","progress":37.25,"model_id":"openai/gpt-oss-20b"}'
)

_FINISHED = '{"id":"$1","status":"COMPLETED","output_file_id":"$1"}'

_CONFIGURATION = """
daemon off; worker_processes 1; pid {home}/pid; error_log {home}/errors crit;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {home}; proxy_temp_path {home}; fastcgi_temp_path {home};
  uwsgi_temp_path {home}; scgi_temp_path {home};
  server {{
    listen 127.0.0.1:{port} backlog=16384;
    location ~ ^/v1/batches/([^/]+)/cancel$ {{ default_type application/json; return 200 '{job}'; }}
    location ~ ^/v1/batches/([^/]+)$ {{ default_type application/json; return 200 '{finished}'; }}
    location ~ ^/v1/files/([^/]+)/content$ {{ default_type text/plain; alias {files}/$1; }}
    # The body of an upload is read to its end, since it is passed on only then.
    client_max_body_size 0; client_body_buffer_size 256m;
    location = /v1/files {{
      add_header X-Together-File-Id file-1 always; return 302 http://127.0.0.1:{port}/storage/file-1?signature=x;
    }}
    location = /v1/files/file-1/preprocess {{ default_type application/json; return 200 '{{"id":"file-1"}}'; }}
    location /storage/ {{ proxy_pass http://127.0.0.1:{port}/stored/; }}
    location /stored/ {{ return 200; }}
  }}
}}
"""


def nginx() -> str | None:
    """Where nginx is, if it is installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def fast_server(files: Path | None = None) -> Iterator[str]:
    """The base URL of an nginx that runs while the block does; what is in the directory ``files`` are its files."""
    program = nginx()
    assert program is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        configuration = Path(home, "nginx.conf")
        configuration.write_text(
            _CONFIGURATION.format(home=home, port=port, job=_JOB, finished=_FINISHED, files=files or home)
        )
        with subprocess.Popen([program, "-c", str(configuration)], stderr=subprocess.DEVNULL) as server:
            try:
                _await_port(port)
                yield f"http://127.0.0.1:{port}/v1"
            finally:
                server.terminate()


def _await_port(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    message = "nginx did not start"
    raise RuntimeError(message)
