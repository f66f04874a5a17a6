"""Several processes behind one port: the desk has links, audits and pages, workers the traffic of their keys."""
