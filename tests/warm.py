"""A Python that has imported the package: most of the time of a short process is that of its imports.

A server, which :func:`conftest.warm_python` starts, imports the package. Then ``python -IS tests/warm.py SOCKET …``
behaves as ``python …``, and starts in 20 ms because it imports little: it has the server fork a process with its own
arguments, environment, directory and standard streams. That process ends as any other: the interpreter is finalized.
"""

import marshal
import os
import signal
import socket
import sys

_WORD = 8
"""Number of bytes of the numbers that are sent: the length of a request, a process id, an exit code."""


def _call(address: str, arguments: list[str]) -> int:
    """Have a process forked, pass on the signals that ask it to end, and return its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        request = marshal.dumps((arguments, os.getcwd(), dict(os.environ)))
        signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until they can be passed on: the process may run before
        socket.send_fds(server, [len(request).to_bytes(_WORD, "big")], [0, 1, 2])
        server.sendall(request)
        process_id = int.from_bytes(server.recv(_WORD, socket.MSG_WAITALL), "big")
        for number in signals:
            signal.signal(number, lambda number, _: os.kill(process_id, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return int.from_bytes(server.recv(_WORD, socket.MSG_WAITALL), "big")


def _serve(listener: socket.socket) -> list[str]:
    """Fork a process for each request; return its arguments in that process, and nowhere else."""
    signal.signal(signal.SIGCHLD, lambda *_: os.waitpid(-1, 0))
    while True:
        caller, _ = listener.accept()
        if os.fork() == 0:
            break
        caller.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(caller, _WORD, 3)
    arguments, directory, environment = marshal.loads(caller.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
    if process_id := os.fork():
        caller.sendall(process_id.to_bytes(_WORD, "big"))
        code = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
        caller.sendall((code if code >= 0 else 128 - code).to_bytes(_WORD, "big"))
        os._exit(0)
    caller.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Again, because those of the server know what its own files can do.
    sys.stdin = sys.__stdin__ = open(0, closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    return arguments


def _become(arguments: list[str]) -> None:
    """Run what ``python`` would run with these arguments: options, and ``-m MODULE …`` or ``FILE …``."""
    import runpy
    import warnings

    for action in filter(None, os.environ.get("PYTHONWARNINGS", "").split(",")):
        warnings.simplefilter(action)
    while arguments[0] == "-W":
        warnings.simplefilter(arguments[1])
        arguments = arguments[2:]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(arguments[0])
        runpy.run_path(arguments[0], run_name="__main__")


def _import_the_package() -> None:
    import pkgutil
    from importlib import import_module

    import together_batches.cli

    for name in ("together_batches.emulator", "together_batches.sync", "rich.live", "rich.table", "rich.text"):
        import_module(name)
    for module in pkgutil.walk_packages(together_batches.cli.__path__, "together_batches.cli."):
        import_module(module.name)


if __name__ == "__main__":
    if sys.argv[1].isdecimal():
        _import_the_package()
        with socket.socket(fileno=int(sys.argv[1])) as listening:
            wanted = _serve(listening)
        _become(wanted)
    else:
        sys.exit(_call(sys.argv[1], sys.argv[2:]))
