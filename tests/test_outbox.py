"""What tasks said: the order in which it is shown, what is kept of it, and what a notebook is spared."""

from __future__ import annotations

import pytest

from nbparallel.engine.relay import OWN
from nbparallel.engine.work import Said
from nbparallel.output import outbox
from nbparallel.output.outbox import Budget, Budgets, Kept, Outbox


def out(text: str) -> Said:
    return Said("stdout", text)


def shown(box: Outbox) -> str:
    return "".join(said.text for said in box.take())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_text_comes_as_it_comes_and_in_few_pieces() -> None:
    box = Outbox("live")
    for index, said in enumerate(
        [out("a\n"), out("b\n"), Said("stderr", "c\n"), Said("log", "d"), out("e"), out("f\n")]
    ):
        box.put(index, said)
    assert [(said.kind, said.text) for said in box.take()] == [
        ("stdout", "a\nb\n"),
        ("stderr", "c\n"),
        ("log", "d"),
        ("stdout", "e"),
        ("stdout", "f\n"),
    ]
    assert list(box.take()) == []


def test_ordered_text_waits_for_all_tasks_before_its_own() -> None:
    box = Outbox("ordered")
    box.put(1, out("1 first\n"))
    box.put(2, out("2\n"))
    box.put(0, out("0 first\n"))
    assert shown(box) == "0 first\n"  # the first that is not finished is shown live
    box.settled(1, 1)
    box.put(0, out("0 last\n"))
    assert shown(box) == "0 last\n"
    box.settled(0, 1)
    assert shown(box) == "1 first\n2\n"  # task 2 is the first now
    box.put(2, out("2 last\n"))
    assert shown(box) == "2 last\n"


def test_ordered_text_of_no_task_does_not_wait() -> None:
    box = Outbox("ordered")
    box.put(5, out("5\n"))
    box.put(-1, out("an initializer\n"))
    box.put(OWN, out("a notice\n"))
    assert shown(box) == "an initializer\na notice\n"


def test_at_the_end_nothing_waits_any_more() -> None:
    box = Outbox("ordered")
    box.put(7, out("7\n"))
    box.put(4, out("4\n"))
    box.end()
    box.put(2, out("a worker's last words\n"))
    assert shown(box) == "4\n7\na worker's last words\n"


def test_tasks_that_are_known_already_hold_nothing_up() -> None:
    box = Outbox("ordered")
    box.settled(0, 3)
    box.put(3, out("3\n"))
    assert shown(box) == "3\n"


@pytest.mark.parametrize("output", ["collect", None])
def test_what_is_not_shown(output: outbox.Output) -> None:
    kept = Kept(lambda: 2)
    box = Outbox(output, kept)
    box.put(1, out("a task\n"))
    box.put(OWN, out("a notice\n"))
    box.settled(0, 2)
    box.end()
    assert shown(box) == "a notice\n"
    assert list(kept) == (["", "a task\n"] if output == "collect" else ["", ""])


def test_what_is_kept_is_read_as_a_list_is() -> None:
    kept = Kept(lambda: 4)
    kept.add(1, "one, ")
    kept.add(3, "three")
    kept.add(1, "again")
    kept.add(-1, "outside")
    assert list(kept) == ["", "one, again", "", "three"]
    assert kept[1:3] == ["one, again", ""]
    assert kept[-1] == "three"
    assert kept.outside == "outside"
    assert repr(kept) == "<output of 4 tasks, of which 2 have written>"
    with pytest.raises(IndexError):
        kept[4]


def test_what_is_kept_is_bounded_and_says_what_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "TASK_CHARACTERS", 10)
    monkeypatch.setattr(outbox, "RUN_CHARACTERS", 25)
    kept = Kept(lambda: 4)
    for _ in range(3):
        kept.add(0, "1234\n")
    kept.add(1, "exactly 10")
    kept.add(2, "some more")
    kept.add(3, "too late")
    assert list(kept) == [
        "1234\n1234\n[5 characters more were not kept]\n",
        "exactly 10",
        "some \n[4 characters more were not kept]\n",
        "[8 characters more were not kept]\n",
    ]
    other = Kept(lambda: 4)
    other.inherit(kept, [0, 1])
    assert list(other) == [kept[0], kept[1], "", ""]


def test_a_flood_is_folded_by_whole_lines_and_says_so() -> None:
    clock = Clock()
    budgets = Budgets(clock)
    kept = Kept(lambda: 1)
    box = Outbox("live", kept, budgets)
    line = "x" * 99 + "\n"
    box.put(0, out(line * 11_000))  # 1.1 million characters
    assert shown(box) == line * 10_000
    box.put(0, out(line))
    clock.now = 1.0
    box.put(0, out(line))
    assert shown(box) == ""  # too soon
    clock.now = 3.0
    box.put(0, out("at rest\n"))
    told = "[1,002 lines (100,200 characters) folded here: more than a notebook can show; "
    assert shown(box) == f"{told}the run's `output` keeps the text]\nat rest\n"


def test_what_was_folded_is_said_at_the_end_on_a_line_of_its_own() -> None:
    budgets = Budgets(Clock())
    box = Outbox("live", budgets=budgets)
    box.put(0, out("begun"))
    box.put(0, out("x" * 2_000_000))
    for _ in range(700):
        box.put(0, Said("display", "<Figure>"))
    box.put(0, Said("log", "a record is for files too"))
    box.end()
    said = list(box.take())
    displays = [each for each in said if each.kind == "display"]
    assert len(displays) == 500
    assert "".join(each.text for each in said if each.kind == "stdout") == (
        "begun\n[1 line (2,000,000 characters) folded here: more than a notebook can show]\n"
        "[200 displays folded here: more than a notebook can show]\n"
    )
    assert sum(each.kind == "log" for each in said) == 1


def test_what_waits_for_its_turn_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "WAITING_CHARACTERS", 10)
    box = Outbox("ordered")
    box.put(1, out("12345\n"))
    box.put(2, out("12345\n"))
    box.put(1, out("1\n"))
    box.put(2, Said("log", "as long as it likes"))
    box.settled(0, 1)
    assert shown(box) == "12345\n1\n"
    box.settled(1, 1)
    box.end()
    assert shown(box) == "as long as it likes[1 line (6 characters) folded here: more than a notebook can show]\n"


def test_a_budget_is_filled_again_and_never_over() -> None:
    clock = Clock()
    budget = Budget(8, 2, clock)
    assert budget.grant(5) == 5
    clock.now = 100.0
    assert budget.grant(10) == 8
    assert budget.grant(1) == 0
    clock.now = 100.5
    assert budget.grant(1, refused=True) == 0  # less than a quarter is back
    assert budget.grant(1) == 1  # which does not matter to others
    clock.now = 101.5
    assert budget.grant(1, refused=True) == 1


def test_a_flood_hides_neither_how_it_ended_nor_what_others_say() -> None:
    clock = Clock()
    budgets = Budgets(clock)
    flood, other = Outbox("live", budgets=budgets), Outbox("live", budgets=budgets)
    flood.put(0, out("x" * 3_000_000))  # one line, of which nothing can be shown: it takes nothing from others
    other.put(0, out("at once\n"))
    assert shown(other) == "at once\n"
    flood.put(0, out("x\n" * 1_000_000))
    flood.put(0, Said("traceback", "ZeroDivisionError\n"))
    clock.now = 0.1  # far less than a quarter is back
    flood.put(0, out("more\n"))
    other.put(0, out("soon\n"))
    assert shown(flood).endswith("here: more than a notebook can show]\nZeroDivisionError\n")
    assert shown(other) == "soon\n"
