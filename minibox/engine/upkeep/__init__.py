"""What reads both stores and containers: `prune`, `system df`, `system check`, who uses what, removal of images,
networks and volumes.
"""
