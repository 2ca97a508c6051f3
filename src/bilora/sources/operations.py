# ruff: noqa: E501 (a table reads best one operation a line)
"""The vocabulary of generated exercises: small typed operations that chain into programs.

An operation is written once, as data. How it reads in a task text (as an instruction or as a noun
phrase) and in code (as an expression or as a loop) follows from its kind.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Literal

Type = Literal["numbers", "words", "text", "counts", "n", "flag"]
Kind = Literal["map", "filter", "fold", "plain"]


@dataclass(frozen=True)
class Operation:
    """One step from a value of type `takes` to one of type `gives`.

    `code` is, by kind: map: the new element from `v`; filter: the condition on `v`; fold: the
    statement that updates `result` by `v`; plain: the whole expression in `{x}`. `whole` is a
    fold's expression form and `start` its first value. `{k}` stands for a small constant.
    """

    name: str
    takes: Type
    gives: Type
    kind: Kind
    code: str
    verbs: tuple[str, ...]
    noun: str
    whole: str = ""
    start: str = ""

    @property
    def has_constant(self) -> bool:
        """Whether a small constant has to be chosen."""
        return "{k}" in self.code or "{k}" in self.whole

    def expression(self, x: str) -> str:
        """The operation on the expression `x`, as one expression."""
        if isinstance(ast.parse(x, mode="eval").body, ast.BinOp | ast.UnaryOp | ast.Compare | ast.BoolOp):
            x = f"({x})"
        match self.kind:
            case "map":
                return f"[{self.code} for v in {x}]"
            case "filter":
                return f"[v for v in {x} if {self.code}]"
            case "fold":
                return self.whole.replace("{x}", x)
            case "plain":
                return self.code.replace("{x}", x)

    def loop(self, x: str, out: str) -> list[str]:
        """The operation as statements that leave their value in `out`."""
        match self.kind:
            case "map":
                return [f"{out} = []", f"for v in {x}:", f"    {out}.append({self.code})"]
            case "filter":
                return [f"{out} = []", f"for v in {x}:", f"    if {self.code}:", f"        {out}.append(v)"]
            case "fold":
                body = [f"    {line}" for line in self.code.replace("result", out).splitlines()]
                return [f"{out} = {self.start}", f"for v in {x}:", *body]
            case "plain":
                return [f"{out} = {self.expression(x)}"]


def _op(
    name: str,
    takes: Type,
    gives: Type,
    kind: Kind,
    code: str,
    verbs: str,
    noun: str,
    whole: str = "",
    start: str = "",
) -> Operation:
    return Operation(name, takes, gives, kind, code, tuple(verbs.split("|")), noun, whole, start)


VOWEL = 'in "aeiouAEIOU"'

OPERATIONS: tuple[Operation, ...] = (
    # numbers → numbers
    _op("even", "numbers", "numbers", "filter", "v % 2 == 0", "keep the even numbers|drop the odd numbers", "the even numbers of {x}"),
    _op("odd", "numbers", "numbers", "filter", "v % 2 != 0", "keep the odd numbers|drop the even numbers", "the odd numbers of {x}"),
    _op("positive", "numbers", "numbers", "filter", "v > 0", "keep the positive numbers|remove all numbers that are not positive", "the positive numbers of {x}"),
    _op("negative", "numbers", "numbers", "filter", "v < 0", "keep the negative numbers|select the numbers below zero", "the negative numbers of {x}"),
    _op("above", "numbers", "numbers", "filter", "v > {k}", "keep the numbers greater than {k}|remove the numbers up to {k}", "the numbers above {k} of {x}"),
    _op("below", "numbers", "numbers", "filter", "v < {k}", "keep the numbers less than {k}|select the numbers smaller than {k}", "the numbers below {k} of {x}"),
    _op("multiples", "numbers", "numbers", "filter", "v % {k} == 0", "keep the multiples of {k}|keep the numbers divisible by {k}", "the multiples of {k} of {x}"),
    _op("squares", "numbers", "numbers", "map", "v * v", "square each number|replace every number by its square", "the squares of {x}"),
    _op("cubes", "numbers", "numbers", "map", "v ** 3", "cube each number|raise every number to the third power", "the cubes of {x}"),
    _op("doubles", "numbers", "numbers", "map", "v * 2", "double each number|multiply every number by two", "the doubles of {x}"),
    _op("scaled", "numbers", "numbers", "map", "v * {k}", "multiply each number by {k}|scale every number by {k}", "{x} multiplied by {k}"),
    _op("shifted", "numbers", "numbers", "map", "v + {k}", "add {k} to each number|increase every number by {k}", "{x} increased by {k}"),
    _op("lowered", "numbers", "numbers", "map", "v - {k}", "subtract {k} from each number|decrease every number by {k}", "{x} decreased by {k}"),
    _op("negated", "numbers", "numbers", "map", "-v", "negate each number|flip the sign of every number", "the negations of {x}"),
    _op("absolute", "numbers", "numbers", "map", "abs(v)", "take the absolute value of each number|make every number non-negative", "the absolute values of {x}"),
    _op("remainders", "numbers", "numbers", "map", "v % {k}", "take each number modulo {k}|replace every number by its remainder modulo {k}", "the remainders modulo {k} of {x}"),
    _op("halves", "numbers", "numbers", "map", "v // 2", "halve each number, rounding down|integer divide every number by two", "the floored halves of {x}"),
    _op("ascending", "numbers", "numbers", "plain", "sorted({x})", "sort the numbers in ascending order|order the numbers from smallest to largest", "{x} in ascending order"),
    _op("descending", "numbers", "numbers", "plain", "sorted({x}, reverse=True)", "sort the numbers in descending order|order the numbers from largest to smallest", "{x} in descending order"),
    _op("backward", "numbers", "numbers", "plain", "{x}[::-1]", "reverse the list of numbers|put the numbers in reverse order", "the reverse of {x}"),
    _op("distinct", "numbers", "numbers", "plain", "list(dict.fromkeys({x}))", "remove duplicate numbers|keep only the first of equal numbers", "the distinct values of {x}"),
    _op("first", "numbers", "numbers", "plain", "{x}[:{k}]", "take the first {k} numbers|keep only the first {k} numbers", "the first {k} of {x}"),
    _op("last", "numbers", "numbers", "plain", "{x}[-{k}:]", "take the last {k} numbers|keep only the last {k} numbers", "the last {k} of {x}"),
    _op("skipped", "numbers", "numbers", "plain", "{x}[{k}:]", "skip the first {k} numbers|leave out the first {k} numbers", "{x} without the first {k}"),
    _op("alternate", "numbers", "numbers", "plain", "{x}[::2]", "take every second number|keep every other number", "every second one of {x}"),
    _op("running", "numbers", "numbers", "fold", "result.append((result[-1] if result else 0) + v)", "compute the running totals|replace each number by the sum so far", "the running totals of {x}", "list(itertools.accumulate({x}))", "[]"),
    _op("steps", "numbers", "numbers", "plain", "[b - a for a, b in zip({x}, {x}[1:])]", "take the differences of neighbouring numbers|compute the difference between each number and the one before it", "the consecutive differences of {x}"),
    # numbers → n
    _op("total", "numbers", "n", "fold", "result += v", "add the numbers up|sum the numbers", "the sum of {x}", "sum({x})", "0"),
    _op("product", "numbers", "n", "fold", "result *= v", "multiply all the numbers together|compute the product of the numbers", "the product of {x}", "math.prod({x})", "1"),
    _op("size", "numbers", "n", "fold", "result += 1", "count the numbers|find how many numbers there are", "the count of {x}", "len({x})", "0"),
    _op("largest", "numbers", "n", "plain", "max({x}, default=0)", "find the largest number, or 0 if there is none|take the maximum, or 0 for no numbers", "the largest of {x} (0 if none)"),
    _op("smallest", "numbers", "n", "plain", "min({x}, default=0)", "find the smallest number, or 0 if there is none|take the minimum, or 0 for no numbers", "the smallest of {x} (0 if none)"),
    _op("spread", "numbers", "n", "plain", "max({x}, default=0) - min({x}, default=0)", "find the difference between the largest and the smallest number|compute the range of the numbers", "the range of {x}"),
    _op("tally", "numbers", "n", "plain", "{x}.count({k})", "count how often {k} occurs|find the number of times {k} appears", "the number of occurrences of {k} among {x}"),
    # numbers → words, text, flag
    _op("strings", "numbers", "words", "map", "str(v)", "convert each number to a string|turn every number into a string", "the string forms of {x}"),
    _op("dashed", "numbers", "text", "plain", '"-".join(str(v) for v in {x})', "join the numbers with dashes|write the numbers as one string separated by dashes", "the dash-separated string of {x}"),
    _op("increasing", "numbers", "flag", "plain", "{x} == sorted({x})", "check whether the numbers are in ascending order|test if the list is sorted", "whether the list of {x} is sorted"),
    _op("unique", "numbers", "flag", "plain", "len({x}) == len(set({x}))", "check whether all numbers are different|test if no number occurs twice", "whether there are no duplicates among {x}"),
    # words → words
    _op("upper", "words", "words", "map", "v.upper()", "convert each word to upper case|make every word uppercase", "the uppercase forms of {x}"),
    _op("capital", "words", "words", "map", "v.capitalize()", "capitalize each word|capitalise the first letter of every word", "the capitalized forms of {x}"),
    _op("mirrored", "words", "words", "map", "v[::-1]", "reverse each word|spell every word backwards", "the reversed forms of {x}"),
    _op("initials", "words", "words", "map", "v[:1]", "take the first letter of each word|replace every word by its first letter", "the first letters of {x}"),
    _op("endings", "words", "words", "map", "v[-1:]", "take the last letter of each word|replace every word by its last letter", "the last letters of {x}"),
    _op("stems", "words", "words", "map", "v[:{k}]", "cut each word to {k} letters|keep the first {k} letters of every word", "the first {k} letters of {x}"),
    _op("marked", "words", "words", "map", 'v + "!"', "add an exclamation mark to each word|append '!' to every word", "{x} with an exclamation mark"),
    _op("long", "words", "words", "filter", "len(v) > {k}", "keep the words longer than {k} letters|remove the words of at most {k} letters", "the words longer than {k} letters of {x}"),
    _op("short", "words", "words", "filter", "len(v) < {k}", "keep the words shorter than {k} letters|select the words with fewer than {k} letters", "the words shorter than {k} letters of {x}"),
    _op("vocalic", "words", "words", "filter", f"v[:1] {VOWEL} and v", "keep the words that start with a vowel|remove the words that do not begin with a vowel", "the words starting with a vowel of {x}"),
    _op("with_a", "words", "words", "filter", '"a" in v', "keep the words that contain the letter a|select the words containing 'a'", "the words containing 'a' of {x}"),
    _op("alphabetical", "words", "words", "plain", "sorted({x})", "sort the words alphabetically|put the words in alphabetical order", "{x} in alphabetical order"),
    _op("by_length", "words", "words", "plain", "sorted({x}, key=len)", "sort the words by length|order the words from shortest to longest", "{x} sorted by length"),
    _op("turned", "words", "words", "plain", "{x}[::-1]", "reverse the list of words|put the words in reverse order", "the reverse of {x}"),
    _op("different", "words", "words", "plain", "list(dict.fromkeys({x}))", "remove duplicate words|keep only the first of equal words", "the distinct ones of {x}"),
    _op("front", "words", "words", "plain", "{x}[:{k}]", "take the first {k} words|keep only the first {k} words", "the first {k} of {x}"),
    # words → others
    _op("lengths", "words", "numbers", "map", "len(v)", "find the length of each word|replace every word by its length", "the lengths of {x}"),
    _op("vowels_each", "words", "numbers", "map", f"sum(c {VOWEL} for c in v)", "count the vowels of each word|replace every word by its number of vowels", "the vowel counts of {x}"),
    _op("word_count", "words", "n", "fold", "result += 1", "count the words|find how many words there are", "the count of {x}", "len({x})", "0"),
    _op("letters", "words", "n", "fold", "result += len(v)", "add up the lengths of the words|count the letters of all words", "the total length of {x}", "sum(len(v) for v in {x})", "0"),
    _op("longest", "words", "text", "plain", 'max({x}, key=len, default="")', "find the longest word, or an empty string|pick the first longest word, or '' for none", "the longest of {x} (or '')"),
    _op("shortest", "words", "text", "plain", 'min({x}, key=len, default="")', "find the shortest word, or an empty string|pick the first shortest word, or '' for none", "the shortest of {x} (or '')"),
    _op("joined", "words", "text", "plain", '"".join({x})', "join the words without a separator|concatenate the words", "the concatenation of {x}"),
    _op("sentence", "words", "text", "plain", '" ".join({x})', "join the words with spaces|put the words together separated by spaces", "the space-separated string of {x}"),
    _op("listed", "words", "text", "plain", '", ".join({x})', "join the words with commas|write the words separated by a comma and a space", "the comma-separated string of {x}"),
    _op("frequency", "words", "counts", "fold", "result[v] = result.get(v, 0) + 1", "count how often each word occurs|build a dictionary from word to number of occurrences", "the occurrence counts of {x}", "{v: {x}.count(v) for v in {x}}", "{}"),
    _op("length_map", "words", "counts", "fold", "result[v] = len(v)", "map each word to its length|build a dictionary from word to length", "the word-to-length dictionary of {x}", "{v: len(v) for v in {x}}", "{}"),
    _op("positions", "words", "counts", "plain", "{v: i for i, v in enumerate({x})}", "map each word to its last index|build a dictionary from word to last position", "the word-to-last-index dictionary of {x}"),
    # text
    _op("reversed", "text", "text", "plain", "{x}[::-1]", "reverse the string|spell the string backwards", "the reverse of {x}"),
    _op("uppercase", "text", "text", "plain", "{x}.upper()", "convert the string to upper case|make the string uppercase", "the uppercase form of {x}"),
    _op("lowercase", "text", "text", "plain", "{x}.lower()", "convert the string to lower case|make the string lowercase", "the lowercase form of {x}"),
    _op("swapped", "text", "text", "plain", "{x}.swapcase()", "swap the case of each letter|turn upper case into lower case and the other way round", "the case-swapped form of {x}"),
    _op("consonants", "text", "text", "plain", '"".join(c for c in {x} if c not in "aeiouAEIOU")', "remove all vowels|delete the vowels of the string", "{x} without vowels"),
    _op("unspaced", "text", "text", "plain", '{x}.replace(" ", "")', "remove all spaces|delete the spaces of the string", "{x} without spaces"),
    _op("snake", "text", "text", "plain", '{x}.replace(" ", "_")', "replace spaces by underscores|turn every space into an underscore", "{x} with underscores for spaces"),
    _op("alphabetic", "text", "text", "plain", '"".join(c for c in {x} if c.isalpha())', "keep the letters only|remove everything that is not a letter", "the letters of {x}"),
    _op("beginning", "text", "text", "plain", "{x}[:{k}]", "take the first {k} characters|keep only the first {k} characters", "the first {k} characters of {x}"),
    _op("tail", "text", "text", "plain", "{x}[-{k}:]", "take the last {k} characters|keep only the last {k} characters", "the last {k} characters of {x}"),
    _op("repeated", "text", "text", "plain", "{x} * {k}", "repeat the string {k} times|concatenate {k} copies of the string", "{k} copies of {x}"),
    _op("sorted_letters", "text", "text", "plain", '"".join(sorted({x}))', "sort the characters|put the characters of the string in order", "the sorted characters of {x}"),
    _op("unique_letters", "text", "text", "plain", '"".join(dict.fromkeys({x}))', "remove repeated characters|keep only the first of equal characters", "the distinct characters of {x}"),
    _op("split", "text", "words", "plain", "{x}.split()", "split the string into words|break the string into its words", "the words of {x}"),
    _op("characters", "text", "words", "plain", "list({x})", "split the string into characters|list the characters", "the list of characters of {x}"),
    _op("length", "text", "n", "plain", "len({x})", "find the length of the string|count the characters", "the length of {x}"),
    _op("vowels", "text", "n", "plain", f"sum(1 for c in {{x}} if c {VOWEL})", "count the vowels|find the number of vowels", "the number of vowels of {x}"),
    _op("capitals", "text", "n", "plain", "sum(1 for c in {x} if c.isupper())", "count the uppercase letters|find how many letters are uppercase", "the number of uppercase letters of {x}"),
    _op("spaces", "text", "n", "plain", '{x}.count(" ")', "count the spaces|find the number of spaces", "the number of spaces of {x}"),
    _op("letter_counts", "text", "counts", "fold", "result[v] = result.get(v, 0) + 1", "count how often each character occurs|build a dictionary from character to number of occurrences", "the character counts of {x}", "{c: {x}.count(c) for c in {x}}", "{}"),
    _op("palindrome", "text", "flag", "plain", "{x} == {x}[::-1]", "check whether the string is a palindrome|test if the string reads the same backwards", "whether a palindrome is {x}"),
    # counts
    _op("keys", "counts", "words", "plain", "list({x})", "list the keys|collect the keys", "the keys of {x}"),
    _op("sorted_keys", "counts", "words", "plain", "sorted({x})", "list the keys in alphabetical order|collect the sorted keys", "the sorted keys of {x}"),
    _op("frequent", "counts", "words", "plain", "[v for v in {x} if {x}[v] > {k}]", "list the keys with a value above {k}|collect the keys whose value is greater than {k}", "the keys with a value above {k} of {x}"),
    _op("ranked", "counts", "words", "plain", "sorted({x}, key={x}.get)", "list the keys in order of their values|sort the keys by value", "the keys sorted by value of {x}"),
    _op("values", "counts", "numbers", "plain", "list({x}.values())", "list the values|collect the values", "the values of {x}"),
    _op("value_sum", "counts", "n", "plain", "sum({x}.values())", "add up the values|sum all values", "the sum of the values of {x}"),
    _op("value_max", "counts", "n", "plain", "max({x}.values(), default=0)", "find the largest value, or 0 if there is none|take the maximum of the values, or 0 for none", "the largest value (0 if none) of {x}"),
    _op("entries", "counts", "n", "plain", "len({x})", "count the keys|find the number of entries", "the number of keys of {x}"),
    _op("high", "counts", "counts", "plain", "{v: i for v, i in {x}.items() if i > {k}}", "keep the entries with a value above {k}|remove the entries whose value is at most {k}", "the entries above {k} of {x}"),
    _op("raised", "counts", "counts", "plain", "{v: i + {k} for v, i in {x}.items()}", "add {k} to each value|increase every value by {k}", "the entries of {x} with values increased by {k}"),
    _op("doubled", "counts", "counts", "plain", "{v: i * 2 for v, i in {x}.items()}", "double each value|multiply every value by two", "the entries of {x} with doubled values"),
    # n
    _op("squared", "n", "n", "plain", "{x} ** 2", "square the number|multiply the number by itself", "the square of {x}"),
    _op("plus", "n", "n", "plain", "{x} + {k}", "add {k} to the number|increase the number by {k}", "{k} more than {x}"),
    _op("times", "n", "n", "plain", "{x} * {k}", "multiply the number by {k}|take {k} times the number", "{k} times {x}"),
    _op("modulo", "n", "n", "plain", "{x} % {k}", "take the number modulo {k}|find the remainder after dividing by {k}", "the remainder modulo {k} of {x}"),
    _op("digit_sum", "n", "n", "plain", "sum(int(c) for c in str(abs({x})))", "add up the digits of the number|compute the digit sum", "the sum of the digits of {x}"),
    _op("digits", "n", "numbers", "plain", "[int(c) for c in str(abs({x}))]", "list the digits of the number|split the number into its digits", "the digits of {x}"),
    _op("divisors", "n", "numbers", "plain", "[d for d in range(1, {x} + 1) if {x} % d == 0]", "list the divisors of the number|find all positive divisors", "the divisors of {x}"),
    _op("up_to", "n", "numbers", "plain", "list(range(1, {x} + 1))", "list the numbers from 1 up to it|build the list of integers from 1 to the number", "the integers from 1 up to {x}"),
    _op("decimal", "n", "text", "plain", "str({x})", "convert the number to a string|write the number as a string", "the string form of {x}"),
    _op("binary", "n", "text", "plain", "bin({x})[2:]", "write the number in binary|convert the number to a binary string", "the binary form of {x}"),
    _op("is_even", "n", "flag", "plain", "{x} % 2 == 0", "check whether the number is even|test if the number is divisible by two", "whether an even number is {x}"),
    _op("exceeds", "n", "flag", "plain", "{x} > {k}", "check whether the number is greater than {k}|test if the number exceeds {k}", "whether a number above {k} is {x}"),
    _op("is_prime", "n", "flag", "plain", "{x} > 1 and all({x} % d for d in range(2, {x}))", "check whether the number is prime|test if the number is a prime", "whether a prime number is {x}"),
)  # fmt: skip
