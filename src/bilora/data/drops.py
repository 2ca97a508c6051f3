"""Count the rows that each rule refused, with examples."""

from __future__ import annotations

from bilora.data_reports import DropExample, DroppedRule
from bilora.records import Sample

_EXAMPLES = 3
_EXCERPT_CHARS = 160


class Drops:
    """Counts refused rows by rule and keeps the first few of each as examples."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[DropExample]] = {}
        self._origins: dict[int, str] = {}

    def record_origin(self, sample: Sample, origin: str) -> None:
        """Record the file and line of a sample's row. Keyed by identity, as two samples may be equal."""
        self._origins[id(sample)] = origin

    def location(self, sample: Sample) -> str:
        """Return a sample's source with the file and line of its row, if known."""
        return _location(sample.source, self._origins.get(id(sample), ""))

    def add(self, rule: str, *, source: str, origin: str = "", detail: str = "", excerpt: str = "") -> None:
        """Count one refused row; `origin` is its file and line."""
        source = _location(source, origin)
        self._counts[rule] = self._counts.get(rule, 0) + 1
        examples = self._examples.setdefault(rule, [])
        if len(examples) < _EXAMPLES:
            detail, excerpt = detail[:_EXCERPT_CHARS], excerpt[:_EXCERPT_CHARS]
            examples.append(DropExample(source=source, detail=detail, excerpt=excerpt))

    def add_sample(self, rule: str, sample: Sample, detail: str = "") -> None:
        """Count one refused sample."""
        self.add(
            rule,
            source=sample.source,
            origin=self._origins.get(id(sample), ""),
            detail=detail,
            excerpt=sample.prompt,
        )

    def rules(self) -> tuple[DroppedRule, ...]:
        """Return one entry per rule, the most frequent first."""
        rules = sorted(self._counts, key=lambda rule: (-self._counts[rule], rule))
        return tuple(
            DroppedRule(rule=rule, count=self._counts[rule], examples=tuple(self._examples[rule])) for rule in rules
        )


def _location(source: str, origin: str) -> str:
    return f"{source} ({origin})" if origin and origin != source else source
