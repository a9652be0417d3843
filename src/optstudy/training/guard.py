"""Starts a program in a new process group, and kills the whole group when the program or its watcher ends.

It is run by its path, with the command as arguments; standard library only. The program's processes must
outlive neither the program nor its watcher. The watcher holds this process's standard input: when it is
closed, for example because the watcher was killed, the group is killed. SIGTERM is passed on to the group.
The exit code is the program's; 128 plus the signal number if a signal ended it; 127 if it cannot be started.
"""

import os
import signal
import subprocess
import sys
import threading

NOT_STARTED = 127


def _main() -> None:
    child: subprocess.Popen[bytes] | None = None

    def tell(number: int) -> None:
        try:
            if child is not None:
                os.killpg(child.pid, number)
        except ProcessLookupError:
            pass

    def asked(number: int, _: object) -> None:
        if child is None:
            os._exit(128 + number)
        tell(number)

    def watch() -> None:
        while os.read(0, 1):
            pass
        tell(signal.SIGKILL)
        os._exit(128 + signal.SIGKILL)

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a launcher's workers ignore it; the program need not
    try:
        child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        sys.stderr.write(f"{sys.argv[1]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(NOT_STARTED)
    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    tell(signal.SIGKILL)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    _main()
