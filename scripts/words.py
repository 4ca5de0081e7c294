#!/usr/bin/env python3
"""Checks the words of comments, docs, help texts and messages.

1. Retired words. A word that only this project understands is reported with its replacement, in comments and
   string literals of Rust, Python and TypeScript, in the text of the page, and in the Markdown that users read.
2. Doc comments (`///`, `//!`). The first sentence names its subject: a noun phrase, or a verb in the third
   person. One that opens with What, Whether, Of, How… or with a pronoun, or that has no noun, is reported.

`words.py` fails on each finding outside BACKLOG, `words.py --share` prints the table of doc comments,
`words.py --list PREFIX` prints the findings below a path, `words.py --lower` lowers BACKLOG to what remains.
"""
import io
import re
import subprocess
import sys
import tokenize
from collections import defaultdict

# Findings that remain, by area: (retired words, doc comments). The figures may only shrink; an area without a
# line here has none.
BACKLOG: dict[str, tuple[int, int]] = {
    "python/outlast": (2, 0),
    "python/src": (1, 0),
    "python/tests": (2, 0),
}

# (pattern, replacement, path that it holds for). Each pattern is clearly the private use of its word: "tell them
# apart", "told to stop", "gives up after five attempts" or "in turn" stay what they are.
RETIRED = [
    (r"\btold (?!apart\b|to (?!the |its |a |an |each |those |us\b|whom |whoever |it\b|them\b))", "reported, notified", ""),
    (r"\btold(?=[.,;:!?)\"]|$)", "reported, notified", ""),
    (r"\btell(?:s|ing)? (?:of|what|why|whether|how|when|that|it|about|whom|whoever)\b(?!.* (?:apart|from|to)\b)", "report, notify, state", ""),
    (r"\b(?:a|the|one|each|every|this) look\b", "store lookup, query", ""),
    (r"\brounds?\b(?![- ](?:trip|robin|up|down|to\b))", "history rows", "crates/outlast-store/src"),
    (r"\b(?:an|the|its|their) extra\b(?! \w)", "task summary", ""),
    (r"\bat a pace\b|\b(?:is|are|was|were|be|been|workers?) let in\b|\blets (?:\w+ )?in[.,;]", "admitted; rate-limited", ""),
    (r"\bturn is\b|\ba turn (?:for|that nobody)", "admission time", "crates/outlast-core"),
    (r"\bask(?:s|ed|ing)? (?:\w+ ){0,3}back\b", "recall, recalled", ""),
    (r"\bbunch(?:es)?\b", "batch", ""),
    (r"\b(?:tasks?|attempts?|it|that|which|one|they|alerts?) (?:is|are|was|were) (?:not |long )?over(?=[.,;:)\"]|$| and\b| but\b| before\b| when\b| here\b)", "has ended, finished, terminal", ""),
    (r"\bgiven up\b", "abandoned (lease expired)", ""),
    (r"\btr(?:y|ies|ied) (?:\w+ )?(?:out )?by hand\b", "run locally", ""),
    (r"\balerts? (?:that |which )?(?:still )?(?:stands?|stood)\b|\bnone stands?\b|\bwhat stood\b", "is firing, active", ""),
    (r"\bthrift\w*\b", "bandwidth policy", ""),
    (r"\bpatience\b|\bpatient\b", "failure detector, timeout", ""),
    (r"\b(?:the|its|a lane's|lane's) flow\b", "send window", ""),
    (r"\b(?:the|its|their|commit|this|own) pace\b", "commit batching, rate limit", ""),
    (r"\bhurr(?:y|ied|ies)\b", "shorter checkpoint interval", ""),
    (r"\bshel(?:f|ves)\b", "blob service", ""),
    (r"\bhearts?\b(?!-)", "heartbeat", ""),
    (r"\banew\b", "again, restarted", ""),
    (r"\bgreedy\b", "over its disk limit", ""),
    (r"\bwish(?:es|ed)?\b", "request", ""),
    (r"\bpersons? (?:wants?|wanted|asks?|asked|overrules|means)\b", "operator request", ""),
    (r"\bow(?:e|es|ed)\b|\bowing\b(?! to)", "unacknowledged", ""),
    (r"\bno such time\b", 'invalid duration "x": …', ""),
    (r"\bwelcomed\b|\b(?:is|are|was|were) welcome\b", "accepted", ""),
]
RETIRED = [(re.compile(p, re.I), say, where) for p, say, where in RETIRED]

