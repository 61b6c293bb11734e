"""`python -m tests.docs`: render what the pages and the reference file have from the code."""

from signald.config import render_markdown, render_toml
from signald.service.meters import render_table
from tests.docs.code import ROOT
from tests.docs.drawings import render
from tests.docs.reference import FOLDER
from tests.docs.reference import render as reference

KEYS = "## All keys\n\n"

render()
(ROOT / "conf/signald.toml").write_text(render_toml(), encoding="utf-8")
configuration = ROOT / "docs/configuration.md"
before = configuration.read_text(encoding="utf-8").partition(KEYS)[0]
configuration.write_text(before + KEYS + render_markdown(), encoding="utf-8")
metrics = ROOT / "docs/metrics.md"
head = render_table().partition("\n")[0]
before, _, rest = metrics.read_text(encoding="utf-8").partition(head)
metrics.write_text(before + render_table() + rest[rest.index("\n\n") + 1 :], encoding="utf-8")
FOLDER.mkdir(exist_ok=True)
for name, page in reference().items():
    (FOLDER / name).write_text(page, encoding="utf-8")
