"""The benchmark of serving, with short measurements."""

import pytest

from benchmarks import serving


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(serving, "LOADS", ((1, 1), (2, 3)))


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_it_prints_a_row_for_each_load(server, short, capsys):
    serving.wait_until_available(server.address)
    serving.measure_all("embedded", server.address, serving.requests_of(server.address), seconds=0.2)
    printed = rows(capsys.readouterr().out)
    assert [row[:3] for row in printed] == [["embedded", "1", "1"], ["embedded", "2", "3"]]
    for _, _, images, *numbers in printed:
        rate, images_per_second, p50, p99 = (float(number.replace(",", "")) for number in numbers)
        assert images_per_second == pytest.approx(rate * int(images), abs=int(images))
        assert 0 < p50 <= p99
    assert len(rows(serving.HEADER)[0]) == len(printed[0])
