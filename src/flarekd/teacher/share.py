"""One process's share of the cases through a teacher: tumour pseudo-labels and their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flarekd import fusion_table
from flarekd.cohort import Case
from flarekd.errors import FAILURES, NoRoomError, UsageError, reason
from flarekd.imaging import checks
from flarekd.imaging.files import read_volume, write_labels
from flarekd.imaging.volume import LabelMap
from flarekd.inference.predictor import Predictor
from flarekd.inference.runtimes import Runtime
from flarekd.ledger import DONE, Ledger, forget_figures, stamp
from flarekd.teacher.figures import judge_label
from flarekd.teacher.segment import SliceSettings, find_tumors, load, voxel_ml

PROBABILITY = "probability"
"""Folder of the tumour probabilities, below the pseudo-labels."""


@dataclass(frozen=True)
class Extras:
    """What is written beside the pseudo-labels.

    Attributes:
        probability: Whether the tumour probability is, as uint8.
        quality: Whether the figures of ``quality.py`` are; the teacher then runs twice.
        against: Model file of another teacher that labels the second time; the same one on the scan
            flipped left to right where left out.
        previous: Folders of pseudo-labels of earlier rounds, oldest first.
        organs: Folder of organ pseudo-labels, for the figures; a case that it has none of keeps
            the one of cohort.csv.
    """

    probability: bool = False
    quality: bool = False
    against: Path | None = None
    previous: tuple[Path, ...] = ()
    organs: Path | None = None

    def refuse_idle(self) -> None:
        """Refuse what only the figures take where none are asked for.

        Raises:
            UsageError: If something is.
        """
        given = {"--against": self.against, "--previous": self.previous, "--organs": self.organs}
        idle = [option for option, value in given.items() if value]
        if idle and not self.quality:
            what = f"{' and '.join(idle)} would do nothing: only figures take that"
            raise UsageError(what, "add --quality, or leave that out")


@dataclass(frozen=True)
class Share:
    """What all cases of a process share.

    Attributes:
        teacher: The network.
        second: That of ``extras.against``.
        out: Gets the pseudo-labels.
        extras: What is written beside.
        labels: What is labelled.
        figures: What is judged.
        say: Told what is done beside the labels.
        warn: Told what to look at.
        unlike: What is asked of the teacher otherwise than its model file says.
    """

    teacher: Predictor
    second: Predictor | None
    out: Path
    extras: Extras
    labels: Ledger
    figures: Ledger
    say: Callable[[str], None]
    warn: Callable[[str], None]
    unlike: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        model: Path,
        where: torch.device,
        runtime: Runtime,
        out: Path,
        *,
        extras: Extras,
        settings: SliceSettings,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> Share:
        """Make the networks ready; `settings` are the teacher's, not those of ``extras.against``.

        Raises:
            InputError: If a model is no teacher of tumours.
            UsageError: If the runtime is not there.
        """
        teacher = load(model, where, runtime)
        second = load(extras.against, where, runtime) if extras.against is not None else None
        unlike = settings.unlike(teacher.card)
        return cls(
            settings.of(teacher), second, out, extras, *ledgers(out), say, warn, unlike=unlike
        )

    @property
    def how(self) -> dict[str, Any]:
        """What runs the network and how, for the report."""
        looking = self.teacher.card.looking.model_dump(include=set(asdict(SliceSettings())))
        return {"runtime": self.teacher.runtime, **looking}

    def refuse_changed(self, cases: Sequence[Case]) -> None:
        """Refuse to make labels anew that a person changed.

        Raises:
            InputError: If there are such.
        """
        replaced = {}
        for case in cases:
            with suppress(OSError):  # told when it is done
                if not self._is_done(case, *self._keys(case)):
                    replaced[case.case] = targets(self.out, case)
        self.labels.refuse_changed(replaced)

    def label(self, case: Case) -> str | None:
        """Label one case, where that or something beside it is missing or out of date.

        Returns:
            Why it failed, None where it did not.

        Raises:
            NoRoomError: If the disk is full.
        """
        try:
            self._do(case)
        except NoRoomError:
            raise
        except FAILURES as error:
            return reason(error)
        return None

    def _do(self, case: Case) -> None:
        target, probability = targets(self.out, case)
        case.refuse_own([target, probability])
        key, judged = self._keys(case)
        if self._is_done(case, key, judged):
            return
        self.labels.begin(case.case)
        forget_figures(tables(self.out), self.say)
        for path in (target, probability):
            path.unlink(missing_ok=True)  # of another teacher: if this fails, none
        try:
            facts = self._label(case, judged)
        except FAILURES:
            self.labels.give_up(case.case, target, probability)
            raise
        self.labels.add(case.case, key, target, probability, **facts)

    def _label(self, case: Case, judged: str) -> dict[str, Any]:
        """Label one case, and judge it where `judged` is not empty."""
        target, probability = targets(self.out, case)
        volume = read_volume(case.image)
        for note in (*volume.notes, *checks.of_scan(volume.array)):
            self.warn(f"{case.image}: {note}")
        beside = self.extras.probability
        chances = np.zeros(volume.array.shape, np.uint8) if beside or judged else None
        found, labels, dropped = find_tumors(self.teacher, volume, probability=chances)
        if judged and chances is not None:
            figures, rows = judge_label(
                self.teacher,
                self.second,
                case,
                volume,
                labels=labels,
                probability=chances,
                rounds=self._rounds(case),
            )
            self.figures.add(case.case, judged, figures=figures, components=rows)
        if beside and chances is not None:
            write_labels(probability, LabelMap(chances, volume.geometry))
        write_labels(target, LabelMap(labels, volume.geometry))
        return {
            "tumor_ml": round(float((labels > 0).sum()) * voxel_ml(volume), 3),
            "dropped": dropped,
            "windows_run": found.windows_run,
            "windows_total": found.windows_total,
        }

    def _keys(self, case: Case) -> tuple[str, str]:
        """What a case's label, and its figures, are known by; empty where none are wanted."""
        how = [dict(self.unlike)] if self.unlike else []
        key = stamp(self.teacher.sha256, self.teacher.runtime, *how, case.image)
        return key, stamp(key, *self._judged_by(case)) if self.extras.quality else ""

    def _is_done(self, case: Case, key: str, judged: str) -> bool:
        target, probability = targets(self.out, case)
        beside = [probability] if self.extras.probability else []
        is_judged = not judged or self.figures.is_done(case.case, judged)
        return is_judged and self.labels.is_done(case.case, key, target, *beside)

    def _judged_by(self, case: Case) -> list[Any]:
        """All that the figures depend on, beside teacher and scan."""
        second = self.second.sha256 if self.second else "flipped"
        rounds = [path for path in self._rounds(case) if path.exists()]
        sources = [path for path in (case.label, case.organ_pseudo) if path]
        return [second, sorted(case.annotated), len(rounds), *rounds, *sources]

    def _rounds(self, case: Case) -> list[Path]:
        return [folder / f"{case.case}.nii.gz" for folder in self.extras.previous]


def ledgers(out: Path) -> tuple[Ledger, Ledger]:
    """What is labelled, and what is judged."""
    return Ledger(out / DONE), Ledger(out / "quality.jsonl")


def targets(out: Path, case: Case) -> list[Path]:
    """The pseudo-label and the probability of a case."""
    name = f"{case.case}.nii.gz"
    return [out / name, out / PROBABILITY / name]


def tables(out: Path) -> list[Path]:
    """The tables of figures of all cases."""
    return [out / fusion_table.QUALITY, out / fusion_table.COMPONENTS]
