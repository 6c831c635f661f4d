"""The first signal is an interruption, an echo of it is nothing, a second ends the process; ignored ones stay so."""

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import signal, sys, time
from orchestration.host import signals
signals._ECHO_SECONDS = float(sys.argv[1])
if "ignored" in sys.argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
heard = signals.Signals()
heard.listen()
try:
    {body}
except KeyboardInterrupt:
    print("cleaning", flush=True)
    end = time.monotonic() + 60
    while "echo" not in sys.argv and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    print(heard.exit_status, flush=True)
    sys.exit(heard.exit_status)
"""
WAIT = "print('ready', flush=True); time.sleep(60)"
# What `ray.init` does.
AS_RAY = """with signals.keeping_signals():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
    print('ready', flush=True); time.sleep(60)"""
IN_RAY = """with signals.keeping_signals():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        print('ready', flush=True); time.sleep(60)"""


def begin(body, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("body", [WAIT, AS_RAY, IN_RAY])
def test_the_first_is_an_interruption_and_its_echo_is_nothing(number, body):
    with begin(body, "60", "echo") as process:
        process.send_signal(number)
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(number)
        output, errors = process.communicate()
    assert (process.returncode, output, errors) == (128 + number, f"{128 + number}\n", "")


def test_a_second_ends_it_at_once(tmp_path):
    with begin(WAIT, "0") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert (process.returncode, output) == (143, "")
    assert errors == "\nended at once, without cleaning up\n"


def test_what_the_caller_ignores_stays_ignored():
    """As a shell does for what it runs in the background."""
    with begin(WAIT, "60", "echo", "ignored") as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.communicate()[0] == f"cleaning\n{128 + signal.SIGTERM}\n"
