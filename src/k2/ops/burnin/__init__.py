"""The burn-in: the whole platform under load for hours, every process watched, judged against budgets in the end.

`folder.py` is what stands on disk, so that a run outlives its own end; `stage.py` starts the platform and its
exchanges; `sampler.py` looks at them; `watch.py` is the loop; `proof.py` is the check of all data in the end;
`summary.py`, `slope.py` and `verdict.py` make figures of samples; `outcome.py`, `page.py` and `chart.py` the report.
Whatever is known of a run is in its folder: the report can be made anew from there at any time.
"""


class BurninError(Exception):
    """The run cannot begin, go on or be judged; the text says why and what to do."""
