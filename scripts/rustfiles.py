"""The files of a Rust crate as its modules name them: which file takes which names from which other one, and
how long files and functions are. Read from the source text, tests aside; the code is formatted by rustfmt."""
import re
from pathlib import Path

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
STRINGS = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^'\\\n])'""", re.S)
TEST = re.compile(r"^( *)#\[cfg\((?:all\()?test\b[^\n]*\]\n(?: *#\[[^\n]*\]\n)*", re.M)
CHILD = re.compile(rf'(?:^|\n) *(?:#\[path = "([^"]+)"\]\s*)?(?:pub(?:\([^)]*\))? )?mod ({NAME})( \{{|;)')
USE = re.compile(r"(?:^|\n)( *)(pub(?:\([^)]*\))? )?use ([^;]+);")
PATH = re.compile(rf"(?<![A-Za-z0-9_:$.]){NAME}(?:::{NAME})+")
ITEM = re.compile(
    rf"(?:^|\n)(?:pub(?:\([^)]*\))? )?(?:(?:const|async|unsafe|extern|default|auto) )*"
    rf"(?:fn|struct|enum|union|trait|type|const|static|macro_rules!) (?:mut )?({NAME})")
STRUCT = re.compile(r"^(?:pub(?:\([^)]*\))? )?struct (\w+)[^{;(]*\{\n(.*?)^\}", re.M | re.S)
FIELD = re.compile(r"^    (?:pub(?:\([^)]*\))? )?\w+:", re.M)
FUNCTION = re.compile(
    r'^( *)(?:pub(?:\([^)]*\))? )?(?:(?:const|async|unsafe|extern(?: "[^"]*")?|default) )*fn (\w+)')


def blanked(text):
    """Blanks comments and literals; lines stay where they are."""
    return STRINGS.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def end_of(lines, at):
    """The last line of the item that begins on line `at`."""
    indent = re.match(" *", lines[at])[0]
    for n in range(at, len(lines)):
        line = lines[n].rstrip()
        if line == indent + "}" or n > at and re.fullmatch(rf"{indent}\}}[;,)]*", line):
            return n
        begun = line.startswith(indent) and line[len(indent):len(indent) + 1] not in (" ", "")
        if (n == at or begun) and line.endswith((";", "}")):
            return n
    return len(lines) - 1


def without_tests(text):
    """Removes items under `#[cfg(test)]`."""
    while found := TEST.search(text):
        before, lines = text[:found.start()], text[found.end():].split("\n")
        text = before + "\n".join(lines[end_of(lines, 0) + 1:])
    return text


def leaves(tree, before=()):
    """The paths in a `use` declaration, with the name that each is known by here."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        path, _, alias = tree.partition(" as ")
        names = before + tuple(n.strip() for n in path.split("::") if n.strip())
        if names and names[-1] == "self":
            names = names[:-1]
        yield names, alias.strip() or (names[-1] if names else "")
        return
    head = before + tuple(n.strip() for n in tree[:brace].split("::") if n.strip())
    depth, part = 0, ""
    for c in tree[brace + 1:tree.rindex("}")] + ",":
        depth += (c == "{") - (c == "}")
        if c == "," and depth == 0:
            if part.strip():
                yield from leaves(part, head)
            part = ""
        else:
            part += c


class Module:
    """One module: its file, what it declares, what it uses."""

    def __init__(self, path, file, text):
        self.path, self.file, self.children, self.uses, self.globs = path, file, {}, {}, []
        self.text = text
        self.items = set(ITEM.findall(text))


