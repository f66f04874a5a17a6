"""What a JSON value may look like: a closed union of shapes that refer to each other by their place in a Plan."""

from typing import NamedTuple


class Text(NamedTuple):
    """A string of at least `least` and at most `most` characters; None is without an end."""

    least: int
    most: int | None


class Whole(NamedTuple):
    """A whole number within both bounds."""

    low: int
    high: int


class Number(NamedTuple):
    """Any number."""


class Literals(NamedTuple):
    """One of these values, as they are written."""

    words: tuple[bytes, ...]


class Rows(NamedTuple):
    """A list: the shapes of its first items, the shape of all further ones (None: there are none), and its length."""

    first: tuple[int, ...]
    rest: int | None
    least: int
    most: int | None

    def item(self, at: int) -> int:
        """The shape of an item that `most` allows."""
        if at < len(self.first):
            return self.first[at]
        assert self.rest is not None
        return self.rest


class Table(NamedTuple):
    """An object: its properties in the order in which they are written, quoted names, and the shape of all others."""

    names: tuple[bytes, ...]
    values: tuple[int, ...]
    needed: tuple[bool, ...]
    rest: int | None


class Choice(NamedTuple):
    """Any of several shapes, none of which is a choice."""

    options: tuple[int, ...]


Shape = Text | Whole | Number | Literals | Rows | Table | Choice


class Plan(NamedTuple):
    """`heights[i]` is how deep the shallowest value of `shapes[i]` nests; infinite where there is no value."""

    shapes: tuple[Shape, ...]
    heights: tuple[float, ...]
    root: int
