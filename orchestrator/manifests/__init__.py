"""What runs the product on Kubernetes and what watches it: objects, alert rules and dashboards,
made from the configuration and the catalogues of metrics. Pure.

Imports whatever it describes: `gateway`, `controller`, `stack`, `pools`, `policy`, `config`.
"""
