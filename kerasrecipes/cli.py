"""The command `kerasrecipes`: baseline, predict, list, show, copy, run."""

import argparse
import shlex
import sys

from kerasrecipes.data.read import BadInput


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def parser():
    """What the command understands."""
    top = Parser(prog="kerasrecipes", description="Baselines and recipes for Keras 3.")
    commands = top.add_subparsers(dest="command", required=True, parser_class=Parser)
    add = commands.add_parser(
        "baseline", help="from data to classical baselines, a network and a report"
    )
    add.add_argument(
        "data",
        nargs="?",
        default="digits",
        help="digits (default), mnist, fashion_mnist, a CSV or TSV file, or an .npz",
    )
    add.add_argument("--target", help="name of the target's column, or its index from 0; the last")
    add.add_argument("--no-header", action="store_true", help="the first row is no header")
    add.add_argument("--task", choices=["classification", "regression"], help="if misrecognised")
    add.add_argument("--out", help="a new folder (default: runs/NAME-N)")
    add.add_argument("--seed", type=int, default=0)
    add.add_argument("--epochs", type=int, help="by default from the size of the data")
    add.add_argument("--budget", type=float, default=10.0, metavar="MINUTES", help="default 10")
    add.add_argument("--quiet", action="store_true", help="only the table of results")
    add = commands.add_parser("predict", help="predictions of a baseline for new rows")
    add.add_argument("folder", help="what baseline wrote")
    add.add_argument("data", help="a file like the one it was trained on, the target not needed")
    add.add_argument("--out", help="a new CSV file (default: the terminal)")
    commands.add_parser("list", help="the recipes, each with its measured result")
    for name, text in (("show", "a recipe's header"), ("run", "runs a recipe")):
        commands.add_parser(name, help=text).add_argument("name")
    add = commands.add_parser("copy", help="writes a recipe's single file")
    add.add_argument("name")
    add.add_argument("destination", nargs="?", help="file or folder (default: here)")
    return top


def baseline(args, argv):
    from kerasrecipes.methodology.baseline import baseline_of
    from kerasrecipes.methodology.folder import free_folder
    from kerasrecipes.methodology.source import from_anything

    source = from_anything(args.data, args.target, False if args.no_header else None)
    result = baseline_of(
        source,
        task=args.task,
        out=args.out or free_folder(source.name),
        seed=args.seed,
        epochs=args.epochs,
        budget=args.budget,
        quiet=args.quiet,
        command=shlex.join(["kerasrecipes", *argv]),
    )
    print(result)
    print("{title}. {reason}".format(**result.findings[0]))
    print(f"written to {result.folder}: open report.html; train.py is yours")
    return 130 if result.metrics["ended"] == "interrupted" else 0


def predict(args, argv):
    from kerasrecipes.methodology.predicting import predict_file

    predict_file(args.folder, args.data, args.out)
    return 0


def recipes(args, argv):
    from kerasrecipes.methodology import catalogue

    return catalogue.COMMANDS[args.command](
        **{name: value for name, value in vars(args).items() if name != "command"}
    )


def main(argv=None):
    """Runs the command.

    Args:
        argv: its arguments; None for those of the process.

    Returns:
        The exit status: 0, 2 for bad input, 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parser().parse_args(argv)
    act = {"baseline": baseline, "predict": predict}.get(args.command, recipes)
    try:
        return act(args, argv)
    except (BadInput, ImportError) as error:
        print(f"kerasrecipes: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kerasrecipes: interrupted; nothing was written", file=sys.stderr)
        return 130
