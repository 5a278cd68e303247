"""``ray-rl search``: find the order of repair whose defender does best."""

from __future__ import annotations

from ray_rl.commands.flags import check_files, parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.config import UserError
from ray_rl.search.config import SearchRun

_DESCRIPTION = (
    "Train a defender for one order of repair after another, and choose the next by what came of those before. "
    "--total-episodes and the other flags of train are those of each training, --run-dir and --resume those of the "
    "search. It leaves search.json, orders.csv, search.png, TensorBoard events and the best order's checkpoint in its "
    "folder."
)


def run(words: list[str]) -> int:
    """Search as the flags say; returns 1 when no order met the gate."""
    config = parse(SearchRun, "search", _DESCRIPTION, words, SearchRun())
    check_files(json=config.search.json_file)

    from ray_rl.search.chart import draw  # after the flags: help needs none of it
    from ray_rl.search.report import load_truth, table, to_csv, to_json
    from ray_rl.search.study import search
    from ray_rl.search.training import Z_95

    truth = None if config.search.truth is None else load_truth(config.search.truth)
    console = make_console()
    result = search(config, lambda line: console.print(line, soft_wrap=True))
    found = to_json(result, truth)
    console.print(table(result, truth))
    save_json(result.path / "search.json", found)
    try:
        (result.path / "orders.csv").write_text(to_csv(result, truth), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {result.path}: {error.strerror}") from error
    draw(result, truth, result.path / "search.png")
    save_json(config.search.json_file, found)
    best = found["best"]
    if found["gaps_s"]:
        console.print(f"an order starts at most {max(found['gaps_s']):.2f} s after the end of the one before")
    if result.stopped:
        console.print(f"stopped; to go on, the same command with --run-dir {result.path} --resume", soft_wrap=True)
    if best is None:
        console.print(f"no order met the gate of compliance {result.threshold}: see {result.path}", soft_wrap=True)
        return 1
    score = f"{best['score']:.2f} ± {Z_95 * best['standard_error']:.2f}"
    console.print(f"best: {best['name']}, {score}; {found['episodes']} training episodes in all", soft_wrap=True)
    console.print(f"  ray-rl evaluate {result.path / 'best'}", soft_wrap=True)
    return 0
