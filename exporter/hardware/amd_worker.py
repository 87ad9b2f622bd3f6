"""The worker process that reads AMD devices; the protocol is that of `serving`.

Arguments: the roots of sysfs and procfs. A file of sysfs can block while its device is being reset, and an
`fdinfo` waits for locks of the device, so they are read where the supervisor can abandon them.
"""

from __future__ import annotations

import sys

from exporter.hardware import amd, serving


def main() -> None:
    """Serve the supervisor until it closes stdin, a fatal error comes, or the process is killed."""
    channel = serving.open_channel()
    driver = serving.start(channel, lambda: amd.Driver(sys.argv[1], sys.argv[2]))
    serving.serve(channel, driver)


if __name__ == "__main__":
    main()
