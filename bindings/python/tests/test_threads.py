"""Threads, signals, and the interpreter that goes on meanwhile."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import EXTRACTOR, load, STORIES

import ternary_lm

OPTIONS = {"max_tokens": 40, "temperature": 0.8}


def test_threads_share_a_model(model, stories):
    for shared in (model, stories):
        alone = [shared.generate("Once upon a time", seed=seed, **OPTIONS) for seed in range(6)]
        with ThreadPoolExecutor(4) as pool:
            together = pool.map(lambda seed: shared.generate("Once upon a time", seed=seed, **OPTIONS), range(6))
            assert list(together) == alone
        assert len(set(alone)) > 1


def test_threads_do_not_share_a_session(stories):
    session, errors = stories.session(), []
    generation = session.generate("Once upon a time", max_tokens=300, ignore_eos=True)

    def other():
        try:
            session.feed("more")
        except ternary_lm.Busy as error:
            errors.append(error)

    next(generation)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(errors) == 1
    # Several threads may step one generation; none gets what another got, and nothing is lost.
    pieces, lock = [], threading.Lock()

    def step():
        while True:
            try:
                piece = next(generation)
            except StopIteration:
                return
            except ternary_lm.Busy:
                continue
            with lock:
                pieces.append(piece)

    first = generation.text
    threads = [threading.Thread(target=step) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted("".join(pieces)) == sorted(generation.text[len(first):]) and generation.finish_reason == "length"
    session.feed("more")


def test_other_threads_run_while_a_model_computes(stories):
    """The lock of the interpreter is free: a thread counts while one call computes."""
    counted, done = 0, threading.Event()

    def compute():
        stories.embed(["Once upon a time there was a dog. " * 40] * 8)
        done.set()

    thread = threading.Thread(target=compute)
    thread.start()
    while not done.is_set():
        counted += 1
        time.sleep(0.0005)
    thread.join()
    assert counted > 3


def test_threads_share_an_extractor():
    extractor = ternary_lm.Extractor(EXTRACTOR)
    texts = [f"play song number {n} by miles davis" for n in range(40)]
    alone = [repr(found) for found in extractor.extract_many(texts)]
    with ThreadPoolExecutor(4) as pool:
        assert [repr(found) for found in pool.map(extractor.extract, texts)] == alone


# Each says that it begins, and then computes for longer than the test waits.
LONG = {
    "generating": "model.generate('Once', max_tokens=10**9, ignore_eos=True)",
    "iterating": "[piece for piece in model.stream('Once', max_tokens=10**9, ignore_eos=True)]",
    "reading": "model.generate('Once upon a time there was a dog. ' * 400000)",
    "scoring": "model.score('Once upon a time there was a dog. ' * 200000, [' a', ' b'])",
    "embedding": "model.embed(['Once upon a time there was a dog. ' * 2000] * 100)",
    "logits": "model.logits('Once upon a time there was a dog. ' * 2000)",
}


@pytest.mark.skipif(sys.platform == "win32", reason="a console's Ctrl-C goes to all of its processes")
@pytest.mark.parametrize("what", LONG)
def test_ctrl_c(what):
    program = f"""
        import sys, ternary_lm
        model = ternary_lm.Model()
        print("begins", flush=True)
        try:
            {LONG[what]}
        except KeyboardInterrupt:
            # The model is as it was.
            print("interrupted", len(model.tokenize(model.generate("Once", max_tokens=4))), flush=True)
            sys.exit(7)
        print("ended", flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "begins\n"
        time.sleep(0.3)
        assert process.poll() is None, "it was to compute for longer"
        process.send_signal(signal.SIGINT)
        # A limit against a hang, not a measurement.
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 7 and out.startswith("interrupted"), out


def test_a_session_survives_an_interrupt():
    """A handler that raises ends the reading of a long prompt; the session is free again and holds a part."""
    program = """
        import os, signal, threading, ternary_lm
        model = ternary_lm.Model()
        session = model.session()
        class Now(Exception): pass
        def raise_now(*_): raise Now
        signal.signal(signal.SIGUSR1, raise_now)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        try:
            session.feed("Once upon a time there was a dog. " * 400000)
            print("read it all")
        except Now:
            length = len(session)
            session.clear()
            print("free", session.generate("Once", max_tokens=4).finish() != "")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "free True\n", done.stdout + done.stderr


def test_a_process_ends_while_a_thread_computes():
    program = """
        import threading, time, ternary_lm
        model = ternary_lm.Model()
        run = lambda: model.generate("Once", max_tokens=10**9, ignore_eos=True)
        threading.Thread(target=run, daemon=True).start()
        time.sleep(0.2)
        print("ends", flush=True)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


def test_no_lock_where_python_has_none():
    import sysconfig

    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python has a global lock")
    assert not sys._is_gil_enabled()


def test_threads_do_not_change_a_text():
    expected = load(STORIES, 1).generate("Once upon a time", seed=3, **OPTIONS)
    assert load(STORIES, 2).generate("Once upon a time", seed=3, **OPTIONS) == expected
