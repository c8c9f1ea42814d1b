"""progress.py: the bar goes to stderr, and stdout stays the value's."""

import pytest

from turbopump.progress import sending


def test_the_bar_goes_to_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever pipes stdout gets the version and nothing else."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with sending("film", 1000) as on_sent:
        on_sent(500)
        on_sent(1000)

    captured = capsys.readouterr()
    assert captured.out == ""
    assert "film" in captured.err
