"""Stages with a limit each, the programs that they start, and one JSON file that is complete at any time."""
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

HEAD, TAIL = 30_000, 60_000  # characters of a program's output that are kept in the log
# Children in a process group of their own can be ended with all that they started. They stay within the session of the
# run, so that they also end with it.
OWN_GROUP = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}


class Stopped(Exception):
    """A stage that could not give its figures; the text says why."""


class Partial(Exception):
    """A stage that gave some of its figures, `value`; the text says what is missing. `ends`: so do those behind it."""

    def __init__(self, value, why, ends=False):
        super().__init__(why)
        self.value, self.ends = value, ends


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
    """Beside NAME.json in the folder `out`, NAME.log has what the programs said."""

    def __init__(self, name, out, seconds, only=None):
        self.folder_out, self.only = Path(out).absolute(), only
        self.folder_out.mkdir(parents=True, exist_ok=True)
        self.out, self.log = self.folder_out / f"{name}.json", self.folder_out / f"{name}.log"
        self.log.write_text("")
        self.deadline = time.monotonic() + seconds
        self.work = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        self.result = {"stages": []}
        self.lock, self.here = threading.RLock(), threading.local()
        self.running, self.told = set(), None

    # ---- running things ------------------------------------------------------------------------------------------
    def environment(self, ours):
        return dict(os.environ)

    def call(self, command, limit=math.inf, ours=True, **environment):
        """Done. The limit also ends with the step's or the run's time."""
        limit = min(limit, self.left())
        if limit < 1:
            raise Stopped(self.told or ("the time of the stage was over" if self.here.end < self.deadline else
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
        self.here.said = done.err
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
        """Seconds of this thread's stage."""
        return min(self.here.end, self.deadline) - time.monotonic()

    def over(self):
        return time.monotonic() > self.deadline - 1

    def stop(self, number, _frame=None):
        """For signals: ends what runs; the stages under way save what they have."""
        self.told = f"the run was told to stop by {signal.Signals(number).name}"
        self.deadline = time.monotonic()
        for process in list(self.running):
            self.end(process)

    # ---- stages --------------------------------------------------------------------------------------------------
    def stage(self, entry, limit, function):
        """Puts function()'s value under the stage's name; null and a reason if it has none. What the end of the run cuts
        off has not failed."""
        start = time.monotonic()
        self.here.end, self.here.said = min(start + limit, self.deadline), ""
        entry["reason"] = "was under way when the run was cut off"
        self.save()
        value, why = None, None
        try:
            value = function()
        except Partial as partial:
            value, why = partial.value, str(partial)
            if partial.ends:
                self.told = f"{entry['name']} failed"
                self.deadline = time.monotonic()
        except Stopped as stopped:
            why = str(stopped)
        except Exception as error:  # an error of this script: the other stages still count
            why = f"{type(error).__name__}: {error}"
        with self.lock:
            if value is not None:
                self.result[entry["name"]] = value
            cut_off = why is not None and self.over() and not (self.told or "").startswith(entry["name"])
            entry.update(state="ok" if why is None else "not reached" if cut_off else "failed",
                         seconds=round(time.monotonic() - start, 1), reason=why)
            if why is None:
                del entry["reason"]
            print(f"{entry['seconds']:6.1f} s  {entry['state']:11}  {entry['name']}: {why or 'done'}{counts(value)}", flush=True)
        self.save()

    def run_stages(self, groups):
        """groups: lists of (name, seconds, function), what matters most first. The stages of a group run side by side. True
        where none has failed."""
        groups = [[stage for stage in group if not self.only or stage[0] in self.only] for group in groups]
        entries = {name: {"name": name, "state": "not reached", "reason": "the time was over before"}
                   for group in groups for name, _, _ in group}
        self.result.update({name: None for name in entries}, stages=list(entries.values()))
        self.save()
        for group in filter(None, groups):
            if self.over():
                for entry in entries.values():
                    if "seconds" not in entry and self.told:
                        entry["reason"] = self.told
                break
            threads = [threading.Thread(target=self.stage, args=(entries[name], limit, function))
                       for name, limit, function in group]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.save()
        return all(entry["state"] != "failed" for entry in entries.values())

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
