"""What needs both the stores and the containers: `prune`, `system df`, `system check`, and removing images, networks
and volumes that may be in use. Reports on one container belong in `report`.
"""
