"""Time to first page and time to first token of the Streamlit page.

    python perf/app.py [--asks 20] [--python PATH] [--start-limit 30] [--token-limit 0.5]

Runs `streamlit run hf_space/app.py` in this workspace and submits the task's example in Chromium (extra `browser`),
each time in a new session. Exits with 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
WAIT_MS = 120_000
IDLE_APP = '[data-testid="stApp"][data-test-script-state="notRunning"]'
FIRST_TOKEN = """button => new Promise(resolve => {
    const texts = () => [...document.querySelectorAll('[data-testid="stText"]')];
    const hasToken = () => texts().some(element => /[^…\\s]/.test(element.innerText));
    let began = 0;
    const observer = new MutationObserver(() => {
        if (hasToken()) { observer.disconnect(); resolve((performance.now() - began) / 1000); }
    });
    observer.observe(document.body, {childList: true, subtree: true, characterData: true});
    began = performance.now();
    button.click();
})"""


def start_server(python: str, port: int) -> tuple[subprocess.Popen[bytes], float]:
    """Start the page's server; return it and the seconds until its health check passed."""
    command = [python, "-m", "streamlit", "run", "hf_space/app.py", "--server.port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/_stcore/health"):
            return process, time.perf_counter() - began
        time.sleep(0.05)
    raise SystemExit("perf: the page's server ended before it answered; run `streamlit run hf_space/app.py` to see why")


def time_to_first_token(page: Any, url: str) -> float:
    """Submit the example in a new session; return the seconds from the click to the first token."""
    page.goto(url)
    page.get_by_role("button", name="Use the example").click()
    page.wait_for_function("document.querySelector('textarea')?.value")
    page.locator(IDLE_APP).wait_for()  # the page has finished rendering
    seconds: float = page.get_by_role("button", name="Ask", exact=True).evaluate(FIRST_TOKEN)
    page.get_by_role("button", name="Rate", exact=True).wait_for()  # the answer is complete: the engine is idle again
    return seconds


def main() -> int:
    """Measure and print; return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--asks", type=int, default=20, help="requests to time")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the page")
    parser.add_argument("--start-limit", type=float, default=30.0, help="seconds to the first page")
    parser.add_argument("--token-limit", type=float, default=0.5, help="seconds to the first token, 95th percentile")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    port = free_port()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    url, began = f"http://localhost:{port}", time.perf_counter()
    process, healthy_s = start_server(options.python, port)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(WAIT_MS)
            page.goto(url)
            ready, alert = page.get_by_role("button", name="Use the example"), page.get_by_test_id("stAlert")
            ready.or_(alert).first.wait_for()
            if not ready.count():
                raise SystemExit(f"perf: {alert.inner_text()}")
            page_s = time.perf_counter() - began
            print(f"start to healthy {healthy_s:.1f} s, to the page with its model {page_s:.1f} s (browser included)")
            first_s = time_to_first_token(page, url)
            times_s = sorted(time_to_first_token(page, url) for _ in range(options.asks))
            browser.close()
    finally:
        process.terminate()
        process.wait()
    p95_s = times_s[max(0, -(-len(times_s) * 95 // 100) - 1)]
    print(
        f"click to first token: {first_s:.2f} s for the first request; then over {len(times_s)} requests median "
        f"{statistics.median(times_s):.2f} s, 95th percentile {p95_s:.2f} s, worst {times_s[-1]:.2f} s"
    )
    return int(page_s > options.start_limit or p95_s > options.token_limit)


if __name__ == "__main__":
    raise SystemExit(main())
