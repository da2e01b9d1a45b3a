"""Lists of logs, as the witness network publishes them. https://witness-network.org/log-list-format"""

import tracemalloc

import pytest

from translog.core.keys import KeyType
from translog.errors import MalformedError
from translog.witness.loglist import KEYS_MAX, QUERIES_PER_DAY, KnownLog, parse_log_list, require_log
from witness.made_log import MadeLog, make_key

LOGS = [MadeLog(f"log.example/{number}", types=(KeyType.ED25519,)) for number in range(3)]
VKEYS = [str(log.vkeys[0]) for log in LOGS]
LIST = f"""#
# List:      10qps-1Mlogs
#
logs/v0

# 1st list item
vkey {VKEYS[0]}
qpd 86400
contact https://tlog.foo.org/contact | or (at) bar.org
unknown
foo bar

vkey {VKEYS[1]}
origin go.sum database tree
   # indented, and the last line has no newline
contact none
vkey {VKEYS[2]}
origin none
bastion https://bastion.example/
qpd 24"""


def test_a_list_is_read() -> None:
    assert parse_log_list(LIST.encode()) == [
        KnownLog(
            origin="log.example/0",
            vkeys=LOGS[0].vkeys,
            queries_per_day=86_400,
            contact="https://tlog.foo.org/contact | or (at) bar.org",
            source="list",
        ),
        KnownLog(
            origin="go.sum database tree", vkeys=LOGS[1].vkeys, queries_per_day=QUERIES_PER_DAY, contact="none", source="list"
        ),
        KnownLog(origin="log.example/2", vkeys=LOGS[2].vkeys, queries_per_day=24, source="list"),
    ]
    assert parse_log_list(LIST.replace("\n", "\r\n").encode()) == parse_log_list(LIST.encode())
    assert parse_log_list(LIST.encode(), queries_per_day=7)[1].queries_per_day == 7


def test_an_empty_list_has_no_logs() -> None:
    assert parse_log_list(b"# nothing yet\nlogs/v0\n") == []
    assert parse_log_list(b"\xef\xbb\xbflogs/v0") == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("# only a comment\n", ""),
        ("logs/v1\n", "line 1"),
        (f"vkey {VKEYS[0]}\n", "line 1"),
        ("logs/v0\norigin x\n", "line 2"),
    ],
)
def test_what_is_no_list_is_malformed_also_for_those_who_skip(text: str, line: str) -> None:
    told: list[MalformedError] = []
    for skip in (None, told.append):
        with pytest.raises(MalformedError) as raised:
            parse_log_list(text.encode(), skip=skip)
        assert line in raised.value.detail
    assert told == []


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ("vkey nonsense", 2),
        ("vkey", 2),
        (f"vkey {VKEYS[0]}x", 2),
        (f"vkey {make_key('w', KeyType.COSIGNATURE_ED25519).vkey}", 2),
        (f"vkey {VKEYS[0]}\nqpd 0", 2),
        (f"vkey {VKEYS[0]}\nqpd many", 2),
        (f"vkey {VKEYS[0]}\nqpd 024", 2),
        (f"vkey {VKEYS[0]}\nqpd 9999999999999", 2),
        (f"vkey {VKEYS[0]}\norigin a\n\norigin b", 5),
        (f"vkey {VKEYS[0]}\norigin {'x' * 256}", 2),
        (f"vkey {VKEYS[0]}\norigin", 2),
    ],
)
def test_a_log_that_cannot_be_read_is_told_or_left_out(lines: str, line: int) -> None:
    data = f"logs/v0\n{lines}\nvkey {VKEYS[1]}\n".encode()
    with pytest.raises(MalformedError) as raised:
        parse_log_list(data)
    assert f"line {line}:" in raised.value.detail
    told: list[MalformedError] = []
    assert [log.origin for log in parse_log_list(data, skip=told.append)] == ["log.example/1"]
    assert [str(error) for error in told] == [str(raised.value)]


@pytest.mark.parametrize("line", ["qpd 1", "x y", "vkey x", ""])
def test_a_list_takes_a_few_times_its_text_whatever_is_in_it(line: str) -> None:
    data = f"logs/v0\nvkey {VKEYS[0]}\n".encode() + f"{line}\n".encode() * 50_000
    told: list[int] = []
    tracemalloc.start()
    try:
        parse_log_list(data, skip=lambda error: told.append(1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(data) + 1_000_000
    assert len(told) == {"qpd 1": 1, "vkey x": 50_000}.get(line, 0)


def test_the_first_log_of_an_origin_counts() -> None:
    data = f"logs/v0\nvkey {VKEYS[0]}\nvkey {VKEYS[1]}\norigin log.example/0\n".encode()
    told: list[MalformedError] = []
    assert [log.vkeys for log in parse_log_list(data, skip=told.append)] == [LOGS[0].vkeys]
    assert "line 3: " in told[0].detail


def test_what_can_be_no_log_is_refused() -> None:
    vkeys = LOGS[0].vkeys
    require_log(KnownLog(origin="a b+c \u2028", vkeys=vkeys))
    for bad in (
        KnownLog(origin="", vkeys=vkeys),
        KnownLog(origin="a\nb", vkeys=vkeys),
        KnownLog(origin="\ud800", vkeys=vkeys),
        KnownLog(origin="\u00e4" * 128, vkeys=vkeys),
        KnownLog(origin="a", vkeys=()),
        KnownLog(origin="a", vkeys=vkeys * (KEYS_MAX + 1)),
        KnownLog(origin="a", vkeys=vkeys, queries_per_day=0),
        KnownLog(origin="a", vkeys=vkeys, contact="x" * 1_001),
        KnownLog(origin="a", vkeys=vkeys, poll_url="x" * 2_001),
    ):
        with pytest.raises(MalformedError):
            require_log(bad)
