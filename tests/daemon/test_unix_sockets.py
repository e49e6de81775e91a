"""Unix sockets of HTTP: bound beside their path and renamed to it; nothing of another's is touched."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from netclawd.core.listeners import Address, parse_address, plan_listeners
from netclawd.core.settings import UnixAccess
from netclawd.daemon.accounts import owner_of
from netclawd.daemon.descriptors import Inheritance, Named
from netclawd.daemon.listeners import ListenerSet
from netclawd.errors import AddressError, ConfigMeaningError

NOBODY = Inheritance([])
ACCESS = UnixAccess(0o660, "", "")


@pytest.fixture
def held() -> Iterator[ListenerSet]:
    with closing(ListenerSet()) as found:
        yield found


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return parse_address(f"unix:{tmp_path}/api.sock")


def in_folder(address: Address) -> list[str]:
    return sorted(os.listdir(os.path.dirname(address.host)))


def connect(address: Address) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    try:
        sock.connect(address.host if address.path else "\0" + address.host[1:])
    except OSError:
        sock.close()
        raise
    return sock


def connects(address: Address) -> bool:
    try:
        connect(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    return True


def bind_new(held: ListenerSet, *wanted: Address, access: UnixAccess = ACCESS) -> None:
    held.bind(plan_listeners(held.held, wanted), access)


def next_image(held: ListenerSet) -> tuple[ListenerSet, Inheritance]:
    """Do what execve does: the descriptors live on under their names, all else is forgotten."""
    named = [Named(item.name, os.dup(item.fd)) for item in held.to_hand_over()]
    assert all(":" not in item.name and item.name.isascii() for item in named)
    return ListenerSet(), Inheritance(named)


def other_daemon(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(1)
    return sock


# -- binding -------------------------------------------------------------------------------------


def test_nothing_lies_at_the_path_before_the_socket_listens(
    held: ListenerSet, address: Address
) -> None:
    bind_new(held, address)
    assert not connects(address)
    assert not os.path.exists(address.host)
    held.listen_new(backlog=16)
    assert connects(address)
    assert in_folder(address) == ["api.sock"]


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666, 0o200])
def test_mode_and_owner_are_set_whatever_the_umask(
    held: ListenerSet, address: Address, mode: int
) -> None:
    before = os.umask(0o077)
    try:
        held.claim(NOBODY, [address], 16, UnixAccess(mode, str(os.getuid()), str(os.getgid())))
    finally:
        os.umask(before)
    info = os.stat(address.host)
    assert stat.S_IMODE(info.st_mode) == mode
    assert (info.st_uid, info.st_gid) == (os.getuid(), os.getgid())


def test_what_a_dead_process_left_is_replaced(held: ListenerSet, address: Address) -> None:
    other_daemon(address.host).close()
    held.claim(NOBODY, [address], 16, ACCESS)
    held.close()
    assert in_folder(address) == []
    # Also what one left that died between the bind and the rename.
    first = ListenerSet()
    bind_new(first, address)
    (leftover,) = in_folder(address)
    bind_new(held, address)
    held.listen_new(16)
    assert connects(address)
    first.close()
    assert in_folder(address) == ["api.sock"], f"{leftover} was gone, and ours is left alone"


@pytest.mark.parametrize("backlog_is_full", [False, True])
def test_a_path_that_somebody_listens_on_is_in_use(
    held: ListenerSet, address: Address, backlog_is_full: bool
) -> None:
    waiting = []
    with other_daemon(address.host) as other:
        inode = os.stat(address.host).st_ino
        while backlog_is_full:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            try:
                client.connect(address.host)
            except BlockingIOError:
                break
        with pytest.raises(AddressError, match="can't be bound: it is in use") as caught:
            bind_new(held, address)
        assert caught.value.remedy
        assert os.stat(address.host).st_ino == inode
        assert in_folder(address) == ["api.sock"]
        other.setblocking(False)
        other.accept()[0].close()
    for client in waiting:
        client.close()


def test_a_path_that_was_taken_before_it_was_published_is_in_use(
    held: ListenerSet, address: Address
) -> None:
    bind_new(held, address)
    with other_daemon(address.host):
        with pytest.raises(AddressError, match="it is in use"):
            held.listen_new(16)
        held.close_new()
        assert in_folder(address) == ["api.sock"], "the other one's"


def test_a_name_that_another_of_the_same_path_took_over_is_in_use(address: Address) -> None:
    with closing(ListenerSet()) as one, closing(ListenerSet()) as other:
        bind_new(one, address)
        bind_new(other, address)
        with pytest.raises(AddressError, match="it is in use"):
            one.listen_new(16)
        other.listen_new(16)
        assert connects(address)
        one.close_new()
        assert connects(address)


def test_a_file_that_is_no_socket_is_left_alone(held: ListenerSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(AddressError, match="what lies there is no socket"):
            bind_new(held, parse_address(f"unix:{tmp_path}/{name}"))
    assert (tmp_path / "file").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_is_missing_is_named(held: ListenerSet, tmp_path: Path) -> None:
    with pytest.raises(AddressError, match="its folder does not exist"):
        bind_new(held, parse_address(f"unix:{tmp_path}/missing/api.sock"))
    (tmp_path / "file").touch()
    with pytest.raises(AddressError, match="a part of its path is a file"):
        bind_new(held, parse_address(f"unix:{tmp_path}/file/api.sock"))


def test_a_failed_bind_leaves_no_file(held: ListenerSet, address: Address) -> None:
    missing = parse_address("unix:/missing/api.sock")
    with pytest.raises(AddressError):
        bind_new(held, address, missing)
    with pytest.raises(AddressError):
        held.claim(NOBODY, [address, missing], 16, ACCESS)
    assert in_folder(address) == []
    assert held.held == ()


def test_an_account_that_went_away_leaves_no_file(held: ListenerSet, address: Address) -> None:
    with pytest.raises(AddressError, match="knows no such group"):
        bind_new(held, address, access=UnixAccess(0o660, "", "no-such-group-here"))
    assert in_folder(address) == []


# -- abstract names ------------------------------------------------------------------------------


def test_an_abstract_name_is_bound_adopted_and_in_use(held: ListenerSet) -> None:
    address = parse_address(f"unix:@netclaw-test-{os.getpid()}-ö")
    held.claim(NOBODY, [address], 16, ACCESS)
    assert connects(address)
    with (
        closing(ListenerSet()) as other,
        pytest.raises(AddressError, match=f"{address} can't be bound: it is in use"),
    ):
        bind_new(other, address)
    new, inherited = next_image(held)
    with closing(new):
        assert new.claim(inherited, [], 16, ACCESS, handed_over=True) == (address,)
        assert inherited.names() == ()


# -- from image to image -------------------------------------------------------------------------


def test_an_inherited_socket_is_adopted_with_its_queue_and_its_file(
    held: ListenerSet, address: Address
) -> None:
    held.claim(NOBODY, [address], 16, ACCESS)
    inode = os.stat(address.host).st_ino
    new, inherited = next_image(held)
    with closing(new), connect(address) as waiting:
        waiting.sendall(b"waits")
        assert new.claim(inherited, [address], 16, ACCESS, handed_over=True) == ()
        assert inherited.names() == ()
        accepted, _ = new.sockets()[address.name].accept()
        with accepted:
            assert accepted.recv(10) == b"waits"
        assert os.stat(address.host).st_ino == inode
        assert new.held == (address,)
        new.close()
    assert in_folder(address) == []


def test_what_is_no_longer_wanted_is_known_by_its_file_and_removed_when_it_is_withdrawn(
    held: ListenerSet, address: Address
) -> None:
    held.claim(NOBODY, [address], 16, ACCESS)
    new, inherited = next_image(held)
    with closing(new):
        assert new.claim(inherited, [], 16, ACCESS, handed_over=True) == (address,)
        queued = connect(address)
        new.withdraw([address])
        assert in_folder(address) == []
        assert new.held == ()
        assert new.to_hand_over() == []
        with closing(queued):
            accepted, _ = new.sockets()[address.name].accept()
            accepted.close()
        new.forget([address])
        assert new.sockets() == {}


def test_a_path_that_became_anothers_is_left_alone_and_bound_anew(
    held: ListenerSet, address: Address
) -> None:
    held.claim(NOBODY, [address], 16, ACCESS)
    os.unlink(address.host)
    assert held.held == ()
    assert held.plan([address]).bind == (address,)
    with other_daemon(address.host):
        with pytest.raises(AddressError, match="in use"):
            bind_new(held, address)
        new, inherited = next_image(held)
        with closing(new):
            new.claim(inherited, [address], 16, ACCESS, handed_over=True)
            new.withdraw([address])
        assert in_folder(address) == ["api.sock"], "the other one's"
    bind_new(held, address)
    held.listen_new(16)
    new, inherited = next_image(held)
    with closing(new):
        assert new.claim(inherited, [address], 16, ACCESS, handed_over=True) == ()
        assert new.held == (address,)
        assert connects(address)


def test_a_socket_under_a_wrong_name_is_refused(held: ListenerSet, address: Address) -> None:
    not_listening = socket.socket(socket.AF_UNIX)
    tcp = socket.create_server(("127.0.0.1", 0))
    other = other_daemon("\0netclaw-test-other")
    abstract = parse_address("unix:@netclaw-test-mine")
    for wanted, sock in ((address, not_listening), (address, tcp), (abstract, other)):
        inherited = Inheritance([Named(wanted.name, sock.detach())])
        with pytest.raises(AddressError, match="is not the socket that its name says"):
            held.claim(inherited, [wanted], 16, ACCESS)
    assert held.held == ()


# -- mode and owner of what stays ----------------------------------------------------------------


def test_another_mode_is_given_to_the_socket_that_is_served(
    held: ListenerSet, address: Address
) -> None:
    held.claim(NOBODY, [address], 16, ACCESS)
    inode = os.stat(address.host).st_ino
    narrow = UnixAccess(0o600, "", "")
    bind_new(held, address, access=narrow)
    assert stat.S_IMODE(os.stat(address.host).st_mode) == 0o660, "only tried"
    assert in_folder(address) == ["api.sock"]
    held.give_access(narrow)
    info = os.stat(address.host)
    assert (stat.S_IMODE(info.st_mode), info.st_ino) == (0o600, inode)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_an_owner_is_given_and_taken_back(held: ListenerSet, address: Address) -> None:
    held.claim(NOBODY, [address], 16, UnixAccess(0o660, "nobody", "nogroup"))
    info = os.stat(address.host)
    assert (info.st_uid, info.st_gid) == owner_of(UnixAccess(0, "nobody", "nogroup"))
    held.give_access(ACCESS)
    info = os.stat(address.host)
    assert (info.st_uid, info.st_gid) == (os.geteuid(), os.getegid())


def test_the_group_of_a_folder_that_hands_on_its_own_is_kept(
    held: ListenerSet, address: Address, tmp_path: Path
) -> None:
    group = os.getgroups()[-1] if os.getuid() else 12345
    os.chown(tmp_path, -1, group)
    tmp_path.chmod(0o2770)
    held.claim(NOBODY, [address], 16, ACCESS)
    held.give_access(ACCESS)
    assert os.stat(address.host).st_gid == group


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (UnixAccess(0o660, "no-such-user-here", ""), 'daemon.unix_user names "no-such-user-here"'),
        (UnixAccess(0o660, "", "no-such-group-here"), "daemon.unix_group names"),
        (UnixAccess(0o660, "a\0b", ""), "daemon.unix_user names"),
        (UnixAccess(0o660, "4294967295", ""), "which no account can have"),
        (UnixAccess(0o660, "", "99999999999999"), "which no account can have"),
        (UnixAccess(0o660, "\u0661", ""), "which no account can have"),
    ],
)
def test_an_account_that_this_host_lacks_is_an_error_of_meaning(
    access: UnixAccess, words: str
) -> None:
    with pytest.raises(ConfigMeaningError, match=words) as caught:
        owner_of(access)
    assert caught.value.remedy


def test_accounts_are_found_by_name_and_by_number() -> None:
    assert owner_of(ACCESS) == (None, None)
    assert owner_of(UnixAccess(0, "root", "root")) == (0, 0)
    assert owner_of(UnixAccess(0, "1234", "4294967294")) == (1234, 4294967294)
