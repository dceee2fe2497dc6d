"""vpnd that hears of changes from the kernel only: `python -m tests.faults.unwatchful run` is `vpnd run`.

Every few seconds vpnd tries again what this machine has refused. Here it does not, so that what comes back
was seen at once.
"""

from __future__ import annotations

from vpnd.daemon.main import main
from vpnd.daemon.upkeep import repairs

if __name__ == "__main__":
    repairs.REPAIR_EVERY = 1e6
    main()
