"""What Slack is given to show: nothing in it acts, nothing is lost where it is cut."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.mrkdwn import FENCE, from_mrkdwn, literal, split, to_mrkdwn

#: Marks of Markdown and of Slack among words.
PIECES = [
    "word",
    "two~words",
    "*",
    "**",
    "_",
    "__",
    "~~",
    "`",
    "```",
    "<!channel>",
    "<@U1>",
    "<",
    ">",
    "&",
    "&amp;",
    "#~",
    "-~",
    ">~",
    "[a](",
    "](",
    ")",
    "https://a.b/c",
    "<https://x.y|z>",
    "|~a~|~b~|",
    "|---|---|",
    "~~~",
    "\\*",
    "é",
    "日本",
    "\x07",
    "\ud800",
]
markdown = st.lists(
    st.sampled_from(
        [
            *(p.replace("~", " ") for p in PIECES),
            "~~",
            "~~~\n",
            " ",
            "\n",
            "\n\n",
            "```py\n",
            "\n```\n",
        ]
    ),
    max_size=60,
).map("".join)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain", "plain"),
        ("**bold** and *leaning* and ~~gone~~", "*bold* and _leaning_ and ~gone~"),
        ("__bold__ _leaning_ ***both***", "*bold* _leaning_ *_both_*"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"),
        ("**open", "**open"),
        ("# Title", "*Title*"),
        ("## A **bold** title ##", "*A bold title*"),
        ("- one\n  * two\n+ three", "• one\n  • two\n• three"),
        ("1. one", "1. one"),
        ("> said", "&gt; said"),
        ("---", "———"),
        ("`a < b`", "`a &lt; b`"),
        ("[Slack](https://slack.com/x_(y))", "Slack (https://slack.com/x_(y))"),
        ("[https://a.b](https://a.b)", "https://a.b"),
        ("![image](https://a.b/c.png)", "image (https://a.b/c.png)"),
        ("<https://a.b>", "https://a.b"),
        ("```python\nif a < b:\n    **no**\n```", "```\nif a &lt; b:\n    **no**\n```"),
        ("~~~\n```\n~~~", "```\n`\u200b``\n```"),
        ("```\nnot closed", "```\nnot closed\n```"),
        ("| a | b |\n|---|:-:|\n| 1 | 222 |\nafter", "```\na  b\n1  222\n```\nafter"),
        ("这是**重点**内容", "这是\u200b*重点*\u200b内容"),
    ],
)
def test_markdown_is_shown_as_it_means_it(written: str, shown: str) -> None:
    assert to_mrkdwn(written) == shown


@pytest.mark.parametrize(
    "written",
    [
        "<!channel>",
        "<!here|here>",
        "<@U123>",
        "<#C1|general>",
        "<https://evil.example|your bank>",
        "&lt;!here&gt;",
    ],
)
def test_nothing_that_a_model_writes_is_a_mention_or_hides_an_address(written: str) -> None:
    for text in (
        written,
        f"**{written}**",
        f"`{written}`",
        f"[{written}](https://a.b)",
        f"```\n{written}\n```",
    ):
        shown = to_mrkdwn(text)
        assert "<" not in shown
        assert ">" not in shown
        assert re.sub(r"&(?:amp|lt|gt);", "", shown).count("&") == 0


@given(markdown)
def test_no_sign_that_slack_acts_on_is_left(written: str) -> None:
    shown = to_mrkdwn(written)
    assert not re.search(r"[<>]|&(?!(?:amp|lt|gt);)", shown)
    assert shown.count(FENCE) % 2 == 0
    shown.encode()


@given(markdown, st.sampled_from([32, 40, 57, 120, 3900]))
def test_parts_keep_to_the_limit_and_together_hold_every_word(written: str, limit: int) -> None:
    text = to_mrkdwn(written)
    parts = split(text, limit)
    assert all(0 < len(part) <= limit for part in parts)
    assert all(part.count(FENCE) % 2 == 0 for part in parts)
    for part in parts:
        assert not re.search(r"&(?!(?:amp|lt|gt);)", part), "an entity is cut"

    def words(text: str) -> str:
        return re.sub(r"\s", "", text.replace(FENCE, ""))

    assert words("".join(parts)) == words(text)


def test_it_is_cut_between_paragraphs_then_lines_then_sentences_then_words() -> None:
    assert split("First one here.\n\nSecond one.\nThird line of it", 40) == (
        "First one here.",
        "Second one.\nThird line of it",
    )
    assert split("One line is here\nand another one that follows", 40) == (
        "One line is here",
        "and another one that follows",
    )
    assert (
        split("A sentence ends here. Another one goes on and on", 40)[0] == "A sentence ends here."
    )
    assert (
        split("words without any end that go on and on", 38)[0]
        == "words without any end that go on"
    )
    assert split("x" * 90, 44) == ("x" * 40, "x" * 40, "x" * 10)


@pytest.mark.parametrize("limit", range(32, 45))
def test_what_has_no_place_to_cut_is_cut_between_its_signs(limit: int) -> None:
    for text in ("&amp;" * 30, "&lt;x" * 30):
        parts = split(text, limit)
        assert "".join(parts) == text
        assert all(not re.sub(r"&(?:amp|lt);|x", "", part) for part in parts)


def test_a_block_of_code_is_closed_and_opened_anew() -> None:
    text = to_mrkdwn("```\n" + "\n".join(f"line {n}" for n in range(9)) + "\n```\nafter")
    parts = split(text, 40)
    assert parts[0] == "```\nline 0\nline 1\nline 2\nline 3\n```"
    assert parts[1].startswith("```\nline 4\n")
    assert parts[-1].endswith("after")


def test_what_is_shown_as_it_is_hides_nothing_and_turns_nothing_around() -> None:
    assert literal("rm \u202egpj.\u202c \u200b\ud800\x1b[8m") == (
        f"{FENCE}\nrm \\u202egpj.\\u202c \\u200b\\ud800\\x1b[8m\n{FENCE}"
    )


def test_what_a_person_is_asked_is_shown_as_it_is() -> None:
    shown = literal("rm *a b* <@U1> `x` ```y```")
    assert shown.startswith("```\nrm *a b* &lt;@U1&gt; `x` ")
    assert shown.count(FENCE) == 2


@pytest.mark.parametrize(
    "piece", ["**a ", "*a _b ", "[a](", "[a](b", "`", "![", "<https://", "|-", "> ", "\\", "&"]
)
def test_the_time_is_linear_in_the_text(piece: str) -> None:
    text = piece * (60_000 // len(piece))
    begun = time.process_time()
    split(to_mrkdwn(text), 3900)
    split(to_mrkdwn(text.replace(" ", "\n")), 3900)
    assert time.process_time() - begun < 3.0


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("<@UBOT> hello", "hello"),
        ("  <@UBOT>   hello <@UBOT>", "hello @UBOT"),
        ("a &lt; b &amp;amp; c", "a < b &amp; c"),
        ("<@U1|joe> in <#C1|general>", "@joe in #general"),
        ("<@U1> <!here> <!subteam^S1|@ops> <!date^1^{date}|today>", "@U1 @here @ops today"),
        ("<https://a.b/c|a.b/c> <https://a.b|words>", "https://a.b/c words (https://a.b)"),
        ("<mailto:a@b.c|a@b.c>", "a@b.c"),
    ],
)
def test_what_a_person_writes_is_read_as_text(sent: str, read: str) -> None:
    assert from_mrkdwn(sent, "UBOT") == read
