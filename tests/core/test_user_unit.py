"""The unit file of a user: what is written, and what of what lies there is ours."""

from __future__ import annotations

import pytest

from netclawd.core.user_unit import Found, Installation, essence, judge_found, quote, render

TEMPLATE = """# Words.

[Service]
ExecStart=/usr/bin/netclawd
ExecReload=/usr/bin/netclaw reload --wait
Restart=on-failure
"""
PACKAGED = Installation("/usr/bin/netclawd", "/usr/bin/netclaw")
VENV = Installation("/opt/my venv/bin/netclawd", "/opt/my venv/bin/netclaw", "/srv/100%")


def test_the_package_s_own_programs_are_what_the_template_says() -> None:
    first, _, body = render(TEMPLATE, PACKAGED).partition("\n")
    assert body == TEMPLATE
    assert first.startswith("# Written by `netclaw daemon install --user`")


def test_another_installation_and_a_chosen_home_are_written_in() -> None:
    assert essence(render(TEMPLATE, VENV)) == (
        "[Service]",
        'Environment="NETCLAW_HOME=/srv/100%%"',
        'ExecStart="/opt/my venv/bin/netclawd"',
        'ExecReload="/opt/my venv/bin/netclaw" reload --wait',
        "Restart=on-failure",
    )


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/usr/bin/netclawd", "/usr/bin/netclawd"),
        ("/a b", '"/a b"'),
        ('/a"b', '"/a\\"b"'),
        ("/a\\b", '"/a\\\\b"'),
        ("/50%", '"/50%%"'),
        ("/a\nb", '"/a\\nb"'),
        ("/a\tb", '"/a\\tb"'),
        ("/a\rExecStartPre=b\x1b", '"/a\\x0dExecStartPre=b\\x1b"'),
        ("/a'b", '"/a\'b"'),
        ("/a;b", '"/a;b"'),
        ("", '""'),
    ],
)
def test_a_word_is_quoted_for_systemd(word: str, quoted: str) -> None:
    assert quote(word) == quoted


WANTED = render(TEMPLATE, PACKAGED)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param(None, Found.NOTHING, id="nothing"),
        pytest.param(WANTED, Found.SAME, id="what would be written"),
        pytest.param(TEMPLATE.replace("# Words.", "; Others."), Found.SAME, id="in other words"),
        pytest.param(render(TEMPLATE, VENV), Found.OURS, id="ours, for another installation"),
        pytest.param(
            render(TEMPLATE + "Nice=1\n", PACKAGED), Found.OURS, id="ours, of another release"
        ),
        pytest.param(WANTED + "Nice=1\n", Found.CHANGED, id="ours, and a line more"),
        pytest.param(
            WANTED.replace("on-failure", "always"), Found.CHANGED, id="ours, and another value"
        ),
        pytest.param("", Found.FOREIGN, id="empty, or a link to /dev/null"),
        pytest.param(TEMPLATE + "Nice=1\n", Found.FOREIGN, id="written by somebody"),
        pytest.param("# Written by me\n" + TEMPLATE + "Nice=1\n", Found.FOREIGN, id="a like head"),
    ],
)
def test_only_a_whole_file_of_ours_or_the_same_in_other_words_is_ours(
    content: str | None, found: Found
) -> None:
    assert judge_found(content, WANTED) == found


def test_a_comment_that_was_changed_makes_no_file_another_s() -> None:
    assert judge_found(WANTED.replace("# Words.", "# My words."), WANTED) == Found.SAME
