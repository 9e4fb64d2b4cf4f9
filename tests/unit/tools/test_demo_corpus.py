"""The demo corpus: what the files hold, and that the answers are right by the running interpreter's own account."""

import ast
import builtins
import importlib
import inspect
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import demo_corpus
import demo_facts
import demo_sources
import pytest
from demo_facts import Fact
from demo_sources import Module
from hypothesis import given
from hypothesis import strategies as st

from glm130b.config.errors import UserError

# Importing these has no effect to speak of, they run the Python that their source shows, and together they are varied.
CHECKED_MODULES = (
    "argparse", "ast", "calendar", "configparser", "contextlib", "csv", "dataclasses", "difflib", "email.message",
    "fileinput", "fnmatch", "fractions", "gzip", "http.client", "inspect", "ipaddress", "json.decoder",
    "json.encoder", "logging", "logging.config", "logging.handlers", "mailbox", "numbers", "optparse", "pprint",
    "queue", "random", "reprlib", "selectors", "shlex", "shutil", "socketserver", "statistics", "string", "tarfile",
    "tempfile", "textwrap", "threading", "tokenize", "traceback", "unittest.case", "urllib.parse", "urllib.request",
    "uuid", "weakref", "xml.dom.minidom", "zipfile",
)  # fmt: skip


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return demo_sources.read_modules(demo_sources.standard_library_folder())


@pytest.fixture(scope="module")
def facts(modules: list[Module]) -> list[Fact]:
    return demo_facts.library_facts(modules)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "made" / "here"
    assert demo_corpus.main([str(folder)]) == 0
    return folder


def records(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def characters(path: Path) -> int:
    return sum(len(record["text"]) for record in records(path))


def test_the_folder_holds_the_four_files_and_nothing_half_written(corpus: Path) -> None:
    assert {path.name for path in corpus.iterdir()} == {"english.jsonl", "code.jsonl", "chinese.jsonl", "facts.jsonl"}


def test_english_and_code_are_enough_to_train_a_tokenizer_and_no_document_is_long(corpus: Path) -> None:
    assert 1_500_000 < characters(corpus / "english.jsonl") < 3_500_000
    assert 2_500_000 < characters(corpus / "code.jsonl") <= demo_corpus.CODE_CHARACTERS
    for name in ("english", "code"):
        lengths = [len(record["text"]) for record in records(corpus / f"{name}.jsonl")]
        assert min(lengths) >= demo_corpus.SHORTEST_TEXT
        assert max(lengths) <= demo_corpus.LONGEST_DOCUMENT


def test_a_known_docstring_is_in_the_english_and_a_known_package_of_tests_is_not(corpus: Path) -> None:
    english = "\n".join(record["text"] for record in records(corpus / "english.jsonl"))
    docstring = inspect.cleandoc(importlib.import_module("textwrap").dedent.__doc__)
    assert f"textwrap.dedent\n{demo_corpus.unwrapped(docstring)}" in english
    assert not re.search(r"^(test|lib2to3|ensurepip|site-packages)\.", english, re.MULTILINE)


def test_the_script_writes_the_same_bytes_whatever_the_hash_seed(corpus: Path, root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "tools" / "demo_corpus.py"), str(tmp_path)]
    subprocess.run(command, env={"PYTHONPATH": str(root), "PYTHONHASHSEED": "7"}, check=True, capture_output=True)
    for path in corpus.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_line_is_printed_for_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo_corpus.write_records(tmp_path / "a.jsonl", [{"text": "一二三"}, {"text": "four"}])
    assert capsys.readouterr().out == f"{tmp_path / 'a.jsonl'}: 2 documents, 7 characters\n"
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == '{"text": "一二三"}\n{"text": "four"}\n'


def test_an_interrupted_write_leaves_the_finished_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    demo_corpus.write_records(path, [{"text": "whole"}])
    unwritable: list[dict[str, str]] = [{"text": "half"}, {"text": object()}]  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        demo_corpus.write_records(path, unwritable)
    assert records(path) == [{"text": "whole"}]


def test_the_chinese_has_more_than_six_hundred_sentences_and_says_none_twice(corpus: Path) -> None:
    text = "\n".join(record["text"] for record in records(corpus / "chinese.jsonl"))
    sentences = [sentence.strip("“”’‘ ") for sentence in re.findall(r"[^。！？\n]+[。！？]", text)]
    assert len(sentences) >= 600
    assert len(set(sentences)) == len(sentences)


