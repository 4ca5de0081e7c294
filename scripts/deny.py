"""Checks what we depend on: licences, sources, and crates that we do not want.

What `cargo deny check licenses bans sources` does, without its ten minutes of building.
Advisories need a database from outside and are checked by `cargo audit` where there is one.
"""
import json, re, subprocess, sys

LICENCES = {
    "MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC",
    "Zlib", "0BSD", "CC0-1.0", "Unlicense", "Unicode-3.0", "BSL-1.0", "MIT-0", "CDLA-Permissive-2.0",
}
# Why: we speak TLS by rustls alone.
BANNED = {"openssl", "openssl-sys", "native-tls"}


def allowed(expression):
    """Whether one side of every OR is allowed."""
    parts = re.sub(r"[()]", "", expression.replace("/", " OR "))
    return any(all(t.strip() in LICENCES for t in side.split(" AND ")) for side in parts.split(" OR "))


meta = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked"]))
bad = []
for package in meta["packages"]:
    name = f"{package['name']} {package['version']}"
    licence = package["license"] or ""
    if not allowed(licence):
        bad.append(f"{name}: licence {licence or 'unknown'}")
    if package["source"] and not package["source"].startswith("registry+"):
        bad.append(f"{name}: from {package['source']}")
    if package["name"] in BANNED:
        bad.append(f"{name}: not wanted here")
if bad:
    sys.exit("dependencies that this project does not accept:\n  " + "\n  ".join(bad))
print(f"{len(meta['packages'])} packages, all acceptable")
