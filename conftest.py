"""What holds for all tests of the workspace."""

from __future__ import annotations

import signal

# A shell that starts a job in the background lets it ignore SIGINT, and so do all its children:
# the tests that press Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
