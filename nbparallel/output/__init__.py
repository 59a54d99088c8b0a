"""What tasks say, on its way to the cell: what is shown when, how it is shown here, and the bars among it.

`outbox` decides what is shown, kept or folded; `showing` shows it by this process's own means; `inner` holds the bars
of tqdm within tasks. Called by `runs` and `progress`.
"""
