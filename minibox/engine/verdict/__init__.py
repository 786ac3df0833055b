"""Why a command ended: facts -> verdict. Pure, but for reading the kernel's log."""
