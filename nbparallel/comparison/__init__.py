"""The same map, serially and in parallel: timed, its answers compared, and the outcome in words.

`compare` is the front; `measuring` runs one method, `quiet` hides what its repetitions print, `status` says how far it
is; `answers` compares results, `verdict` judges figures, both without a clock; `result` is what a user gets, drawn by
`pictures` and, with matplotlib, by `figures`. Called by the package's front and by `notebook`.
"""
