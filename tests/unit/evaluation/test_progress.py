"""What a person sees of an evaluation: one line per part, plain in a file, and nothing without a console."""

import io

from rich.console import Console

from attn_lightning.evaluation.progress import Progress


def shown(progress_of, **options) -> str:
    file = io.StringIO()
    progress_of(Progress(Console(file=file, width=60, **options)))
    return file.getvalue()


def run(progress: Progress) -> None:
    with progress.part("loo [all]", 10) as advance:
        advance(4)
        advance(6)


def test_a_log_file_gets_one_line_per_part_with_its_seconds():
    text = shown(run)
    assert text.startswith("loo [all]: ")
    assert text.endswith(" s\n")
    assert text.count("\n") == 1


def test_a_terminal_gets_a_bar_that_goes_away():
    text = shown(run, force_terminal=True)
    assert "loo [all]" in text
    assert text.rstrip().endswith("s")


def test_a_quiet_one_leaves_notes_alone_behind():
    console = Console(file=io.StringIO(), width=60)
    progress = Progress(console, quiet=True).about("untrained model: ")
    run(progress)
    progress.kept("loo")
    progress.note("few texts")
    assert console.file.getvalue() == "untrained model: note: few texts\n"


def test_lines_say_what_is_kept_and_noted_and_about_which_model():
    assert shown(lambda progress: progress.kept("loo")) == "loo: kept from an earlier evaluation\n"
    assert shown(lambda progress: progress.note("few texts")) == "note: few texts\n"
    console = Console(file=io.StringIO(), width=60)
    Progress(console).about("untrained model: ").kept("loo")
    assert console.file.getvalue() == "untrained model: loo: kept from an earlier evaluation\n"


def test_without_a_console_nothing_is_shown_and_parts_run(capsys):
    progress = Progress()
    run(progress)
    progress.kept("loo")
    assert capsys.readouterr() == ("", "")
