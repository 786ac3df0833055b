"""Why a command ended: facts in, a `Verdict` out. Pure, except that it reads the kernel's log; what users see of it is
in `report`.
"""
