"""`spikevrt config`: so far, `config import`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikevrt.verbs.options import LAYOUT, add_verb

if TYPE_CHECKING:
    from spikevrt.migrate.config_file import Imported


def add(verbs: Any) -> None:
    about = "Convert configs of the reference system."
    parser = verbs.add_parser("config", help=about, description=about, allow_abbrev=False, formatter_class=LAYOUT)
    parser.set_defaults(parser=parser)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_import(actions)


def add_import(actions: Any) -> None:
    parser = add_verb(actions, "import", _import, "spikevrt config import OLD.yaml --out configs/new.yaml")
    parser.add_argument("old", type=Path, metavar="OLD.yaml", help="upper-case YAML of the reference system")
    parser.add_argument("--out", type=Path, metavar="YAML", help="write the new config (only tell)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")
    parser.add_argument("--partial", action="store_true", help="write it without the refused keys, which it names")


def _import(parsed: argparse.Namespace) -> None:
    """Tell what becomes of every key of an upper-case config; write the config that it makes."""
    from spikevrt.migrate.config_file import import_config, read_old_config

    out: Path | None = parsed.out
    for name in ("overwrite", "partial"):
        if getattr(parsed, name) and out is None:
            raise ValueError(f"--{name}: only with --out")
    if out is not None:
        if out.exists() and parsed.old.exists() and out.samefile(parsed.old):
            raise ValueError(f"{out}: is the old config itself; choose another --out")
        if out.exists() and not (parsed.overwrite and out.is_file()):
            raise FileExistsError(
                f"{out}: exists; choose another --out" + (" or pass --overwrite" if out.is_file() else "")
            )
    imported = import_config(read_old_config(parsed.old))
    for line in imported.lines:
        print(line)
    count = f"{len(imported.refused)} of {len(imported.lines)} keys refused"
    if imported.refused and not parsed.partial:
        partial = ", or pass --partial to write it without them" if out is not None else ""
        raise ValueError(f"{parsed.old}: {count} (listed above); change or remove them{partial}")
    for command in imported.commands:
        print(f"to be given to the command: {command}")
    if out is None:
        print(f"{len(imported.lines)} keys, none refused")
        return
    _write(out, parsed.old, imported)
    print(f"{count}; all that is not named has its default -> {out}")


def _write(out: Path, old: Path, imported: Imported) -> None:
    import yaml

    from spikevrt.atomic import write_text

    head = [f"From {old.name}, by `spikevrt config import`."]
    head += [f"Give to the command: {command}" for command in imported.commands]
    head += [f"Not in it: {line}" for line in imported.refused]
    text = "".join(f"# {' '.join(line.split())}\n" for line in head)
    text += yaml.safe_dump(imported.config.to_dict(), sort_keys=False, allow_unicode=True)
    write_text(out, text)