def test_the_chinese_sentences_do_not_share_a_template() -> None:
    sentences = re.findall(r"[^。！？\n]+[。！？]", demo_corpus.CHINESE.read_text(encoding="utf-8"))
    openings = [sentence.lstrip("“”")[:5] for sentence in sentences]
    assert max(openings.count(opening) for opening in set(openings)) <= 4


def test_pairs_are_as_many_and_as_short_as_an_instruction_set_needs(corpus: Path) -> None:
    pairs = records(corpus / "facts.jsonl")
    assert 3_000 <= len(pairs) <= 8_000
    assert len({pair["inputs"] for pair in pairs}) == len(pairs)
    assert all(pair["inputs"].strip() and pair["targets"].strip() for pair in pairs)
    assert max(len(pair["inputs"].split()) for pair in pairs) <= 40
    assert max(len(pair["targets"].split()) for pair in pairs) <= 25
    assert 1_500 <= sum(re.search("[一-鿿]", pair["inputs"]) is not None for pair in pairs) <= len(pairs) // 2


def test_every_pair_is_a_worded_fact_or_written_by_hand(corpus: Path, facts: list[Fact]) -> None:
    known = set(demo_facts.hand_written_pairs())
    for fact in facts:
        for wordings in demo_facts.WORDINGS[fact.kind].values():
            known.update(demo_facts.worded(fact, wording) for wording in wordings)
    assert {(pair["inputs"], pair["targets"]) for pair in records(corpus / "facts.jsonl")} <= known


def test_the_hand_written_answers_stand_in_the_chinese_text() -> None:
    text = demo_corpus.CHINESE.read_text(encoding="utf-8")
    pairs = demo_facts.hand_written_pairs()
    assert len(pairs) >= 100
    assert [pair for pair in pairs if pair[1] not in text] == []


def home(dotted: str) -> tuple[ModuleType, list[str]]:
    """The longest module that the dotted name begins with, and the names that are left."""
    name = max((name for name in CHECKED_MODULES if dotted.startswith(f"{name}.")), key=len)
    return importlib.import_module(name), dotted[len(name) + 1 :].split(".")


def found(dotted: str) -> object:
    value, names = home(dotted)
    for name in names:
        value = getattr(value, name)
    return value


def signature(dotted: str) -> inspect.Signature:
    """The signature as the source has it, through decorators that keep ``__wrapped__``."""
    function = inspect.unwrap(getattr(found(dotted), "__func__", found(dotted)))
    return inspect.signature(function)


def answer_to_purpose(fact: Fact) -> str:
    docstring = inspect.cleandoc(found(fact.subject).__doc__ or "")
    return fact.answer if " ".join(docstring.split()).startswith(fact.answer) else docstring


def answer_to_parameters(fact: Fact) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = signature(fact.subject).parameters.values()
    return ", ".join(stars.get(p.kind, "") + p.name for p in parameters if p.name not in {"self", "cls"})


def answer_to_method(fact: Fact) -> str:
    module = importlib.import_module(fact.place)
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == fact.place]
    return ", ".join(sorted({c.__name__ for c in classes if inspect.isroutine(vars(c).get(fact.subject))}))


def answer_to_module(fact: Fact) -> str:
    return str(getattr(importlib.import_module(fact.answer), fact.subject).__module__)


def answer_to_base(fact: Fact) -> str:
    if hasattr(builtins, fact.subject):
        return str(getattr(builtins, fact.subject).__base__.__name__)
    module, _ = home(fact.subject)
    (base,) = found(fact.subject).__bases__  # type: ignore[attr-defined]
    named = eval(fact.answer, dict(vars(module)))
    return fact.answer if named is base else base.__name__


def answer_to_default(fact: Fact) -> str:
    return repr(signature(fact.place).parameters[fact.subject].default)


ANSWERS: dict[str, Callable[[Fact], str]] = {
    "purpose": answer_to_purpose,
    "parameters": answer_to_parameters,
    "method": answer_to_method,
    "module": answer_to_module,
    "base": answer_to_base,
    "default": answer_to_default,
}


