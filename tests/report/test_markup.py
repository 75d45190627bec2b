from __future__ import annotations

from wellfit.report.markup import Html, block, escape, join, name, prose, table, tag


def test_text_is_escaped_and_markup_is_not_escaped_twice() -> None:
    inner = tag("b", "<i>")
    assert tag("p", inner, " & ", 3) == "<p><b>&lt;i&gt;</b> &amp; 3</p>"
    assert isinstance(inner, Html)


def test_attributes_are_quoted_and_renamed() -> None:
    assert tag("td", class_="a", aria_label='" onclick="x', title=None) == (
        '<td class="a" aria-label="&quot; onclick=&quot;x"></td>'
    )


def test_void_elements_have_no_end() -> None:
    assert tag("img", src="data:,", alt="<") == '<img src="data:," alt="&lt;">'


def test_joining_markup_gives_markup_and_leaves_out_none() -> None:
    assert join(tag("b"), None, ["x", ("<",)]) == "<b></b>x&lt;"
    assert escape(join("<")) == "&lt;"
    # Ordinary string operations fall back to plain text, which is escaped again rather than trusted.
    assert escape(tag("b") + "<i>") == "&lt;b&gt;&lt;/b&gt;&lt;i&gt;"


def test_prose_sets_backticks_as_code_but_not_a_lone_one() -> None:
    assert prose("run `a <b>` now") == 'run <code class="short">a &lt;b&gt;</code> now'
    assert prose("5` long") == "5` long"


def test_names_are_isolated_and_cut_with_the_whole_on_hover() -> None:
    assert name("<x>") == "<bdi>&lt;x&gt;</bdi>"
    cut = name("y" * 50, limit=5)
    assert cut == f'<bdi title="{"y" * 50}">yyyy…</bdi>'


def test_blocks_keep_lines() -> None:
    assert "<pre>a &lt; b\n    c</pre>" in block("a < b\n\tc")
    assert "cut here" in block("x\n" * 100, limit=20)


def test_tables_scroll_and_set_numbers_flush_right() -> None:
    made = table(("n", "k"), [("<", 1)], numeric=(1,), caption="C")
    assert '<td class="number">1</td>' in made
    assert "<td>&lt;</td>" in made
    assert 'class="scroll"' in made
    assert 'aria-label="C"' in made
