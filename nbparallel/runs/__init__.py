"""One call of the front and what becomes of it: its inputs, tasks, results and failures.

`execution` is what every call does; `recorded` adds the times, `run` the results of a map, `stream` those of an endless
one; `calls` are single ones. `failures` and `mends` say what went wrong. Called by `mapping`, `pool` and `executor`.
"""
