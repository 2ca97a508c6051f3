from __future__ import annotations

import pytest

from bilora.english import is_english


@pytest.mark.parametrize(
    "text",
    [
        "Compute the Poincaré sum.",
        "Naïve Bayes classifier predictions.",
        "Keep x ≤ 3 and y ≠ ∞.",
        "Estimate the Kullback-Leibler divergence α → β.",
        "Permutations for scrambling a Van der Corput sequence.",
        "Compute the de la Vallée-Poussin mean.",
        "Add up all the numbers 🎉.",
        "Convert the name 中文 to pinyin syllables.",
        "Die when the list is empty.",
    ],
)
def test_names_with_accents_and_symbols_are_english(text: str) -> None:
    assert is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "Addiert alle Zahlen der Liste und gibt die Summe.",
        "Gibt größere Zahlen mit Vorzeichen aus der Liste.",
        "Renvoie la somme des éléments d'une liste.",
        "Devuelve la suma de los números.",
        "Restituisce gli elementi della lista.",
        "Geeft het grootste getal van een lijst.",
        "把列表中的所有数字相加",
        "Возвращает сумму всех чисел.",
        "[0, 1, 2, 3] ((4)) -> {5: 6} == 7 // 8",
    ],
)
def test_other_languages_are_not(text: str) -> None:
    assert not is_english(text)
