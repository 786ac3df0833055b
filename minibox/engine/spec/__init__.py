"""From options and an image's config to an OCI Spec and a Plan: mounts, users, environment, devices, limits, ports,
health check. Changes nothing; the Plan's operations are in `minibox.plan`.
"""
