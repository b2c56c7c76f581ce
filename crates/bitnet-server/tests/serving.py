"""A server with the model that comes with the program, on a free port, for the checks with official clients."""

import os
import re
import signal
import subprocess
import urllib.request

KEY = "a key for this test"
MODEL = "tiny-stories-ttt"


def start(program, *more, template="chatml"):
    env = {name: value for name, value in os.environ.items() if not name.startswith("BITNET_")}
    env["BITNET_API_KEY"] = KEY
    args = [program, "serve", "--port", "0", "--template", template, "--quiet", *more]
    server = subprocess.Popen(args, stdout=subprocess.PIPE, text=True, env=env)
    line = server.stdout.readline()
    found = re.search(r"http://\S+/v1", line)
    assert found, f"no address in {line!r}"
    return server, found.group()


def metric(url, name):
    request = urllib.request.Request(url.removesuffix("/v1") + "/metrics", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
    return float(next(line.split(" ")[1] for line in text.splitlines() if line.startswith(name + " ")))


def refused(kind, call, **expected):
    """`call` fails with an error of `kind` that has the `expected` fields."""
    try:
        call()
    except kind as error:
        for name, value in expected.items():
            assert getattr(error, name) == value, (name, getattr(error, name), value)
        return error
    raise AssertionError(f"{kind.__name__} was expected")


def end(server):
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=30) == 0, "it did not end well"
