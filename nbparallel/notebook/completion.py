"""Completion of what follows a magic's name: its options, or the words that it knows. Made by `load`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher


def matcher(words: Mapping[str, Iterable[str]]) -> Callable[[CompletionContext], SimpleMatcherResult]:
    """Return what IPython's completer asks.

    Args:
        words: what may follow, by magic. Those that begin with a minus are options, offered where a minus is typed.
    """

    @context_matcher()  # type: ignore[untyped-decorator]
    def complete_magic(context: CompletionContext) -> SimpleMatcherResult:
        before = context.line_with_cursor[: context.cursor_position].lstrip()
        name, _, typed = before.rpartition("%")[2].partition(" ")
        last = typed.split(" ")[-1]
        known = words.get(name, ()) if "%" in before else ()
        fitting = [each for each in known if each.startswith(last) and (last or not each.startswith("-"))]
        found = [SimpleCompletion(text=each, type="option") for each in fitting]
        return {"completions": found, "matched_fragment": last, "suppress": bool(found)}

    return complete_magic  # type: ignore[no-any-return]
