"""The soak: a minute of it, and its table."""

import shutil
import threading

import pytest

from benchmarks import soak


@pytest.mark.slow
def test_a_minute_of_mixed_load_and_version_swaps_fails_no_request(
    exported, text_exports, tmp_path, monkeypatch, capsys
):
    shutil.copytree(exported.parent, tmp_path / "mnist")
    shutil.copytree(text_exports("characters")[1].parent, tmp_path / "lm")
    monkeypatch.setattr(soak, "MAX_GROWTH", 0.2)  # TensorFlow's allocator has not settled after a minute
    monkeypatch.setattr("sys.argv", ["soak", "--models", str(tmp_path), "--minutes", "1"])
    status = soak.main()
    printed = capsys.readouterr()
    assert status == 0, printed.out + printed.err
    rows = [line.split("|")[1:-1] for line in printed.out.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 11
    assert all(int(row[1].replace(",", "")) > 0 for row in rows)
    assert [row[2].strip() for row in rows] == ["0"] * 11


def test_failures_are_counted_and_shown(capsys):
    stopped, answers = threading.Event(), iter([None, ValueError("other labels"), None])

    def ask():
        try:
            answer = next(answers)
        except StopIteration:
            stopped.set()
            return
        if answer:
            raise answer

    tally = soak.Tally()
    soak.repeat(ask, tally, stopped, pause=0.0)
    assert (len(tally.latencies), tally.failures) == (3, ["ValueError: other labels"])
    tally.latencies = [0.001 * number for number in range(101)]
    assert soak.report({"some": tally, "none": soak.Tally()}) == 1
    printed = capsys.readouterr()
    assert "| some | 102 | 1 | 50.0 | 99.0 |" in printed.out
    assert "| none | 0 | 0 |  |  |" in printed.out
    assert "other labels" in printed.err
