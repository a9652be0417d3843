"""Several studies on an index, two folders compared, a sweep followed live."""

import contextlib
import dataclasses
import http.client
import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from optstudy import report
from optstudy.errors import UserError
from optstudy.report.comparison import compare_rows
from optstudy.report.index import slugs
from optstudy.report.live import Load, make_server, version
from optstudy.results.estimate import over_seeds
from optstudy.results.figure import Figure
from optstudy.results.table import Row
from tests import sweeps


def small(**changes: object) -> Figure:
    return sweeps.figure(seeds=1, points=3, **changes)


def test_an_index_links_a_page_for_each_study(tmp_path: Path) -> None:
    studies = [small(), small(name="paper/fig2", rows=[], missing=3)]
    written = report.write_index(studies, tmp_path, ["html", "svg"], "The paper at pico")
    names = [str(path.relative_to(tmp_path)) for path in written]
    assert names == ["index.html", "paper-fig1/index.html", "paper-fig1/figure.svg", "paper-fig2/index.html"]
    text = (tmp_path / "index.html").read_text()
    for link in re.findall(r'href="([^"]*)"', text):
        assert (tmp_path / link).is_file()
    assert "Adam at learning rate" in text and "No run has finished yet" in text and "3 missing" in text
    assert 'href="../index.html"' in (tmp_path / "paper-fig1/index.html").read_text()


def test_an_index_in_an_unknown_format_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown report format"):
        report.write_index([small()], tmp_path / "out", ["docx"], "x")
    assert not (tmp_path / "out").exists()


def test_what_other_processes_draw_is_what_this_one_draws(tmp_path: Path) -> None:
    studies = [small(), small(name="paper/fig2", rows=[], missing=3)]
    with report.drawing_pool(len(studies)) as pool:
        theirs = report.write_index(studies, tmp_path / "theirs", report.FORMATS, "x", pool=pool)
    mine = report.write_index(studies, tmp_path / "mine", report.FORMATS, "x")
    assert [path.read_bytes() for path in theirs] == [path.read_bytes() for path in mine]


def test_folders_of_an_index_are_safe_and_distinct() -> None:
    names = ["paper/fig1", "paper fig1", "../../etc/passwd", "..", "", "Ünïcode", "<b>"]
    made = slugs([small(name=name) for name in names])
    assert made[:3] == ["paper-fig1", "paper-fig1-2", "etc-passwd"]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]*", slug) for slug in made)


def record(folder: Path, rows: list[Row]) -> Path:
    """Write rows as the runs folder they would come from."""
    for row in rows:
        run = folder / row.id
        run.mkdir(parents=True)
        result = {k: v for k, v in dataclasses.asdict(row).items() if k != "config"}
        (run / "config.json").write_text(json.dumps(row.config))
        (run / "result.json").write_text(json.dumps({**result, "format": 1}))
    return folder


def test_two_runs_folders_are_paired_by_id(tmp_path: Path) -> None:
    before = [sweeps.row("adam", lr, 5.0 + lr) for lr in (1e-3, 1e-2)] + [sweeps.row("lion", 1e-3, 5.5)]
    after = [
        dataclasses.replace(row, val_loss=(row.val_loss or 0) - 0.25, step_ms=15.0) for row in before[:2]
    ]
    found = report.compare(record(tmp_path / "a", before), record(tmp_path / "b", after))
    (group,) = found.groups
    assert found.same_ids == len(group.pairs) == 2
    assert group.loss.value == pytest.approx(-0.25) and group.loss.half_width == pytest.approx(0, abs=1e-9)
    assert (group.step, group.memory) == (0.5, 1.0)
    assert [row.optimizer for row in found.only_before] == ["lion"] and found.only_after == []
    (page,) = report.write_comparison(found, tmp_path / "out")
    assert "-0.2500" in page.read_text()
    console = Console(file=io.StringIO())
    report.show_comparison(found, console)
    assert isinstance(console.file, io.StringIO)
    assert re.search(r"^Adam +2 +-0\.2500 ± 0\.0000", console.file.getvalue(), re.M)
    assert f"Only in {tmp_path / 'a'}: 1 runs." in console.file.getvalue()


def test_runs_whose_ids_changed_are_paired_by_what_both_configs_know() -> None:
    before = [sweeps.row("adam", lr, 5.0, seed) for lr in (1e-3, 1e-2) for seed in (0, 1)]
    after = []
    for row in before:
        config = {**row.config, "numerics": 2, "new": {"option": True}, "scale": "renamed"}
        after.append(dataclasses.replace(row, id=f"new{row.id}", config=config, val_loss=5.1))
    found = compare_rows(before, after, "a", "b")
    assert found.same_ids == 0
    assert [(p.before.lr, p.before.seed) for p in found.pairs] == [
        (p.after.lr, p.after.seed) for p in found.pairs
    ]
    assert len(found.pairs) == 4


