"""What would make a run faster, in words: rules over the figures of its `lanes`. Called by `recorded`.

Each rule looks at what was measured and says it together with the advice. A run that is near what its workers can do
gets none.
"""

from __future__ import annotations

from dataclasses import dataclass

from nbparallel.timeline.lanes import Timeline
from nbparallel.words import duration, human_size

#: Nothing is said of a run that was shorter, in seconds: too little to gain.
SHORTEST = 0.01
#: A share of the workers' time that is worth a word.
NOTABLE = 0.15
#: Bytes of inputs or results from which on their weight may be what takes time.
HEAVY_BYTES = 10_000_000
#: Processor time says something from so many seconds on: some systems count it in hundredths.
LEAST_CPU_SECONDS = 0.05
#: Tasks of this length, in seconds, are no longer tiny: a chunk of one costs less than a tenth of it.
TINY_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a run ran.

    Attributes:
        backend: its name.
        cores: how many this process may use.
        reason: which bound says so.
        chunksize: as asked for; `None` where it was measured.
        locked: whether threads take turns at Python's lock.
    """

    backend: str
    cores: int
    reason: str
    chunksize: int | None = None
    locked: bool = True


def advise(timeline: Timeline, setting: Setting) -> list[str]:
    """Return what was noticed, the most telling first, each with what would help."""
    if not timeline.lanes or timeline.seconds < SHORTEST or setting.backend == "serial":
        return []
    copies = _copies(timeline)
    found = [_start(timeline), copies or _tiny(timeline, setting), _cores(timeline, setting)]
    found += [_threads_each(timeline, setting), _few(timeline), _tail(timeline)]
    return [advice for advice in found if advice]


def _start(timeline: Timeline) -> str | None:
    before = timeline.first - timeline.lead
    if before < 0.3 * timeline.seconds:
        return None
    return (
        f"{duration(before)} of {duration(timeline.seconds)} passed before the workers were ready: the next map finds "
        "them warm."
    )


def _tiny(timeline: Timeline, setting: Setting) -> str | None:
    mean = timeline.compute / timeline.tasks
    after_start = timeline.seconds - (timeline.first - timeline.lead)
    if mean > TINY_SECONDS or timeline.tasks <= timeline.width or timeline.compute > 1.2 * after_start:
        return None
    told = (
        f"Tasks of {duration(mean)} are tiny: all of them are {duration(timeline.compute)} of work, and to send them "
        "and their results took the rest."
    )
    if setting.chunksize is not None and setting.chunksize * mean < TINY_SECONDS:
        return f"{told} They travelled {setting.chunksize} at a time: leave chunksize to 'auto'."
    return f"{told} Put more work into each task, or stay serial."


def _cores(timeline: Timeline, setting: Setting) -> str | None:
    if timeline.compute < LEAST_CPU_SECONDS:
        return None
    lanes, waits = len(timeline.lanes), timeline.waits
    share = min(1.0, timeline.own / timeline.compute)
    used = timeline.own / timeline.seconds
    never_waits = waits is not None and waits < 0.5 * timeline.tasks
    if setting.backend == "threads" and setting.locked and lanes > 1 and share < 0.8 and 0.5 < used < 1.3:
        return (
            f"The threads used {used:.1f} cores together: Python code takes turns at the interpreter's lock. If the "
            "tasks compute, processes (backend='processes') do so side by side."
        )
    if lanes > setting.cores and share < 0.8 and (never_waits or used > 0.7 * setting.cores):
        cores = "one core" if setting.cores == 1 else f"{setting.cores} cores"
        return (
            f"{lanes} workers shared {cores} ({setting.reason}): each had one for {share:.0%} of its time. More "
            "workers than cores help only tasks that wait."
        )
    if setting.cores == 1 and share > 0.8:
        return f"This process may use one core ({setting.reason}): nothing computes side by side here."
    if never_waits and share < 0.6 and not _has_threads(timeline):
        return f"Each worker had a core for {share:.0%} of its time: other programs use the cores too."
    if waits is not None and waits >= timeline.tasks > lanes and share < 0.3 and not _has_threads(timeline):
        return (
            f"The tasks used a core for {share:.0%} of their time and waited for the rest of it: more workers wait for "
            "more files or servers at once, and backend='threads' will do."
        )
    return None


def _has_threads(timeline: Timeline) -> bool:
    return timeline.cpu > 1.3 * timeline.own > 1.3 * LEAST_CPU_SECONDS


def _copies(timeline: Timeline) -> str | None:
    if timeline.send < NOTABLE * (timeline.send + timeline.compute):
        return None
    if max(timeline.sent, timeline.returned) < HEAVY_BYTES:
        return None
    if timeline.sent >= timeline.returned:
        size, each = human_size(timeline.sent), human_size(timeline.sent // timeline.tasks)
        return (
            f"{size} of inputs were copied to the workers, {each} a task; they waited {duration(timeline.send)} for "
            "that. A large array that the function names as a global travels once to each worker; or let each task "
            "load its part."
        )
    size, each = human_size(timeline.returned), human_size(timeline.returned // timeline.tasks)
    return (
        f"{size} of results were copied back, {each} a task; the workers waited {duration(timeline.send)} for that. "
        "Have the tasks return less: a sum, a part, the name of a file."
    )


def _threads_each(timeline: Timeline, setting: Setting) -> str | None:
    if not _has_threads(timeline):
        return None
    each, lanes = timeline.cpu / timeline.own, len(timeline.lanes)
    if lanes * each < 1.2 * setting.cores:
        return None
    return (
        f"Each task kept {each:.1f} threads busy (BLAS, OpenMP): {lanes} workers × {each:.1f} on {setting.cores} "
        f"{'core' if setting.cores == 1 else 'cores'}. Hold the tasks to one thread, or use fewer workers."
    )


def _few(timeline: Timeline) -> str | None:
    if timeline.tasks >= timeline.width or timeline.efficiency > 0.8:
        return None
    tasks = "One task keeps one" if timeline.tasks == 1 else f"{timeline.tasks} tasks keep at most {timeline.tasks}"
    return f"{tasks} of {timeline.width} workers busy: cut the work into more tasks."


def _tail(timeline: Timeline) -> str | None:
    lanes = len(timeline.lanes)
    idle = timeline.tail()
    if lanes < 2 or timeline.share(idle) < NOTABLE:
        return None
    index, seconds = timeline.last_task
    others = (timeline.compute - seconds) / max(1, timeline.tasks - 1)
    waited = f"the others waited for it at the end, {duration(idle)} in all"
    if lanes == 2:
        waited = f"the other worker waited {duration(idle)} for it at the end"
    if seconds >= 2 * others:
        return (
            f"Task {index} took {duration(seconds)}, the others {duration(others)} on average, and {waited}. Let the "
            "long tasks come first, or cut them up."
        )
    if timeline.last_count > 1:
        return f"The last chunk held {timeline.last_count} tasks, and {waited}. A smaller chunksize evens out the end."
    return None
