"""Local workers: who gets which tasks, and how they travel there and back.

`scheduler` is the pure table of rules and `manager` performs it (with `connection`, one worker's parent end); `process`
and `nursery` start workers, `worker` is one (with `relay` for its prints and `streams` for its random numbers); `wire`
and `page` are what both sides share, `environment` what a worker copies of the notebook; `work` holds the interfaces
to the front and to the backends. This file imports none of them: a worker that starts loads only its half.
"""