# Openings of a doc comment that name no subject.
OPENERS = set(
    "what whatever whether of how why when whenever where which whichever who whom whose whoever "
    "it its they them their he him that if because since until while though and or but so as "
    "is are was were those these such all everything something anything nothing none "
    "somebody someone anybody nobody one others another both not".split())
# Of these, openings that are fine before a noun: "All chunks of a manifest", "One row of the table".
QUANTIFIERS = set("all such those these one another both not so as".split())
PREPOSITIONS = set(
    "by in from for with to on at without after before between within per under over above below up into than "
    .split())
# Words that are not nouns; what has no other word has no noun.
FUNCTION_WORDS = OPENERS | PREPOSITIONS | set(
    "a an the this i we you she us me his her my our your be been being am do does did done has have had having can "
    "could may might must shall should will would no yes nor then there here now once again still yet just ever never "
    "always too very more most less least much many few some any each every either neither own same other out off down "
    "through about against during which ends end ended sent given taken made held kept said seen known needed used "
    "wanted asked told began begun begins runs ran run waits waited wait works worked lets let gives takes "
    "at last first newest oldest".split())

DOC = re.compile(r"\s*(//[/!])(?!/) ?(.*)")
RUST = re.compile(
    r'(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<raw>b?r(?P<hash>#*)".*?"(?P=hash))'
    r'|(?P<string>b?"(?:\\.|[^"\\])*")|(?P<char>b?\'(?:\\[^\']*|[^\'\\\n])\')', re.S)
SCRIPT = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<string>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)"
    r"|(?<!=)[>}](?!\s*[:,])(?P<text>[^<>{}=;()\[\]]*[a-z]{2}[^<>{}=;()\[\]]*)(?=[<{])", re.S)


def rust(text):
    fenced = False
    for m in RUST.finditer(text):
        if re.match(r"//[/!] ?```", m.group()):
            fenced = not fenced
        elif fenced and m.group().startswith(("///", "//!")):
            continue  # an example is code
        elif m.lastgroup != "char":
            is_string = not m.group("comment")
            yield text.count("\n", 0, m.start()) + 1, m.group(), is_string


def script(text):
    for m in SCRIPT.finditer(text):
        yield text.count("\n", 0, m.start()) + 1, m.group(), bool(m.group("string"))


def python(text):
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        name = tokenize.tok_name[token.type]
        if name in ("COMMENT", "STRING", "FSTRING_MIDDLE"):
            yield token.start[0], token.string, name != "COMMENT"


def markdown(text):
    fenced = False
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line, False
        elif "#" in line:
            yield number, line[line.index("#"):], False


def newest(text):
    """The part of a changelog up to its second release."""
    heads = [m.start() for m in re.finditer(r"^## ", text, re.M)]
    return text[:heads[1]] if len(heads) > 1 else text


READERS = {".rs": rust, ".py": python, ".pyi": python, ".ts": script, ".tsx": script, ".md": markdown}
MARKDOWN = re.compile(r"(README|ARCHITECTURE|CONTRIBUTING|CHANGELOG)\.md|docs/[^/]+\.md|python/README\.md|bench/README\.md")


def area(path):
    parts = path.split("/")
    if parts[0] == "crates" or parts[0] == "python" and len(parts) > 2:
        return "/".join(parts[:2])
    if parts[0] == "docs" or path.endswith(".md"):
        return "docs"
    return parts[0]


def files():
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], text=True).split("\n")
    for path in sorted(set(listed)):
        ending = path[path.rfind("."):]
        if ending not in READERS or path.startswith("dashboard/") and not path.startswith("dashboard/src/"):
            continue
        if ending == ".md" and not MARKDOWN.fullmatch(path) or path == "scripts/words.py":
            continue
        try:
            with open(path, encoding="utf-8") as f:
                yield path, f.read()
        except FileNotFoundError:  # deleted, and not committed yet
            pass


def retired(path, text):
    """Uses of retired words in one file: (line, message)."""
    if path == "CHANGELOG.md":
        text = newest(text)
    for line, part, is_string in READERS[path[path.rfind("."):]](text):
        if is_string and " " not in part.strip("\"'`"):
            continue  # a key or a name
        if path.startswith("dashboard/"):
            part = re.sub(r"\$\{[^}]*\}", "_", part)
        if path.startswith("python/") and is_string:
            part = re.sub(r"``[^`]*``|\{[^{}]*\}", "_", part)
        plain = part if is_string else re.sub(r"`[^`\n]*`", "_", part)
        for number, row in enumerate(plain.split("\n")):
            for pattern, say, where in RETIRED:
                m = path.startswith(where) and not (where and is_string) and pattern.search(row)
                if m:
                    yield line + number, f'"{m.group().strip()}" is retired; say: {say}'