def test_runs_that_are_ambiguous_are_left_unpaired() -> None:
    before = [dataclasses.replace(sweeps.row(), id="one")]
    after = [dataclasses.replace(sweeps.row(), id=name) for name in ("two", "three")]
    found = compare_rows(before, after, "a", "b")
    assert found.pairs == [] and len(found.only_after) == 2
    assert "No run of b" in found.sentence


def test_a_run_that_came_to_diverge_is_counted() -> None:
    before = [sweeps.row(lr=lr, loss=5.0) for lr in (1e-3, 1e-2)]
    after = [before[0], dataclasses.replace(before[1], state="diverged", val_loss=None)]
    (group,) = compare_rows(before, after, "a", "b").groups
    assert group.turned == (1, 0)
    assert group.loss.value == pytest.approx((sweeps.INITIAL - 5.0) / 2)


def test_a_folder_without_finished_runs_is_the_users_mistake(tmp_path: Path) -> None:
    full = record(tmp_path / "a", [sweeps.row()])
    (tmp_path / "empty").mkdir()
    for other in ("empty", "absent"):
        with pytest.raises(UserError, match=f"{other}: no finished runs"):
            report.compare(full, tmp_path / other)


def test_one_pair_has_no_interval_and_several_have_students() -> None:
    assert over_seeds([0.1]).half_width is None
    assert over_seeds([0.1, 0.3]).half_width == pytest.approx(12.7062 * 0.1, rel=1e-4)


@contextlib.contextmanager
def served(load: Load) -> Iterator[int]:
    with make_server(load) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_a_served_page_follows_the_runs() -> None:
    every = small()
    rows = list(every.rows[:-1])
    with served(
        lambda: [dataclasses.replace(every, rows=tuple(rows), missing=len(every.rows) - len(rows))]
    ) as port:
        status, text = ask(port, "/")
        before = ask(port, "/version")
        assert status == 200 and "1 of 15 runs have no result" in text
        assert ask(port, "/version") == before
        rows.append(every.rows[-1])
        assert ask(port, "/version") != before
        assert "have no result" not in ask(port, "/")[1]


def test_the_server_is_read_only_and_knows_only_its_pages() -> None:
    with served(lambda: [small()]) as port:
        for method in ("POST", "PUT", "DELETE"):
            assert ask(port, "/", method)[0] == 501
        for path in ("/../../etc/passwd", "/index.html", "/version/", "/%2e%2e/", "/x/version"):
            assert ask(port, path)[0] == 404
        assert ask(port, "/", "HEAD") == (200, "")


def test_another_sites_name_does_not_reach_the_loopback_server() -> None:
    with served(lambda: [small()]) as port:
        for name in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "::1"):
            assert ask(port, "/", Host=name)[0] == 421, name
            assert ask(port, "/", Host=f"{name}:{port}")[0] == 421, name
        for name in ("localhost", "LOCALHOST", "127.0.0.1", "[::1]"):
            assert ask(port, "/", Host=f"{name}:{port}")[0] == 200, name
            assert ask(port, "/", Host=name)[0] == 200, "browsers leave port 80 out"


def test_the_loopback_of_ipv6_is_served_and_its_address_can_be_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", lambda server: None)
    told: list[str] = []
    report.serve(lambda: [small()], "::1", 0, told.append)
    assert re.fullmatch(r"http://\[::1\]:\d+/", told[0])


def test_the_server_listens_on_loopback_only_unless_asked() -> None:
    with make_server(lambda: [small()]) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_the_users_mistake() -> None:
    with make_server(lambda: [small()]) as server, pytest.raises(UserError, match="choose another --port"):
        report.serve(lambda: [small()], "127.0.0.1", server.server_address[1], lambda address: None)


def test_several_studies_are_served_with_an_index() -> None:
    with served(lambda: [small(), small(name="paper/fig3", rows=[], missing=2)]) as port:
        text = ask(port, "/")[1]
        assert '<meta http-equiv="refresh"' in text
        links = re.findall(r'<li><a href="([^"]*)"', text)
        assert links == ["paper-fig1/", "paper-fig3/"]
        for link in links:
            assert ask(port, f"/{link}")[0] == 200
            assert ask(port, f"/{link}version")[0] == 200


def test_the_version_depends_on_results_not_on_their_order() -> None:
    sweep = small()
    assert version(sweep) == version(dataclasses.replace(sweep, rows=sweep.rows[::-1]))
    changed = [dataclasses.replace(sweep.rows[0], val_loss=1.0), *sweep.rows[1:]]
    assert version(sweep) != version(dataclasses.replace(sweep, rows=changed))


def test_a_study_that_cannot_be_read_now_is_told_and_served_again_later() -> None:
    broken = [True]

    def load() -> list[Figure]:
        if broken:
            raise UserError("runs/abc/result.json: not readable")
        return [small()]

    with served(load) as port:
        assert ask(port, "/") == (503, "runs/abc/result.json: not readable")
        broken.clear()
        assert ask(port, "/")[0] == 200
