"""Where a run's time went: measured, drawn and in words.

`records` keeps what the workers report; `lanes` adds it up, one lane a worker; `advice` says what would help;
`pictures` draws it as text and SVG, `figures` with matplotlib. Called by `runs`.
"""
