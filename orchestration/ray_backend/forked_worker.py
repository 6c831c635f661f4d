"""What Ray runs to start a worker: it asks the fork server for a process that does the worker's part, and ends.

Where no server answers, this process becomes the worker, as Ray would have had it.
"""

import json
import os
import socket
import sys

ADDRESS = "VOCABSEM_FORK_SERVER"  # of the server's socket
USUAL_WORKER = "VOCABSEM_RAY_WORKER"  # Ray's own script
FORKED = b"forked"  # the server's answer


def main() -> None:
    """Ask for a worker with this process's arguments, environment, folder and output."""
    arguments = [os.environ[USUAL_WORKER], *sys.argv[1:]]
    asked = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(os.environ[ADDRESS])
            data = json.dumps(asked).encode()
            sent = socket.send_fds(server, [data], [0, 1, 2])
            server.sendall(data[sent:])
            server.shutdown(socket.SHUT_WR)
            if server.recv(len(FORKED)) == FORKED:
                return
    except OSError:
        pass
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
