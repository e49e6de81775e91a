"""With which configuration a start begins: every combination of what it finds."""

from __future__ import annotations

import pytest

from netclawd.core.beginning import Beginning, Past, RefusedConfig, judge_beginning
from netclawd.core.events import Refusal
from netclawd.core.manifest import Manifest
from netclawd.core.settings import OnInvalid, Snapshot
from netclawd.core.values import replace
from netclawd.errors import ConfigError, ConfigMeaningError, ConfigSchemaError, ConfigSyntaxError
from tests.core.examples import REFUSAL, snapshot

FILE = replace(snapshot("127.0.0.1:5199"), digest="f" * 64, published_digest="F" * 64)
GOOD = replace(snapshot("127.0.0.1:5200"), digest="g" * 64, published_digest="G" * 64)
SYNTAX = ConfigSyntaxError("It is no TOML.", "Mend it.")
WRONG = [ConfigSchemaError("It is wrong.", "Mend it."), ConfigMeaningError("It is.", "Mend it.")]


def manifest(reason: str, *, settled: bool = True, new: Snapshot = FILE) -> Manifest:
    return Manifest(
        generation=7,
        restart_id="r",
        reason=reason,
        trigger="hup",
        requested_at=0.0,
        old_digest=GOOD.published_digest,
        new_digest=new.published_digest,
        writer="0",
        listeners={},
        work=(),
        settled=settled,
    )


CLEAN = manifest("stop")
#: Ways to end that are not clean.
UNCLEAN = [None, manifest("stop", settled=False), manifest("reload", settled=False)]
REFUSED = RefusedConfig(FILE.digest, REFUSAL)


@pytest.mark.parametrize("left", [CLEAN, *UNCLEAN])
@pytest.mark.parametrize("good", [GOOD, None])
def test_a_good_file_is_served(left: Manifest | None, good: Snapshot | None) -> None:
    assert judge_beginning(FILE, None, Past(left, good, None)) == Beginning(FILE)


@pytest.mark.parametrize("mode", [None, *OnInvalid])
@pytest.mark.parametrize("error", [SYNTAX, *WRONG])
def test_after_a_clean_stop_a_bad_file_ends_the_start(
    error: ConfigError, mode: OnInvalid | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        judge_beginning(error, mode, Past(CLEAN, GOOD, REFUSED))
    assert caught.value is error


@pytest.mark.parametrize("error", [SYNTAX, *WRONG])
@pytest.mark.parametrize("left", UNCLEAN)
def test_without_a_last_good_one_a_bad_file_ends_the_start(
    error: ConfigError, left: Manifest | None
) -> None:
    with pytest.raises(ConfigError):
        judge_beginning(error, None, Past(left, None, None))


@pytest.mark.parametrize("mode", [None, *OnInvalid])
@pytest.mark.parametrize("left", UNCLEAN)
def test_after_a_crash_a_file_that_does_not_parse_gives_way_in_either_mode(
    left: Manifest | None, mode: OnInvalid | None
) -> None:
    found = judge_beginning(SYNTAX, mode, Past(left, GOOD, None))
    assert found == Beginning(GOOD, Refusal(SYNTAX.slug, SYNTAX.what, SYNTAX.remedy))


@pytest.mark.parametrize("error", WRONG)
def test_after_a_crash_a_wrong_file_gives_way_or_ends_the_start_by_the_mode(
    error: ConfigError,
) -> None:
    past = Past(None, GOOD, None)
    assert judge_beginning(error, OnInvalid.KEEP, past).snapshot == GOOD
    assert judge_beginning(error, None, past).snapshot == GOOD, "the last good one says keep"
    with pytest.raises(ConfigError):
        judge_beginning(error, OnInvalid.ABORT, past)


def test_a_mode_that_the_file_does_not_tell_is_that_of_the_last_good_one() -> None:
    daemon = {**GOOD.effective["daemon"], "on_invalid_config": "abort"}
    aborting = replace(GOOD, effective={**GOOD.effective, "daemon": daemon})
    with pytest.raises(ConfigError):
        judge_beginning(WRONG[0], None, Past(None, aborting, None))
    assert judge_beginning(WRONG[0], OnInvalid.KEEP, Past(None, aborting, None)).snapshot


@pytest.mark.parametrize("mode", [None, *OnInvalid])
def test_what_was_refused_is_not_tried_again_after_a_crash(mode: OnInvalid | None) -> None:
    past = Past(None, GOOD, REFUSED)
    assert judge_beginning(FILE, mode, past) == Beginning(GOOD, REFUSAL, FILE.digest)
    other = replace(FILE, digest="0" * 64)
    assert judge_beginning(other, mode, past) == Beginning(other), "another content is"
    assert judge_beginning(FILE, mode, replace(past, manifest=CLEAN)) == Beginning(FILE)
    assert judge_beginning(FILE, mode, replace(past, last_good=None)) == Beginning(FILE)


def test_what_served_last_is_served_again_whatever_is_remembered_of_it() -> None:
    past = Past(manifest("reload", new=GOOD), GOOD, RefusedConfig(GOOD.digest, REFUSAL))
    assert judge_beginning(GOOD, None, past) == Beginning(GOOD)


def test_an_image_that_never_got_ready_is_not_tried_again() -> None:
    past = Past(manifest("reload"), GOOD, None)
    found = judge_beginning(FILE, None, past)
    assert (found.snapshot, found.refused_digest) == (GOOD, FILE.digest)
    assert found.refusal is not None
    assert found.refusal.slug == "boot-crashed"
    mended = replace(FILE, digest="0" * 64, published_digest="1" * 64)
    assert judge_beginning(mended, None, past) == Beginning(mended)
    forced = replace(manifest("reload"), old_digest=FILE.published_digest)
    assert judge_beginning(FILE, None, replace(past, manifest=forced)) == Beginning(FILE)
