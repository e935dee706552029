"""Watching the platform as an operator's Prometheus and Alertmanager do.

`alerts.py` declares every alert. `rules.py` and `routing.py` make the configuration of the two programs from that; the
files in deploy/ are what they give. `watch.py` runs both programs over one running platform, with time divided, and is
told by Alertmanager what fires:

    with Watch(config, folder) as watch:
        watch.settle()                                     # nothing fires but the Watchdog
        begin = watch.now()
        ...                                                # break something
        fired = watch.wait_fired("GapOpen", begin, 60, exchange="kraken")
        ...                                                # put it right
        watch.wait_cleared("GapOpen", fired.at, 60, exchange="kraken")

Needs the programs `prometheus` and `alertmanager` (Debian: `apt-get install prometheus prometheus-alertmanager`).
"""
