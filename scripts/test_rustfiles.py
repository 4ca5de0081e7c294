"""Tests of the reader of Rust files that arrows.py uses: small crates, and what it must find in them."""
import tempfile
import unittest
from pathlib import Path

from rustfiles import Crate, circles


def crate(**files):
    """A crate of these files; two underscores in a name stand for a folder."""
    root = Path(tempfile.mkdtemp())
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".rs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Crate("small", root / "lib.rs")


def names(found):
    """The arrows as words: from, to, and what is taken."""
    return {(one.stem, other.stem): taken for (one, other), taken in found.arrows().items()}


class Arrows(unittest.TestCase):
    def test_imports_and_inline_paths_tie_a_circle(self):
        found = crate(
            lib="mod a;\nmod b;\n",
            a="use crate::b::{self, One as Uno};\npub fn f() { b::g(); }\n",
            b="pub struct One;\npub fn g() {}\nfn h() { crate::a::f() }\n",
        )
        self.assertEqual(names(found), {("a", "b"): {"One", "g"}, ("b", "a"): {"f"}})
        self.assertEqual([[f.stem for f in group] for group in circles(found.arrows())], [["a", "b"]])

    def test_a_parent_that_calls_its_child_must_not_be_imported_by_it(self):
        found = crate(
            lib="mod m;\n",
            m__mod="mod child;\npub struct Shared;\npub fn start() { child::run() }\n",
            m__child="use super::Shared;\npub fn run() {}\n",
        )
        self.assertEqual(names(found), {("mod", "child"): {"run"}, ("child", "mod"): {"Shared"}})

    def test_a_name_that_is_only_passed_on_is_its_own_file_s(self):
        found = crate(
            lib="mod m;\nmod user;\npub use m::Thing;\n",
            m__mod="mod child;\npub use child::Thing;\n",
            m__child="pub struct Thing;\n",
            user="use crate::m::Thing;\nfn f(_: Thing) {}\n",
        )
        self.assertEqual(names(found), {("user", "child"): {"Thing"}})

    def test_tests_comments_and_literals_import_nothing(self):
        found = crate(
            lib="mod a;\nmod b;\n",
            a='// crate::b::f\nconst S: &str = "crate::b::f";\n#[cfg(test)]\nmod tests {\n    use crate::b::f;\n}\n'
              "#[cfg(test)]\nfn helper() {\n    crate::b::f();\n}\n",
            b="pub fn f() { crate::a::missing::g(); }\npub fn g<'a>(x: &'a str) -> char { 'x' }\n",
        )
        self.assertNotIn(("a", "b"), names(found))

    def test_long_functions_are_found(self):
        body = "    work();\n" * 79
        found = crate(lib=f"fn fits() {{\n{body[12:]}}}\n\nimpl X {{\n    pub async fn long() {{\n{body}    }}\n}}\n")
        self.assertEqual([(name, lines) for _, name, lines in found.functions(80)], [("long", 81)])


unittest.main()