class Crate:
    """The modules below one root file."""

    def __init__(self, name, root):
        self.name, self.modules, self.lines = name, {}, {}
        self.load((), Path(root), Path(root).parent)

    def load(self, path, file, folder):
        raw = file.read_text()
        text = without_tests(blanked(raw))
        self.lines[file] = text
        self.declare(path, file, folder, text)

    def declare(self, path, file, folder, text):
        module = self.modules[path] = Module(path, file, text)
        for found in CHILD.finditer(text):
            at, name, kind = found[1], found[2], found[3]
            below = path + (name,)
            if kind == ";":
                places = [file.parent / at] if at else [folder / f"{name}.rs", folder / name / "mod.rs"]
                for place in places:
                    if place.is_file():
                        self.load(below, place, place.parent if place.name == "mod.rs" else folder / name)
                        module.children[name] = below
            else:
                module.children[name] = below
                lines = text[found.start():].lstrip("\n").split("\n")
                inner = "\n".join(lines[1:end_of(lines, 0)])
                indent = re.match(" *", inner)[0]
                self.declare(below, file, folder / name, re.sub(rf"(?m)^{indent}", "", inner))
        for found in USE.finditer(text):
            for names, alias in leaves(found[3]):
                if names and names[-1] == "*":
                    module.globs.append((names[:-1], bool(found[2])))
                elif names:
                    module.uses[alias] = (names, bool(found[2]))

    def target(self, module, names, seen=()):
        """The module that defines what a path names, and the name; none outside of the crate."""
        first, rest = names[0], names[1:]
        key = (module.path, names)
        if key in seen or len(seen) > 20:
            return None
        seen += (key,)
        if first == "crate":
            return self.within(self.modules[()], rest, seen)
        if first == "self":
            return self.within(module, rest, seen)
        if first == "super":
            above = self.modules.get(module.path[:-1])
            return above and (self.target(above, rest, seen) if rest[:1] == ("super",)
                              else self.within(above, rest, seen))
        if first in module.children or first in module.uses:
            return self.within(module, names, seen)
        return None

    def within(self, module, names, seen=()):
        if not names:
            return module, None
        first, rest = names[0], names[1:]
        if first in module.children:
            return self.within(self.modules[module.children[first]], rest, seen)
        if first in module.items:
            return module, first
        if first in module.uses:
            path = module.uses[first][0]
            if path != (first,):
                # Names within a type are its own.
                return self.target(module, path + rest, seen)
            return None
        for path, _ in module.globs:
            below = self.target(module, path, seen) if path else None
            if below and below[1] is None and below[0] is not module:
                found = self.within(below[0], names, seen + ((module.path, names),))
                if found and found[1]:
                    return found
        # What a macro made, or what is only named in a type.
        return (module, first) if module.path and not rest else None

    def arrows(self):
        """(file, other file) -> the names that the first takes from the second."""
        arrows = {}
        for module in self.modules.values():
            # A module may be re-exported under the name of one of its items.
            outside = re.sub(r"\bmod \w+;", "", USE.sub("", module.text))
            for names, public in module.globs:
                if not public:
                    self.note(arrows, module, names)
            for alias, (names, public) in module.uses.items():
                used = not public or re.search(rf"\b{alias}\b", outside)
                found = self.target(module, names)
                # A module is taken by what is used of it, which the paths below say.
                if used and found and found[1]:
                    self.note(arrows, module, names)
            for path in set(PATH.findall(outside)):
                self.note(arrows, module, tuple(path.split("::")))
        return arrows

    def note(self, arrows, module, names):
        found = self.target(module, names)
        for count in range(len(names) - 1, 0, -1):
            if found:
                break
            found = self.target(module, names[:count])
        if found and found[0].file != module.file:
            arrows.setdefault((module.file, found[0].file), set()).add(found[1] or names[-1])

    def lengths(self):
        """Lines of each file, without its tests."""
        for file, text in self.lines.items():
            yield file, len(text.rstrip().split("\n"))

    def structs(self):
        """The structs with named fields: (file, name, number of fields)."""
        for file, text in self.lines.items():
            for found in STRUCT.finditer(text):
                yield file, found[1], len(FIELD.findall(found[2]))

    def functions(self, most):
        """Functions of more than `most` lines: (file, name, lines)."""
        for file, text in self.lines.items():
            lines = text.split("\n")
            for n, line in enumerate(lines):
                if found := FUNCTION.match(line):
                    long = end_of_function(lines, n, found[1]) - n + 1
                    if long > most:
                        yield file, found[2], long


def end_of_function(lines, at, indent):
    for n in range(at, len(lines)):
        line = lines[n].rstrip()
        if line == indent + "}" or n == at and line.endswith(("}", ";")):
            return n
        if n > at and line.startswith(indent + ")") and line.endswith(";"):
            return n
    return at


def circles(arrows):
    """Groups of files that reach each other, by Tarjan's algorithm."""
    after = {}
    for one, other in arrows:
        after.setdefault(one, []).append(other)
    index, low, stack, on, found = {}, {}, [], set(), []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        on.add(node)
        for other in after.get(node, []):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in on:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
                on.discard(group[-1])
            if len(group) > 1:
                found.append(sorted(group))
    for node in list(after):
        if node not in index:
            visit(node)
    return sorted(found)
