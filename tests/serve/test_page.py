"""The page in headless Chromium against a server of made-up numbers: every state, keys, addresses, downloads."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve import page_server
from tests.serve.page_server import SEQUENCE, STATIC, Fake

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_BROWSER = (
    "no browser: the tests of the page need Chromium (apt-get install chromium) and the Python package playwright"
)
REGION = "chr1:10,001-15,000"
PAINTED = """() => {
  const found = [], walk = (node) => { for (const each of node.querySelectorAll("*")) {
    if (each.shadowRoot) walk(each.shadowRoot);
    if (each.tagName === "CANVAS" && each.width && each.height) found.push(each); } };
  walk(document);
  const ink = (each) => each.getContext("2d").getImageData(0, 0, each.width, each.height).data.some(Boolean);
  return found.filter(ink).length;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start one browser; it ends with this file, because its event loop would be in the way of others."""
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    playwright = pytest.importorskip("playwright.sync_api", reason=NO_BROWSER)
    with playwright.sync_playwright() as engine:
        found = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Fake]:
    server = page_server.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running: Fake) -> Fake:
    running.reset()
    return running


@pytest.fixture
def visit(browser: Any, server: Fake) -> Iterator[Callable[..., Any]]:
    """Open the page; afterwards: no request left this machine, nothing was complained about."""
    contexts, foreign, complaints = [], [], []

    def opened(address: str = "", *, width: int = 1280, state: str = "", **more: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: own(request.url) or foreign.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        page.goto(server.url + "/" + address)
        if state:
            wait(page, state)
        return page

    def own(url: str) -> bool:
        return url.startswith((server.url, "data:", "blob:"))

    yield opened
    for context in contexts:
        context.close()
    assert foreign == []
    assert [text for text in complaints if "Failed to load resource" not in text] == []


def wait(page: Any, state: str) -> None:
    page.wait_for_selector(f'body[data-state="{state}"]')


def until(page: Any, holds: str) -> None:
    """Wait until an expression holds; the page's own policy forbids what Playwright does for that."""
    for _ in range(100):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{holds}: never")


def ask(page: Any, text: str, state: str = "done") -> None:
    page.fill("#box", text)
    page.click("#run")
    wait(page, state)


def says(page: Any, part: str, at: str) -> None:
    assert part in page.inner_text(at)


def downloaded(page: Any, kind: str) -> tuple[str, str]:
    with page.expect_download() as found:
        page.get_by_role("button", name=kind, exact=True).click()
    return found.value.suggested_filename, Path(found.value.path()).read_text()


def test_vendored_file_is_the_unmodified_release_and_own_code_is_small() -> None:
    found = hashlib.sha256((STATIC / "igv.min.js").read_bytes()).hexdigest()
    assert found == "87b991ae2a720978172e269dd5127c495e56df5af31144dff19c83124e2f5744"
    assert "DOMPurify" in (STATIC / "igv.LICENSE.txt").read_text()
    own = sum(each.stat().st_size for each in STATIC.iterdir() if not each.name.startswith("igv."))
    assert own <= LIMIT
    for each in STATIC.glob("*.*"):
        assert not re.search(r"(src|href)=.https?://", each.read_text()) or each.name.startswith("igv.")


LIMIT = 70_000


def test_empty_page_explains_itself_and_its_examples_work(visit: Any, server: Fake) -> None:
    page = visit(state="empty")
    says(page, "Paste a sequence, or name a place.", "#state")
    says(page, "0.91", "#facts")
    assert page.get_attribute("#facts a", "href") == "/v1/runs/promoters/report.html"
    says(page, "promoters (finetuning)", "#runs")
    page.get_by_role("button", name="a gene").click()
    wait(page, "done")
    says(page, "promoter: highest 0.9611 at chr1:12,001-12,010. 1 call at 0.5 or more.", "#sentences")
    says(page, "chr1:11,841-12,170", "#calls")
    until(page, f"({PAINTED})() >= 6")  # ruler, letters, genes, tokens, calls, the output
    assert "q=abcA" in page.url
    assert server.asked[-1][0] != "/v1/tracks" or server.asked[-1][1]["encoding"] == "f32"


def test_pasted_sequence_is_counted_and_never_in_the_address(visit: Any, server: Fake) -> None:
    page = visit(state="empty")
    page.fill("#box", ">one\n" + SEQUENCE[11_000:13_000] + "\nNNacgt\n>two\n" + SEQUENCE[:500])
    wait(page, "typing")
    says(page, "2,506 bases · 2 records · 2 unknown letters · 4 in lower case · about 612 tokens", "#reads")
    server.height = 0.3
    page.keyboard.press("Control+Enter")
    wait(page, "nocalls")
    says(page, "No call at 0.5 or more.", "#state")
    says(page, "promoter: highest", "#sentences")
    assert SEQUENCE[11_000:11_020] not in page.url and "q=" not in page.url
    page.select_option("#record", label="two")
    until(page, "document.querySelector('#locus').value === 'two:1-500'")


def test_wrong_letter_is_marked_in_the_box(visit: Any, server: Fake) -> None:
    page = visit(state="empty")
    error = {"code": "letters", "message": "Letter 45 is '*'.", "where": "input.sequence", "position": 44}
    server.faults["/v1/tracks"] = [(422, error)]
    ask(page, ">one\n" + SEQUENCE[:40] + "\n" + SEQUENCE[40:44] + "*" + SEQUENCE[45:90], "refused")
    assert page.get_by_role("alert").inner_text() == "Letter 45 is '*'."
    assert page.evaluate("document.activeElement.value.slice(document.activeElement.selectionStart)[0]") == "*"
    ask(page, "chr9:1-100", "refused")
    says(page, "There is no chr9; did you mean chr1?", "#problem")
    server.faults["/v1/genomes/species_a/search"] = [(404, {"message": "There is no gene abcB.", "hint": "abcA?"})]
    ask(page, "abcB", "refused")
    says(page, "There is no gene abcB. abcA?", "#problem")


@pytest.mark.slow
def test_full_server_is_waited_for_and_tried_again(visit: Any, server: Fake) -> None:
    page = visit(state="empty")
    server.faults["/v1/tracks"] = [(429, {"message": "The queue holds 40 s of work.", "retry_after": 40})]
    ask(page, REGION, "busy")
    assert re.fullmatch(r"The queue holds 40 s of work. Again in \d+ s.", page.inner_text("#state"))
    page.get_by_role("button", name="Try now").click()
    wait(page, "done")
    server.faults["/v1/tracks"] = [(503, {"message": "The model is loading.", "retry_after": 1})]
    ask(page, REGION, "loading")
    wait(page, "done")


def test_queue_place_cancel_and_a_server_that_is_gone(visit: Any, server: Fake) -> None:
    page = visit(state="empty")
    server.seconds["/v1/tracks"] = 2.0
    server.queue = {"items": 5, "tokens": 9000, "seconds": 7}
    page.fill("#box", REGION)
    page.click("#run")
    wait(page, "queued")
    says(page, "5 in the queue, about 7 s of work", "#state")
    page.keyboard.press("Escape")
    wait(page, "cancelled")
    server.seconds.clear()
    ask(page, REGION)
    page.route("**/v1/tracks", lambda route: route.abort())
    ask(page, "chr1:10,001-16,000", "gone")
    says(page, "What is shown stays", "#state")
    says(page, "highest 0.9611", "#sentences")
    page.unroute("**/v1/tracks")
    page.get_by_role("button", name="Try now").click()
    wait(page, "done")


def test_too_long_becomes_a_job_that_is_followed(visit: Any, server: Fake) -> None:
    page = visit(state="empty")
    server.faults["/v1/tracks"] = [(413, {"message": "40,000 bases are more than 20,000; use /v1/jobs."})] * 2
    job = {"id": "a" * 32, "state": "waiting", "position": 2, "files": [], "notes": []}
    going = {**job, "state": "running", "done": 10, "total": 40, "unit": "windows", "eta_s": 30}
    files = [{"name": "promoter.bw", "bytes": 2048, "url": "/v1/jobs/" + "a" * 32 + "/files/promoter.bw"}]
    server.jobs = [job, going, {**job, "state": "done", "files": files}]
    ask(page, "chr1:1-40,000", "toolong")
    page.get_by_role("button", name="Make it a job").click()
    wait(page, "job")
    says(page, "place 2 in the queue", "#state")
    until(page, "document.querySelector('#state').innerText.includes('10 of 40 windows, about 30 s left')")
    assert "job=" + "a" * 32 in page.url
    wait(page, "jobdone")
    assert page.get_by_role("link", name="promoter.bw").get_attribute("href") == files[0]["url"]
    assert ("/v1/jobs", "chr1\t0\t40000\n") in server.asked
    server.jobs = [{**job, "state": "failed", "error": {"message": "No space is left on the disk."}}]
    ask(page, "chr1:1-40,000", "toolong")
    page.get_by_role("button", name="Make it a job").click()
    wait(page, "jobfailed")
    says(page, "No space is left on the disk.", "#problem")


def test_variants_are_overlaid_and_sorted(visit: Any, server: Fake) -> None:
    page = visit(state="empty")
    ask(page, "chr1-12001-A-G\nchr1-12051-A-ACCC")
    rows = page.locator("#variants tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ["chr1-12051-A-ACCC", "chr1-12001-A-G"]  # the largest first
    says(page, "chr1-12051-A-ACCC: log ratio of counts 1.4, difference -0.1.", "#sentences")
    assert page.locator("#alt svg rect[fill='#D55E00']").count() == 3  # inserted bases have a lane of their own
    page.get_by_role("button", name="chr1-12001-A-G").click()
    until(page, "!document.querySelector('#alt svg')")
    name, text = downloaded(page, "CSV")
    assert name == "variants.csv" and text.splitlines()[1] == "chr1-12051-A-ACCC,1.4,-0.1,ok"
    assert "q=chr1-12001-A-G" in page.url


@pytest.mark.slow
def test_models_are_compared(visit: Any) -> None:
    page = visit(state="empty")
    page.click("#with-part summary")
    page.check("#with input")
    ask(page, REGION)
    says(page, "second: exon: highest", "#sentences")
    says(page, "correlate with r = 1 over 500 bins", "#sentences")
    assert "with=second" in page.url


@pytest.mark.slow
def test_what_comes_into_view_is_predicted_once(visit: Any, server: Fake) -> None:
    page = visit("?q=" + REGION, state="done")

    def regions() -> list[str]:
        return [body["input"]["region"] for path, body in server.asked if path == "/v1/tracks"]

    page.wait_for_timeout(600)
    assert (
        regions()[0] == "chr1:10,001-15,000" and len(set(regions())) == len(regions()) > 1
    )  # igv asks beyond the edges
    for _ in range(3):
        page.get_by_role("button", name="move right").click()
    until(page, "document.querySelector('#locus').value.includes('17,50')")
    page.wait_for_timeout(900)
    assert len(set(regions())) == len(regions())
    assert all(re.fullmatch(r"chr1:\d+-\d+", each) for each in regions()[1:])
    assert "view=chr1%3A175" in page.url


def test_files_hold_what_is_shown(visit: Any) -> None:
    page = visit("?q=" + REGION, state="done")
    name, text = downloaded(page, "BED")
    assert name == "chr1_10_001-15000.bed" and text == "chr1\t11840\t12170\tpromoter\t961\t.\t0.9611\n"
    name, text = downloaded(page, "bedGraph")
    assert text.startswith("chr1\t10000\t10010\t") and len(text.splitlines()) == 500
    assert downloaded(page, "TSV")[1].splitlines()[0] == "chrom\tstart\tend\tpromoter"
    assert downloaded(page, "SVG")[1].startswith("<svg")
    assert downloaded(page, "BigWig")[1] == "bigwig"
    assert downloaded(page, "FASTA")[1].split("\n")[1] == SEQUENCE[10_000:15_000]
    page.keyboard.press("t")
    says(page, "chr1:12,001-12,010\t0.9611", "#numbers")


@pytest.mark.slow
def test_address_holds_the_question_and_back_works(visit: Any, server: Fake) -> None:
    page = visit("?model=second&q=" + REGION + "&at=0.7", state="done")
    assert page.input_value("#model") == "second" and page.input_value("#threshold") == "0.7"
    ask(page, "chr1:11,001-13,000")
    until(page, "document.querySelector('#locus').value === 'chr1:11,001-13,000'")
    page.go_back()
    until(page, "document.querySelector('#locus').value === 'chr1:10,001-15,000'")
    assert page.input_value("#box") == REGION


@pytest.mark.slow
def test_everything_is_reached_by_keys(visit: Any) -> None:
    page = visit(state="empty")
    page.focus("#box")
    page.keyboard.type(REGION)
    page.keyboard.press("Control+Enter")
    wait(page, "done")
    page.focus("#viewer")
    page.keyboard.press("n")
    until(page, "document.querySelector('#locus').value.startsWith('chr1:11,5')")
    page.keyboard.press("-")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "locus"
    page.focus("#viewer")
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


@pytest.mark.slow
def test_attributions_are_drawn(visit: Any, server: Fake) -> None:
    page = visit(state="empty")
    page.check("#attribute")
    ask(page, SEQUENCE[11_500:12_500])
    says(page, "Completeness gap 0.004", "#live-state")
    assert len(next(body for path, body in server.asked if path == "/v1/attribute")["input"]["sequence"]) == 300


@pytest.mark.slow
def test_token_and_missing_parts(visit: Any, server: Fake) -> None:
    server.faults["/v1/models"] = [(401, {"message": "This server wants a token."})]
    page = visit("#token=secret", state="token")
    assert "secret" not in page.url
    server.genome, server.models = (
        False,
        [page_server.model("only", ("low", "high"), problem="single_label", capabilities=["tokenize", "tracks"])],
    )
    page.get_by_label("token").fill("secret")
    page.get_by_role("button", name="Go on").click()
    wait(page, "empty")
    with page.expect_popup():
        page.click("#facts a")  # a link cannot carry the token, so the page fetches what it names
    assert server.tokens["/v1/runs/only/report.html"] == "Bearer secret"
    assert not page.is_visible("#genome-part") and not page.is_visible("#attribute-part")
    page.get_by_role("button", name="a made-up sequence").click()
    wait(page, "nocalls")
    ask(page, "chr1:1-100", "refused")
    says(page, "This server has no genome", "#problem")
    assert page.locator("#sentences li").count() == 1  # of two classes the second says everything


def test_without_javascript_a_sentence_says_what_to_do(visit: Any) -> None:
    page = visit(java_script_enabled=False)
    says(page, "needs JavaScript", "noscript")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_page_has_no_serious_fault_for_assistive_technology(visit: Any, width: int, server: Fake) -> None:
    axe = os.environ.get("LONGSTRAND_AXE")
    if not axe:
        pytest.skip("LONGSTRAND_AXE names no axe.min.js (npm pack axe-core@4.14.0)")
    page = visit(state="empty", width=width, bypass_csp=True)
    page.add_script_tag(path=axe)
    for text in ("", REGION, "chr1-12001-A-G"):
        if text:
            ask(page, text)
            page.wait_for_timeout(500)
        found = page.evaluate("axe.run()")["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert not serious, [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in serious]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture
def real(folders: dict[str, Path], genome: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve two tiny models and a genome with genes for real; the parameter is the most bases of a request."""
    uvicorn = pytest.importorskip("uvicorn")
    from longstrand.serve.app import create_app
    from longstrand.serve.schemas import ServeOptions

    options = ServeOptions(jobs=tmp_path, threads=1, max_bases=getattr(request, "param", 20_000))
    annotations = {"g": genome.with_name("genes.gff3")}
    app = create_app(folders, options, genomes={"g": genome}, annotations=annotations)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


WHOLE = pytest.param(("bases", "promoters"), ("a region", "a gene", "a variant", "a sequence"), marks=pytest.mark.slow)


@pytest.mark.parametrize(("models", "examples"), [(("promoters",), ("a variant", "a region")), WHOLE])
def test_page_and_real_server_understand_each_other(
    browser: Any, real: str, models: tuple[str, ...], examples: tuple[str, ...]
) -> None:
    with browser.new_context() as context:
        page, bad = context.new_page(), []
        page.on("response", lambda answer: answer.status in (200, 206, 304, 503) or bad.append(answer.url))
        page.on("pageerror", lambda error: bad.append(str(error)))
        page.goto(real)
        wait(page, "empty")
        for model in models:
            page.select_option("#model", model)
            for example in examples:
                page.get_by_role("button", name=example, exact=True).click()
                page.wait_for_selector("body:is([data-state=done], [data-state=nocalls])")
                assert page.inner_text("#problem") == ""
        says(page, "yes", "#sentences")
        until(page, f"({PAINTED})() >= 4")
        assert bad == []


@pytest.mark.slow
@pytest.mark.parametrize("real", [500], indirect=True)
def test_what_is_too_long_for_the_real_server_is_done_as_a_job(browser: Any, real: str) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(100_000)
        page.goto(real)
        wait(page, "empty")
        page.select_option("#model", "promoters")
        for text in ("chr1:1-1,200", ">a\n" + SEQUENCE[:600] + "\n>b\n" + SEQUENCE[:90]):
            ask(page, text, "toolong")
            page.get_by_role("button", name="Make it a job").click()
            page.wait_for_selector("body:is([data-state=jobdone], [data-state=jobfailed])")
            assert page.inner_text("#state") == "The job is done.", page.inner_text("#problem")
            assert page.get_by_role("link", name="KB").count() >= 1
