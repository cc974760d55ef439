"""What tests of servers share."""

from __future__ import annotations

import time
from typing import Any


def wait_until_ready(client: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while (found := client.get("/health/ready")).status_code != 200:
        assert found.json()["error"]["code"] == "loading", found.text
        assert time.monotonic() < end
        time.sleep(0.05)
