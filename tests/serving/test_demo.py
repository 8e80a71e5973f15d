"""The demo page in Debian's Chromium: drawing with mouse and keys, on a phone, and as a file.

Its text half is tested in test_text.py, with a language model.
"""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from serving.server.rest_api import DEMO_PAGE
from serving.training_images import lay_out_as_mnist
from tests.serving.conftest import in_process, start_server


@pytest.fixture(scope="module")
def served(exported, tmp_path_factory):
    flags = [
        "--model_name=mnist",
        f"--model_base_path={exported.parent}",
        "--rest_api_enable_cors_support=true",
    ]
    server = start_server(tmp_path_factory.mktemp("demo") / "log", *flags)
    yield server
    assert server.stop() == 0


def draw_a_one(page: Page) -> None:
    box = page.locator("#pad").bounding_box()
    x, top, bottom = (
        box["x"] + box["width"] / 2,
        box["y"] + box["height"] * 0.15,
        box["y"] + box["height"] * 0.85,
    )
    page.mouse.move(x, top)
    page.mouse.down()
    page.mouse.move(x, bottom, steps=8)
    page.mouse.up()


def shown(page: Page) -> list[float]:
    page.wait_for_selector(".class.best")
    return [float(text) for text in page.locator(".number").all_inner_texts()]


def test_drawing_shows_ten_probabilities_and_calls_no_other_server(page, served):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.rest)
    draw_a_one(page)
    numbers = shown(page)
    assert len(numbers) == 10
    assert sum(numbers) == pytest.approx(100, abs=1)
    assert page.locator("#digit_status").inner_text().startswith(str(numbers.index(max(numbers))))
    assert all(url.startswith((served.rest, "data:")) for url in asked)
    assert f"{served.rest}/v1/models/mnist:predict" in asked
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".class.best").count() == 0


def test_a_drawing_is_laid_out_as_predict_does(page, served):
    page.goto(served.rest)
    draw_a_one(page)
    picture, pixels = page.evaluate("[pad.toDataURL(), asMnist()]")
    with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as opened:
        expected = lay_out_as_mnist(np.asarray(opened.convert("L")))
    np.testing.assert_allclose(np.array(pixels)[..., 0], expected, atol=1)


def test_the_keyboard_alone_is_enough(page, served):
    page.goto(served.rest)
    page.keyboard.press("Tab")
    page.keyboard.press(" ")
    for _ in range(6):
        page.keyboard.press("ArrowDown")
    assert sum(shown(page)) == pytest.approx(100, abs=1)
    page.keyboard.press("Delete")
    assert page.locator(".class.best").count() == 0


def test_it_fits_a_phone_and_works_by_touch(browser, served):
    with browser.new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as phone:
        phone.goto(served.rest)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 360
        box = phone.locator("#pad").bounding_box()
        phone.touchscreen.tap(box["x"] + 100, box["y"] + 100)
        assert sum(shown(phone)) == pytest.approx(100, abs=1)


def test_it_works_as_a_file_against_a_server_with_cors(page, served):
    page.goto(f"{DEMO_PAGE.as_uri()}?server={served.rest}")
    draw_a_one(page)
    assert sum(shown(page)) == pytest.approx(100, abs=1)


def test_an_error_of_the_server_is_shown(page, served):
    page.goto(f"{served.rest}?model=foo")
    draw_a_one(page)
    page.wait_for_selector("#digit_status.error")
    assert "Servable not found for request: Latest(foo)" in page.locator("#digit_status").inner_text()


def test_the_text_half_is_hidden_if_only_digits_are_served(page, served):
    page.goto(served.rest)
    page.wait_for_selector("#text", state="hidden")
    assert page.locator("#digit").is_visible()


def test_a_server_with_tokens_asks_for_one(page, exported, tmp_path):
    (tmp_path / "tokens").write_text("secret")
    flags = {"model_name": "mnist", "model_base_path": str(exported.parent)}
    with in_process(**flags, auth_token_file=str(tmp_path / "tokens")) as (server, _):
        page.goto(f"http://localhost:{server.rest_port}")
        draw_a_one(page)
        page.wait_for_selector("#digit_status.error")
        assert "requires a token: enter it below, under Server" in page.locator("#digit_status").inner_text()
        page.locator("summary").click()
        page.get_by_label("Token", exact=True).fill("secret")
        page.locator("h1").first.scroll_into_view_if_needed()
        draw_a_one(page)
        assert sum(shown(page)) == pytest.approx(100, abs=1)
