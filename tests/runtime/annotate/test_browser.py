"""The page in a real browser, against the real server: what a person does, sees, and finds on disk."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_annotator import RADIUS, FakeAnnotator, discs
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from maskrt.runtime.annotate import states
from maskrt.runtime.annotate.app import make_app
from maskrt.runtime.annotate.desk import Desk
from maskrt.runtime.annotate.pictures import Picture, find_pictures
from maskrt.runtime.annotate.server import listen
from maskrt.runtime.annotate.store import Store
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.io.masks import read_labels
from maskrt.runtime.web.server import make_server

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,800",
)
pytestmark = pytest.mark.browser
PLAIN = (120, 130, 140)  # the pictures' colour: what differs from it on the canvas is a mask or a dot
HOSTILE = "<img src=x onerror=document.title=1><i>"  # a part of names, which must stay text
SECONDS = 60  # to wait for the page before it counts as broken
# Calls back when every action is answered and the next two frames are drawn.
AT_REST = """
const body = document.body, done = arguments[0];
const rests = () => body.dataset.busy === '0' && body.dataset.turn !== undefined;
const look = () => {
    if (rests()) requestAnimationFrame(() => requestAnimationFrame(() => { if (rests()) done(); }));
};
new MutationObserver(look).observe(body, {attributes: true});
look();
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    browser, steered = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or steered is None:
        refuse = pytest.fail if os.environ.get("MASKRT_REQUIRE_BROWSER") == "1" else pytest.skip
        refuse("needs Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(steered))
    driver.set_script_timeout(SECONDS)
    yield driver
    driver.quit()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    folder = tmp_path / "ward"
    folder.mkdir()
    for name in (f"bed 1 &lt;{HOSTILE}.png", "bed 2.png"):
        Image.new("RGB", (80, 60), PLAIN).save(folder / name)
    (folder / f"bed 3 {HOSTILE}.png").write_bytes(b"no picture")
    return find_pictures(str(folder))


@pytest.fixture
def address(desk: Desk) -> Iterator[str]:
    with listen(0) as sock:
        server = make_server(make_app(desk, "token"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/token/"
        server.should_exit = True
        thread.join()


class Page:
    """A person at the page: pixels are the picture's."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        driver.get_log("browser")  # forgets what was said before
        driver.get(address)
        self.canvas = driver.find_element("id", "view")
        self.settle()

    def settle(self) -> None:
        """Wait until every action is answered and drawn."""
        self.driver.execute_async_script(AT_REST)

    def place(self, x: int, y: int) -> tuple[int, int]:
        """The place of a pixel's middle on the canvas, in CSS pixels from its corner."""
        scale, left, top = (float(self.canvas.get_attribute(f"data-{name}") or 0) for name in ("scale", "x", "y"))
        return round((x + 0.5) * scale + left), round((y + 0.5) * scale + top)

    def at(self, x: int, y: int) -> ActionChains:
        """The mouse at a pixel; Selenium counts from the middle of the canvas."""
        across, down = self.place(x, y)
        size = self.canvas.size
        chain = ActionChains(self.driver, duration=0)
        return chain.move_to_element_with_offset(self.canvas, across - size["width"] // 2, down - size["height"] // 2)

    def click(self, x: int, y: int, positive: bool = True) -> None:
        chain = self.at(x, y)
        (chain.click() if positive else chain.context_click()).perform()
        self.settle()

    def keys(self, *keys: str) -> None:
        ActionChains(self.driver, duration=0).send_keys(*keys).perform()
        self.settle()

    def colour(self, x: int, y: int) -> tuple[int, ...]:
        """The colour that the canvas shows at a pixel."""
        script = (
            "return Array.from(document.getElementById('view').getContext('2d')"
            ".getImageData(arguments[0] * devicePixelRatio, arguments[1] * devicePixelRatio, 1, 1).data)"
        )
        return tuple(self.driver.execute_script(script, *self.place(x, y)))

    def covered(self, x: int, y: int) -> bool:
        return self.colour(x, y) != (*PLAIN, 255)

    def text(self, name: str) -> str:
        """The text of an element, also while it still slides into view."""
        return str(self.driver.find_element("id", name).get_property("textContent"))

    def complaints(self) -> list[str]:
        """Errors of scripts, of requests, and of what the security policy has refused."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def page(driver: webdriver.Chrome, address: str) -> Page:
    return Page(driver, address)


def test_an_object_from_click_to_disk(page: Page, out: Path, session: FakeAnnotator) -> None:
    assert page.text("name") == f"bed 1 &lt;{HOSTILE}.png"
    assert not page.covered(35, 20)
    page.click(30, 20)
    away = RADIUS - 2  # from the dots, which are drawn over the mask
    assert page.covered(30 + away, 20)
    assert not page.covered(30 + RADIUS + 2, 20)
    assert page.text("clicks") == "1"
    page.click(40, 20)
    page.click(42, 24, positive=False)
    assert session.clicks == (Click(30, 20), Click(40, 20), Click(42, 24, False))
    assert page.covered(40 - away, 20)
    assert not page.covered(42, 24 + away)
    page.keys("z")
    assert session.clicks == (Click(30, 20), Click(40, 20))
    page.keys(Keys.CONTROL + "z" + Keys.NULL)
    assert session.clicks == (Click(30, 20),)
    assert not page.covered(40, 20)
    page.keys(Keys.ENTER)
    assert (page.text("clicks"), page.text("accepted"), page.text("mean")) == ("0", "1", "1.0")
    assert page.covered(30, 20)  # accepted ones stay to be seen
    (mask_file,) = (out / "masks").iterdir()
    np.testing.assert_array_equal(read_labels(mask_file), discs((60, 80), [Click(30, 20)]))
    assert page.complaints() == []


def test_classes_boxes_and_pictures_by_keyboard(page: Page, out: Path, session: FakeAnnotator) -> None:
    page.keys("2")
    assert session.decoder == "blanket"
    page.at(50, 40).key_down(Keys.SHIFT).click_and_hold().perform()
    page.at(20, 10).perform()
    page.at(20, 10).release().key_up(Keys.SHIFT).perform()
    page.settle()
    assert session.mask is not None
    np.testing.assert_array_equal(session.mask, discs((60, 80), [(20, 10, 50, 40)]))
    page.keys("n")  # what would drop an object is asked for twice
    assert "not accepted" in page.text("note")
    assert page.text("position").startswith("1 / 3")
    page.keys(Keys.ENTER, "n")
    assert page.text("name") == "bed 2.png"
    assert not page.covered(35, 20)
    page.click(10, 10)
    page.keys("r")
    assert session.clicks == ()
    page.keys("n")
    assert f"bed 3 {HOSTILE}.png is not an image" in page.text("problem")
    assert page.driver.title == "maskrt annotate"
    page.keys("p", "p")
    assert page.text("name").startswith("bed 1 ")
    assert page.covered(35, 20)
    annotations = json.loads((out / "annotations.json").read_text())
    (found,) = annotations["annotations"]
    assert (found["bbox"], found["box"], found["category_id"]) == ([20, 10, 31, 31], [20, 10, 50, 40], 2)
    page.keys("s")
    assert (out / "decoders/blanket.safetensors").is_file()
    assert page.complaints() == []


def test_zoomed_and_moved_clicks_hit_what_is_under_the_pointer(page: Page, session: FakeAnnotator) -> None:
    before = page.place(30, 20)
    page.driver.execute_script(
        "const r = arguments[0].getBoundingClientRect(); arguments[0].dispatchEvent(new WheelEvent('wheel', {"
        "deltaY: -600, clientX: r.left + arguments[1], clientY: r.top + arguments[2], bubbles: true}))",
        page.canvas,
        *before,
    )
    page.settle()
    assert np.abs(np.subtract(page.place(30, 20), before)).max() <= 1  # what is under the pointer stays there
    assert page.place(32, 20)[0] - before[0] > 40
    page.click(33, 22)
    ActionChains(page.driver).key_down(Keys.SPACE).perform()
    page.at(30, 20).click_and_hold().move_by_offset(-90, 35).release().perform()
    ActionChains(page.driver).key_up(Keys.SPACE).perform()
    page.settle()
    np.testing.assert_allclose(np.subtract(page.place(30, 20), before), (-90, 35), atol=1.5)
    page.click(31, 19, positive=False)
    assert session.clicks == (Click(33, 22), Click(31, 19, False))
    page.keys("f")
    assert page.place(30, 20) == before
    page.keys("v")
    assert not page.covered(36, 24)


def test_an_object_is_deleted_in_two_clicks(page: Page, out: Path) -> None:
    page.click(30, 20)
    page.keys(Keys.ENTER)
    page.click(60, 40)
    page.keys(Keys.ENTER)
    assert page.text("objects").count("mattress") == 2
    remove = page.driver.find_element("css selector", "#objects li button")
    remove.click()
    assert remove.text == "delete?"
    remove.click()
    page.settle()
    assert page.text("objects").count("mattress") == 1
    assert not page.covered(30, 20)
    assert page.covered(60, 40)
    assert len(json.loads((out / "annotations.json").read_text())["annotations"]) == 1


def test_a_page_that_is_behind_says_so(page: Page, desk: Desk, session: FakeAnnotator) -> None:
    desk.act(states.Request(desk.state().turn, states.Click(60, 40)))
    page.click(30, 20)
    assert "nothing was done: another browser was faster" in page.text("note")
    assert session.clicks == (Click(60, 40),)
    assert page.covered(60, 40)
    page.click(30, 20)
    assert session.clicks == (Click(60, 40), Click(30, 20))


def test_quick_clicks_are_all_taken(page: Page, session: FakeAnnotator) -> None:
    go_on = threading.Event()
    session.before = lambda: go_on.wait(SECONDS)
    places = [(20, 20), (30, 20), (40, 20), (50, 20)]
    for x, y in places:
        page.at(x, y).click().perform()
    assert session.clicks == ()  # the first is not answered yet
    go_on.set()
    page.settle()
    assert [(click.x, click.y) for click in session.clicks] == places  # type: ignore[var-annotated]


def test_help_and_errors_are_shown(page: Page, session: FakeAnnotator) -> None:
    page.keys("h")
    help_box = page.driver.find_element("id", "help")
    assert "Keys and mouse" in help_box.text
    page.keys(Keys.ENTER)  # closes it, and accepts nothing
    assert not help_box.is_displayed()
    assert page.text("note") == ""
    page.keys(Keys.ENTER)
    assert "click on an object first" in page.text("note")


def test_a_restart_shows_what_is_there(page: Page, desk: Desk, out: Path, pictures: list[Picture]) -> None:
    page.click(30, 20)
    page.keys(Keys.ENTER)
    with listen(0) as sock:
        again = Desk(FakeAnnotator(), pictures[:1], Store(out, ["mattress", "blanket"]))
        server = make_server(make_app(again, "other"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            later = Page(page.driver, f"http://127.0.0.1:{sock.getsockname()[1]}/other/")
            assert later.text("accepted") == "1"
            assert later.covered(30, 20)
        finally:
            server.should_exit = True
            thread.join()