def docs(text):
    """Doc comments of one Rust file: (line, first sentence)."""
    block, start, inside = [], 0, False
    for number, line in enumerate(text.split("\n") + [""], 1):
        m = DOC.match(line)
        if m and m.group(2).strip():
            if not inside:
                start, inside = number, True
                block = []
            if block is not None:
                block.append(m.group(2).strip())
            continue
        if block:  # the first paragraph ends
            yield start, re.split(r"(?<=[.;!?]) |[.!?]$", " ".join(block), maxsplit=1)[0]
        block = None
        inside = bool(m)


def opens_badly(sentence):
    """What is wrong with the first sentence of a doc comment, if anything is."""
    plain = re.sub(r"\[?`[^`]*`\]?", " Code ", sentence)
    words = re.findall(r"[^\W\d_][\w'’-]*", plain)
    if not words or re.match(r"[#|`*>-]", sentence):
        return None
    first = words[0].lower()
    second = words[1].lower() if len(words) > 1 else ""
    if first in OPENERS:
        if first not in QUANTIFIERS or second in FUNCTION_WORDS or not second:
            return f'opens with "{words[0]}"; open with a noun phrase or a verb in the third person'
    content = [w for w in words if w.lower() not in FUNCTION_WORDS]
    if not content or first in PREPOSITIONS and len(words) <= 4:
        return "has no noun; name the thing"
    return None


def main():
    arguments = sys.argv[1:]
    words, openings, totals = defaultdict(list), defaultdict(list), defaultdict(int)
    for path, text in files():
        where = area(path)
        words[where] += [f"{path}:{line}: {message}" for line, message in retired(path, text)]
        if path.endswith(".rs"):
            for line, sentence in docs(text):
                totals[where] += 1
                wrong = opens_badly(sentence)
                if wrong:
                    openings[where].append(f"{path}:{line}: doc comment {wrong}: {sentence[:60]}")
    areas = sorted(set(words) | set(totals))
    if arguments[:1] == ["--share"]:
        rows = [(a, totals[a], len(openings[a])) for a in areas if totals[a]]
        rows.append(("all", sum(r[1] for r in rows), sum(r[2] for r in rows)))
        print(f"{'doc comments':28} {'all':>6} {'badly':>6} {'share':>6}")
        for name, total, bad in rows:
            print(f"{name:28} {total:6} {bad:6} {100 * bad / total:5.1f}%")
    elif arguments[:1] == ["--lower"]:
        lower(areas, words, openings)
    elif arguments[:1] == ["--list"]:
        for line in sum([words[a] + openings[a] for a in areas], []):
            if line.startswith(arguments[1] if len(arguments) > 1 else ""):
                print(line)
    elif arguments:
        sys.exit(__doc__)
    else:
        check(areas, words, openings)


def lower(areas, words, openings):
    rows = ""
    for a in areas:
        found, allowed = (len(words[a]), len(openings[a])), BACKLOG.get(a, (0, 0))
        left = tuple(map(min, found, allowed))
        if any(left):
            rows += f'    "{a}": {left},\n'
    with open(__file__, encoding="utf-8") as f:
        text = f.read()
    text = re.sub(r"(?ms)^(BACKLOG.*?= \{\n).*?^\}", lambda m: m.group(1) + rows + "}", text, count=1)
    with open(__file__, "w", encoding="utf-8") as f:
        f.write(text)


def check(areas, words, openings):
    failed = False
    for a in areas:
        for found, allowed, kind in zip((words[a], openings[a]), BACKLOG.get(a, (0, 0)), ("retired words", "doc comments")):
            if len(found) > allowed:
                failed = True
                print(f"{a}: {len(found)} {kind}, {allowed} allowed", file=sys.stderr)
                print("".join(f"  {line}\n" for line in found), end="", file=sys.stderr)
            elif len(found) < allowed:
                print(f"{a}: {len(found)} {kind}, {allowed} allowed: lower the figure in scripts/words.py")
    if failed:
        sys.exit("words: say it plainly (CONTRIBUTING.md), or see scripts/words.py")
    print(f"words: {sum(map(len, words.values()))} retired and {sum(map(len, openings.values()))} doc comments remain")


main()
