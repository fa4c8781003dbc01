# Copyright Rekindle contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes what a run of ansible-playbook does as JSON lines, for a worker that reads them by offset.

Each line is one write to a file that is only appended to, so a reader sees whole lines or none.
What a task with no_log says does not stand here. A run that has no recap has not ended well,
whatever its exit code is.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: rekindle_events
type: notification
short_description: what a run does, as JSON lines
description:
  - Appends plays, tasks, failures and the recap to the file that REKINDLE_EVENTS names.
requirements:
  - REKINDLE_EVENTS in the environment
"""

import json
import os

from ansible import __version__
from ansible.playbook.block import Block
from ansible.plugins.callback import CallbackBase

# In characters. The whole of it stands in the log.
LONGEST = 1000
# Where modules and the connection put what went wrong, the most telling first.
TELLING = ("msg", "stderr", "module_stderr", "stdout", "module_stdout", "exception")


def cut(text):
    """One line of limited length."""
    text = " ".join(str(text).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def tasks_of(block):
    """How many tasks a block has, with those of the blocks in it."""
    count = 0
    for item in list(block.block) + list(block.always):
        if isinstance(item, Block):
            count += tasks_of(item)
        elif item.action not in ("meta", "ansible.builtin.meta"):
            count += 1
    return count


def tasks_of_play(play):
    facts = 0 if play.gather_facts is False else 1
    return facts + sum(tasks_of(block) for block in play.compile())


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "rekindle_events"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(os.environ["REKINDLE_EVENTS"], flags, 0o600)
        self._n = 0
        self._of = None

    def _write(self, event, **fields):
        line = json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n"
        data = line.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._file, data) :]

    def v2_playbook_on_start(self, playbook):
        self._n = 0
        try:
            # What is included while the run goes on is not known yet.
            self._of = sum(tasks_of_play(play) for play in playbook.get_plays())
        except Exception:
            self._of = None
        self._write("start", ansible=__version__)

    def v2_playbook_on_play_start(self, play):
        try:
            inventory = play.get_variable_manager()._inventory
            hosts = len(inventory.get_hosts(play.hosts))
        except Exception:
            hosts = None
        self._write("play", name=cut(play.get_name()), hosts=hosts)

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._n += 1
        of = None if self._of is None else max(self._of, self._n)
        self._write("task", n=self._n, of=of, name=cut(task.get_name()))

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._trouble("failed", result, ignored=bool(ignore_errors))

    def v2_runner_on_unreachable(self, result):
        self._trouble("unreachable", result)

    def v2_playbook_on_stats(self, stats):
        hosts = {host: stats.summarize(host) for host in sorted(stats.processed)}
        self._write("recap", hosts=hosts)

    def _trouble(self, event, result, **fields):
        self._write(
            event,
            host=result._host.get_name(),
            task=cut(result._task.get_name()),
            message=self._message(result),
            **fields,
        )

    def _message(self, result):
        said = result._result
        for one in said.get("results") or []:
            if isinstance(one, dict) and (one.get("failed") or one.get("unreachable")):
                said = one
                break
        if result._task.no_log or "censored" in said:
            return "(hidden by no_log)"
        words = [str(said[key]).strip() for key in TELLING if said.get(key)]
        # "non-zero return code" alone helps nobody.
        return cut(": ".join(words[:2])) or "(it said nothing)"