def checkable(facts: list[Fact], kind: str) -> Iterator[Fact]:
    """The facts of a kind that are about the modules that the test may import, or about built-in exceptions."""
    for fact in facts:
        if "getfile" in fact.subject:
            continue  # torch.package puts its own into inspect, once another test has imported torch
        place = {"module": f"{fact.answer}.", "method": f"{fact.place}.", "default": fact.place}.get(kind, fact.subject)
        if fact.kind == kind and (place.startswith(tuple(f"{name}." for name in CHECKED_MODULES)) or "." not in place):
            yield fact


@pytest.mark.parametrize("kind", demo_facts.WORDINGS)
def test_the_interpreter_gives_the_same_answers(facts: list[Fact], kind: str) -> None:
    sample = list(checkable(facts, kind))
    assert len(sample) >= 100
    differing = {fact: answer for fact in sample if (answer := ANSWERS[kind](fact)) != fact.answer}
    assert differing == {}


def test_facts_of_a_small_module() -> None:
    source = '''
class Kettle(Vessel):
    """A vessel that boils water. It has a lid."""
    def boil(self, litres, *more, degrees=100, lid=None, **rest): ...
    @property
    def lid(self): ...
def pour(cup, /, slowly=True):
    """pour(cup) -> None"""
def _hidden(a): ...
def twice(a): ...
def twice(b): ...
'''
    facts = set(demo_facts.library_facts([Module("kitchen", source)])) - set(demo_facts.exception_facts())
    assert facts == {
        Fact("base", "kitchen.Kettle", "", "Vessel"),
        Fact("purpose", "kitchen.Kettle", "", "A vessel that boils water."),
        Fact("method", "boil", "kitchen", "Kettle"),
        Fact("parameters", "kitchen.Kettle.boil", "", "litres, *more, degrees, lid, **rest"),
        Fact("default", "degrees", "kitchen.Kettle.boil", "100"),
        Fact("parameters", "kitchen.pour", "", "cup, slowly"),
        Fact("default", "slowly", "kitchen.pour", "True"),
        Fact("module", "Kettle", "", "kitchen"),
        Fact("module", "pour", "", "kitchen"),
    }


def test_wrapped_prose_is_put_on_one_line_and_nothing_else_is() -> None:
    wrapped = (
        "A sentence that is long enough to have been wrapped\nby hand.\n\n    indented\n    code\n* a\nshort\nlines"
    )
    assert demo_corpus.unwrapped(wrapped) == wrapped.replace("wrapped\nby", "wrapped by")


def test_code_is_cut_at_statements_and_loses_nothing(modules: list[Module]) -> None:
    for module in modules[::10]:
        pieces = list(demo_corpus.code_pieces(io.StringIO(module.source).readlines(), module.tree().body))
        assert "".join(pieces) == module.source
        assert all(len(piece) <= demo_corpus.LONGEST_DOCUMENT for piece in pieces)


def test_a_module_of_short_definitions_is_cut_between_them() -> None:
    source = "\n".join(f"def f{number}():\n    # {'comment ' * 20}\n    return {number}\n" for number in range(200))
    documents = list(demo_corpus.split_code(Module("m", source)))
    assert len(documents) > 5
    assert all(isinstance(ast.parse(document).body[0], ast.FunctionDef) for document in documents)


@given(st.text(alphabet="ab \n", max_size=12_000))
def test_prose_is_cut_without_losing_a_word(text: str) -> None:
    documents = list(demo_corpus.split_prose(text + "x" * demo_corpus.SHORTEST_TEXT))
    assert all(len(document) <= demo_corpus.LONGEST_DOCUMENT for document in documents)
    lost = len("".join(text.split())) + demo_corpus.SHORTEST_TEXT - len("".join("".join(documents).split()))
    assert 0 <= lost < 2 * demo_corpus.SHORTEST_TEXT


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/english\.jsonl: cannot be written \(File exists\)"):
        demo_corpus.write_records(tmp_path / "file" / "english.jsonl", [])


def test_a_zipped_standard_library_is_the_users_to_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "os.py").write_text("")
    monkeypatch.setattr(demo_corpus, "standard_library_folder", lambda: tmp_path)
    assert demo_corpus.main([str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert str(tmp_path) in message
    assert "zipped" in message
    assert not (tmp_path / "out").exists()


def test_topics_are_read_without_running_them_and_may_be_missing(tmp_path: Path) -> None:
    assert demo_sources.read_topics(tmp_path) == {}
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_text("raise SystemExit\ntopics = {'if': 'The if ' 'statement.'}\n")
    assert demo_sources.read_topics(tmp_path) == {"if": "The if statement."}
