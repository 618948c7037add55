"""Files: names that are safe whatever they are made of."""

from attn_lightning.files import file_name


def test_names_of_files_have_safe_signs_only():
    made = file_name("strip", "", "evaluation/a/b[where=scores,epsilon=1.0]")
    assert made == "strip-evaluation-a-b-where=scores-epsilon=1.0"
    assert "/" not in file_name("../../etc")
    assert file_name("\x1b[31m<script>\u202e") == "31m-script"
    assert len(file_name("x" * 500)) == 150
