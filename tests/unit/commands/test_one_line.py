"""A mistake in the options of a command: one line that names the command, from every command of this kind."""

import pytest

from attn_lightning.commands.compare import compare_command
from attn_lightning.commands.experiments import experiments_command
from attn_lightning.commands.predict import predict_command
from attn_lightning.commands.report import report_command
from attn_lightning.commands.search import search_command
from attn_lightning.commands.study import study_command
from attn_lightning.commands.sweep import sweep_command
from attn_lightning.errors import ConfigurationError

COMMANDS = {
    "compare": compare_command,
    "experiments": experiments_command,
    "predict": predict_command,
    "report": report_command,
    "search": search_command,
    "study": study_command,
    "sweep": sweep_command,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_one_line_that_names_the_command(name, capsys):
    with pytest.raises(ConfigurationError, match=rf"; run `{name} --help` for the options\.$") as raised:
        COMMANDS[name](["--nonsense"])
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().err == ""
