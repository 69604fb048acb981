"""Steps with a share of the time each, the programs that they start, and one JSON file that is complete at any time."""
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

FULL = 570  # seconds of a whole run
HEAD, TAIL = 30_000, 60_000  # characters of a program's output that are kept in the log
# Children in a process group of their own can be ended with all that they started. They stay within the session of the
# run, so that they also end with it.
OWN_GROUP = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}


class Stopped(Exception):
    """A step that could not give its figures; the text says why."""


class Partial(Exception):
    """A step that gave some of its figures, `value`; the text says what is missing."""

    def __init__(self, value, why):
        super().__init__(why)
        self.value = value


class Done:
    """What a program left: its exit code, or None where it was ended after `seconds`."""

    def __init__(self, code, out, err, seconds):
        self.code, self.out, self.err, self.seconds = code, out, err, seconds

    def why(self):
        if self.code is None:
            return f"stopped after {self.seconds:.0f} s"
        lines = [line.strip() for line in self.err.strip().splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if line.startswith("depthstill: ")), lines[-1] if lines else "")
        return f"exit code {self.code}" + (f": {said[:300]}" if said else "")

    def reason(self):
        return {} if self.code == 0 else {"reason": self.why()}


class Runner:
    """Beside OUT.json, OUT.log has what the programs said."""

    def __init__(self, out, seconds, only=None, after=None):
        self.out, self.only = Path(out).absolute(), only
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.log = self.out.with_suffix(".log")
        self.log.write_text("")
        self.seconds, self.deadline = seconds, time.monotonic() + seconds
        self.work = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        self.result = {"steps": []}
        self.earlier = json.loads(Path(after).read_text()) if after else {"steps": []}
        self.lock, self.here = threading.RLock(), threading.local()
        self.running, self.told = set(), None

    # ---- running things ------------------------------------------------------------------------------------------
    def environment(self, ours):
        return dict(os.environ)

    def call(self, command, limit=math.inf, ours=True, **environment):
        """Done. The limit also ends with the step's or the run's time."""
        limit = min(limit, self.left())
        if limit < 1:
            raise Stopped(self.told or ("the time of the step was over" if self.here.end < self.deadline else
                                        "the time of the whole run was over"))
        command, start = [str(part) for part in command], time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.work,
                                       env={**self.environment(ours), **environment}, **OWN_GROUP)
            with self.lock:
                self.running.add(process)
            try:
                if self.told:  # the signal came between the look at the clock and here
                    raise subprocess.TimeoutExpired(command, 0)
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with self.lock:
                    self.running.discard(process)
                self.end(process)
                process.wait()
            if self.told:
                code = None
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode(errors="replace"))
        done = Done(code, *texts, time.monotonic() - start)
        self.add_to_log(command, environment, done)
        return done

    @staticmethod
    def end(process):
        """And all that it started."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def add_to_log(self, command, environment, done):
        settings = " ".join(f"{key}={value}" for key, value in environment.items())
        text = f"==== {settings} {' '.join(command)[:2000]}\n"
        text += f"==== {'exit code ' + str(done.code) if done.code is not None else 'stopped'}, {done.seconds:.1f} s\n"
        for said in (done.out, done.err):
            if len(said) > HEAD + TAIL:
                said = f"{said[:HEAD]}\n[...]\n{said[-TAIL:]}"
            text += said if not said or said.endswith("\n") else said + "\n"
        with self.lock, open(self.log, "a") as log:
            log.write(text)

    def left(self):
        """Seconds of this thread's step."""
        return min(self.here.end, self.deadline) - time.monotonic()

    def stop(self, number, _frame=None):
        """For signals: ends what runs; the steps under way save what they have."""
        self.told = f"the run was told to stop by {signal.Signals(number).name}"
        self.deadline = time.monotonic()
        for process in list(self.running):
            self.end(process)

    # ---- steps ---------------------------------------------------------------------------------------------------
    def step(self, entry, limit, function):
        """Puts function()'s value under the step's name; null and a reason if it has none."""
        start = time.monotonic()
        self.here.end = min(start + limit, self.deadline)
        entry["reason"] = "was under way when the run was cut off"
        self.save()
        value, why = None, None
        try:
            value = function()
        except Partial as partial:
            value, why = partial.value, str(partial)
        except Stopped as stopped:
            why = str(stopped)
        except Exception as error:  # an error of this script: the other steps still count
            why = f"{type(error).__name__}: {error}"
        with self.lock:
            if value is not None:
                self.result[entry["name"]] = value
            entry.update(ok=why is None, seconds=round(time.monotonic() - start, 1), reason=why)
            if why is None:
                del entry["reason"]
            print(f"{entry['seconds']:6.1f} s  {entry['name']}: {why or 'done'}{counts(value)}", flush=True)
        self.save()

    def run_steps(self, groups):
        """groups: lists of (name, seconds, function), what matters most first. The steps of a group run side by side, as long
        as the longest may. A step may take its seconds (less in a run of less than FULL seconds), and more where more is
        left than the later ones may take. What an earlier run has completed is taken from there."""
        completed = {s["name"]: s for s in self.earlier["steps"] if s["ok"]}
        groups = [[step for step in group if not self.only or step[0] in self.only] for group in groups]
        groups = [group for group in groups if group]
        entries = {name: completed.get(name, {"name": name, "ok": False, "reason": "was not reached"})
                   for group in groups for name, _, _ in group}
        for name, entry in entries.items():
            self.result[name] = self.earlier.get(name)
            if name in completed:
                entry["earlier"] = True
        self.result["steps"] = list(entries.values())
        self.save()
        groups = [[step for step in group if step[0] not in completed] for group in groups]
        groups = [group for group in groups if group]
        seconds = [max(seconds for _, seconds, _ in group) for group in groups]
        for i, group in enumerate(groups):
            limit = seconds[i] * max(self.seconds / FULL, (self.deadline - time.monotonic()) / sum(seconds[i:]))
            if len(group) == 1:
                self.step(entries[group[0][0]], limit, group[0][2])
                continue
            threads = [threading.Thread(target=self.step, args=(entries[name], limit, function))
                       for name, _, function in group]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def save(self):
        with self.lock:
            beside = self.out.with_name(self.out.name + ".tmp")
            beside.write_text(json.dumps(self.result, indent=1) + "\n")
            beside.replace(self.out)


def counts(value):
    """Of tests, for the line about the step."""
    if not isinstance(value, dict) or "passed" not in value:
        return ""
    return f" ({', '.join(f'{value[name]} {name}' for name in ('passed', 'failed', 'skipped'))})"
