import readme


def test_the_readme_has_the_config_reference_of_today():
    text = readme.README.read_text()
    assert readme.with_reference(text) == text
    assert "request_bytes_max" in text
